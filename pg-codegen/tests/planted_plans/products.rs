//! Plants in kernels of a family of their own: sizes and views of products, products side by side and with regions,
//! attention, scatters.

use pg_codegen::plan::witness::Lowered;
use pg_codegen::plan::{AttentionShape, Contraction, Kernel, Launch, Matmul, MatrixView, Member, Side};
use pg_codegen::region::Instr;
use pg_codegen::verify::Check;
use pg_fuzz::coverage::stored;
use pg_ir::ty::DType;

use crate::places::{edit, product_mut, products, region_mut, regions, touched};
use crate::{Edit, Plant};

const MEANING: &[Check] = &[Check::Meaning];
const SIZES: &[Check] = &[Check::Meaning, Check::Census, Check::Bounds, Check::Kernels];

pub(crate) const PLANTS: &[Plant] = &[
    Plant::new("m", SIZES, |good| sizes(good, |m| m.m += 1)),
    Plant::new("n", SIZES, |good| sizes(good, |m| m.n += 1)),
    Plant::new("k more", SIZES, |good| sizes(good, |m| m.k += 1)),
    Plant::new("k less", SIZES, |good| on(good, |m, _| m.k > 1, |m| m.k -= 1)),
    Plant::new("batch", SIZES, |good| sizes(good, |m| m.batch += 1)),
    Plant::new("operand one on", &[Check::Meaning, Check::Bounds], |good| sizes(good, |m| m.a.offset += 1)),
    Plant::new("operand transposed", MEANING, |good| on(good, turns_a, |m| turn(&mut m.a))),
    Plant::new("other operand transposed", MEANING, |good| on(good, turns_b, |m| turn(&mut m.b))),
    Plant::new("stride of an operand", &[Check::Meaning, Check::Bounds], |good| {
        on(good, |m, _| m.k > 1, |m| m.a.col += 1)
    }),
    Plant::new("result one on", &[Check::Cover, Check::Bounds], |good| {
        on(good, |_, has_region| !has_region, |m| m.c.offset += 1)
    }),
    Plant::new("result transposed", MEANING, |good| on(good, turns_c, |m| turn(&mut m.c))),
    Plant::new("result with gaps", &[Check::Cover], |good| {
        on(good, |m, has_region| !has_region && m.m > 1, |m| m.c.row += 1)
    }),
    Plant::new("added to what was there", &[Check::Shapes], |good| {
        on(good, |m, has_region| !has_region && !m.accumulate, |m| m.accumulate = true)
    }),
    Plant::new("added to nothing", &[Check::Shapes], |good| {
        on(good, |m, _| m.accumulate, |m| m.accumulate = false)
    }),
    Plant::new("added, and claimed", &[Check::Meaning, Check::Contents, Check::Shapes], claimed_sum),
    Plant::or_equal("called symmetric", &[Check::Kernels], |good| {
        on(good, |m, has_region| !m.symmetric && !has_region, |m| m.symmetric = true)
    }),
    Plant::new("beside: other views", &[Check::Kernels], |good| sharing(good, other_view)),
    Plant::new("beside: one unlinked", &[Check::Shapes], |good| sharing(good, |all| drop(all.members.pop()))),
    Plant::new("beside: alone", &[Check::Shapes], |good| sharing(good, |all| all.members.truncate(1))),
    Plant::new("beside: other side", &[Check::Shapes, Check::Kernels, Check::Meaning], |good| {
        sharing(good, |all| {
            all.shared = Some(if all.shared == Some(Side::Left) { Side::Right } else { Side::Left })
        })
    }),
    Plant::new("segments: one dropped", &[Check::Shapes], |good| segmented(good, |m| m.segments.truncate(1))),
    Plant::new("segments: another k", &[Check::Bounds, Check::Meaning], |good| {
        segmented(good, |m| m.segments[0].k -= 1)
    }),
    Plant::new("segments: another place", &[Check::Bounds, Check::Meaning], |good| {
        segmented(good, |m| m.segments[0].a.offset += 1)
    }),
    Plant::new(
        "segments: another's operand",
        &[Check::Contents, Check::Shapes, Check::Meaning],
        other_operand,
    ),
    Plant::new("tile read elsewhere", &[Check::Kernels], tile_elsewhere),
    Plant::new("tile of other rows", &[Check::Kernels], tile_rows),
    Plant::or_equal("tile rounded otherwise", MEANING, tile_rounded),
    Plant::new("heads", &[Check::Shapes], |good| attention(good, |s| s.heads += 1)),
    Plant::new("heads and width", &[Check::Meaning, Check::Shapes], |good| {
        attention(good, |s| (s.heads, s.kv_heads, s.dim) = (2 * s.heads, 2 * s.kv_heads, s.dim / 2))
    }),
    Plant::new("key/value heads", &[Check::Shapes], |good| attention(good, |s| s.kv_heads += 1)),
    Plant::new("batch and time", MEANING, |good| {
        attention(good, |s| (s.batch, s.time) = (s.batch * s.time, 1))
    }),
    Plant::new("scale", MEANING, |good| attention(good, |s| s.scale *= 2.0)),
    Plant::new("scattered rows", &[Check::Shapes], |good| scatter(good, |rows, _, _| *rows -= 1)),
    Plant::new("scattered halves", &[Check::Shapes], |good| {
        scatter(good, |_, width, count| (*width, *count) = (*width * *count, 1))
    }),
];

fn on(good: &Lowered, wanted: fn(&Matmul, bool) -> bool, change: fn(&mut Matmul)) -> Vec<Edit> {
    let all = products(good).into_iter().filter(|(_, m, has_region)| wanted(m, *has_region));
    all.map(|(at, m, _)| {
        let shape = format!("k{} {} of {} × {} × {}", at.0, m.batch, m.m, m.n, m.k);
        edit(shape, move |bad| change(product_mut(bad, at)))
    })
    .collect()
}

fn sizes(good: &Lowered, change: fn(&mut Matmul)) -> Vec<Edit> {
    on(good, |_, _| true, change)
}

fn turn(view: &mut MatrixView) {
    std::mem::swap(&mut view.row, &mut view.col);
}

fn turns_a(m: &Matmul, _: bool) -> bool {
    m.a.row != m.a.col && (m.m > 1 || m.k > 1)
}

fn turns_b(m: &Matmul, _: bool) -> bool {
    m.b.row != m.b.col && (m.n > 1 || m.k > 1)
}

fn turns_c(m: &Matmul, has_region: bool) -> bool {
    !has_region && m.c.row != m.c.col && (m.m > 1 || m.n > 1)
}

/// Adds to the old value of what it writes, and says that it reads that.
fn claimed_sum(good: &Lowered) -> Vec<Edit> {
    let mut edits = Vec::new();
    for (i, launch) in good.plan.launches.iter().enumerate() {
        let k = launch.kernel.0 as usize;
        let alone = good.plan.launches.iter().filter(|l| l.kernel == launch.kernel).count() == 1;
        if stored(&good.plan.kernels[k]).is_some_and(|m| !m.accumulate) && alone {
            edits.push(edit(format!("#{i}"), move |bad| {
                product_mut(bad, (k, 0)).accumulate = true;
                bad.roles[i].reads[2] = bad.roles[i].writes[2];
            }));
        }
    }
    edits
}

fn sharing(good: &Lowered, change: fn(&mut Contraction)) -> Vec<Edit> {
    let is_shared = |k: &Kernel| matches!(k, Kernel::Contraction(c) if c.shared.is_some());
    let all = good.plan.kernels.iter().enumerate().filter(|(_, k)| is_shared(k));
    all.map(|(i, _)| {
        edit(format!("k{i}"), move |bad| {
            if let Kernel::Contraction(contraction) = &mut bad.plan.kernels[i] {
                change(contraction);
            }
        })
    })
    .collect()
}

fn has_segments(k: &Kernel) -> bool {
    matches!(k, Kernel::Contraction(c) if !c.members[0].segments.is_empty())
}

fn segmented(good: &Lowered, change: fn(&mut Member)) -> Vec<Edit> {
    let all = good.plan.kernels.iter().enumerate().filter(|(_, k)| has_segments(k));
    all.map(|(i, _)| {
        edit(format!("k{i}"), move |bad| {
            if let Kernel::Contraction(contraction) = &mut bad.plan.kernels[i] {
                change(&mut contraction.members[0]);
            }
        })
    })
    .collect()
}

/// The left operands of the first two segments change places.
fn other_operand(good: &Lowered) -> Vec<Edit> {
    let is_segmented = |l: &Launch| has_segments(&good.plan.kernels[l.kernel.0 as usize]);
    let launches = good.plan.launches.iter().enumerate().filter(|(_, l)| is_segmented(l));
    launches.map(|(i, _)| edit(format!("#{i}"), move |bad| bad.plan.launches[i].args.swap(0, 2))).collect()
}

/// The last member reads the shared operand in another way.
fn other_view(contraction: &mut Contraction) {
    let shared = contraction.shared;
    if let Some(Member { matmul: m, .. }) = contraction.members.last_mut() {
        let view = if shared == Some(Side::Left) { &mut m.a } else { &mut m.b };
        view.row += 1;
    }
}

/// Regions on products.
fn tiles(good: &Lowered) -> Vec<(usize, usize)> {
    let on_product = products(good).into_iter().filter(|p| p.2).map(|p| p.0).collect::<Vec<_>>();
    regions(good).into_iter().map(|r| r.0).filter(|at| on_product.contains(at)).collect()
}

fn tile_elsewhere(good: &Lowered) -> Vec<Edit> {
    let shift = |at: (usize, usize)| {
        edit(format!("k{}", at.0), move |bad| {
            let mut body = region_mut(bad, at).body.iter_mut();
            let load = body.find(|i| matches!(i, Instr::Load { arg: 0, .. })).unwrap();
            touched(load).unwrap().offset += 1;
        })
    };
    tiles(good).into_iter().map(shift).collect()
}

fn tile_rows(good: &Lowered) -> Vec<Edit> {
    let grow = |at: (usize, usize)| {
        edit(format!("k{}", at.0), move |bad| {
            let region = region_mut(bad, at);
            match region.rows.first_mut() {
                Some(rows) => *rows += 1,
                None => region.columns += 1,
            }
        })
    };
    tiles(good).into_iter().map(grow).collect()
}

/// The result is rounded before its region, or no longer.
fn tile_rounded(good: &Lowered) -> Vec<Edit> {
    let round = |at: (usize, usize)| {
        edit(format!("k{}", at.0), move |bad| {
            let dtype = &mut region_mut(bad, at).args[0];
            *dtype = if *dtype == DType::F32 { DType::BF16 } else { DType::F32 };
        })
    };
    tiles(good).into_iter().map(round).collect()
}

fn attention(good: &Lowered, change: fn(&mut AttentionShape)) -> Vec<Edit> {
    let wanted = |k: &Kernel| match k {
        Kernel::Attention(s) | Kernel::AttentionGrad(s) => {
            s.time > 1 && s.dim.is_multiple_of(2) && !s.heads.is_multiple_of(s.kv_heads + 1)
        }
        _ => false,
    };
    let all = good.plan.kernels.iter().enumerate().filter(|(_, k)| wanted(k));
    all.map(|(i, _)| {
        edit(format!("k{i}"), move |bad| {
            if let Kernel::Attention(s) | Kernel::AttentionGrad(s) = &mut bad.plan.kernels[i] {
                change(s);
            }
        })
    })
    .collect()
}

fn scatter(good: &Lowered, change: fn(&mut usize, &mut usize, &mut usize)) -> Vec<Edit> {
    let all = good.plan.kernels.iter().enumerate().filter(|(_, k)| matches!(k, Kernel::ScatterAdd { .. }));
    all.map(|(i, _)| {
        edit(format!("k{i}"), move |bad| {
            if let Kernel::ScatterAdd { rows, width, count } = &mut bad.plan.kernels[i] {
                change(rows, width, count);
            }
        })
    })
    .collect()
}
