//! Plants in regions: types, domains, index maps, guards, instructions.

use pg_codegen::plan::witness::Lowered;
use pg_codegen::region::{Affine, Guard, IndexMap, Instr, Region};
use pg_codegen::verify::Check;
use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::ty::DType;

use crate::places::{At, edit, guards, instrs, region_mut, regions, touched, whole};
use crate::{Edit, Plant};

const MEANING: &[Check] = &[Check::Meaning];
const MAPS: &[Check] = &[Check::Meaning, Check::Bounds, Check::Cover, Check::InPlace, Check::Kernels];

pub(crate) const PLANTS: &[Plant] = &[
    // Form.
    Plant::new("operand that comes later", &[Check::Kernels], operand_later),
    Plant::new("operand that is a store", &[Check::Kernels], operand_is_store),
    Plant::new("operands of two types", &[Check::Kernels], operands_of_two_types),
    Plant::new("argument of another type", &[Check::Shapes, Check::Kernels], argument_retyped),
    Plant::new("argument that is not there", &[Check::Shapes], no_argument),
    Plant::new("stride dropped", &[Check::Kernels], stride_dropped),
    Plant::new("column permutation out of range", &[Check::Kernels], columns_out_of_range),
    Plant::or_equal("columns permuted otherwise", MEANING, columns_rotated),
    Plant::new("row with one element", &[Check::Kernels], row_of_one),
    Plant::new("axis reduced no more", &[Check::Kernels], reduced_less),
    Plant::new("sum that moves along its axis", &[Check::Kernels], accumulate_moves),
    Plant::new("guard that never holds", &[Check::Kernels], guard_empty),
    // Domain.
    Plant::new("row more", &[Check::Bounds, Check::Cover], |good| rows(good, 1)),
    Plant::new("row fewer", &[Check::Cover, Check::Meaning], |good| rows(good, -1)),
    Plant::new("half of the columns", &[Check::Cover, Check::Kernels], half_of_the_columns),
    // Index maps.
    Plant::or_equal("load one on", &[Check::Meaning, Check::Bounds], |good| load_shifted(good, 1)),
    Plant::or_equal("load one back", &[Check::Meaning, Check::Bounds], |good| load_shifted(good, -1)),
    Plant::new("store one on", &[Check::Cover, Check::Bounds], store_shifted),
    Plant::or_equal("stride of a load", MAPS, load_stride),
    Plant::or_equal("stride of a store", MAPS, store_stride),
    Plant::or_equal("index changed", MEANING, index_changed),
    Plant::or_equal("gather of other rows", &[Check::Meaning], gather_stride),
    Plant::or_equal("guard dropped", &[Check::Meaning, Check::Bounds], guard_dropped),
    Plant::or_equal("guard loosened", &[Check::Meaning, Check::Bounds], |good| guard_size(good, 1)),
    Plant::or_equal("guard tightened", MEANING, |good| guard_size(good, -1)),
    Plant::or_equal("guard shifted", &[Check::Meaning, Check::Bounds], guard_shifted),
    Plant::or_equal("guard added", MEANING, guard_added),
    // Stores.
    Plant::new("store dropped", &[Check::Shapes], store_dropped),
    Plant::new("store repeated", &[Check::Cover], store_repeated),
    Plant::new("load after its store", &[Check::InPlace], load_after_store),
    Plant::new("load beside its store", &[Check::InPlace], load_beside_store),
    Plant::new("one element of a row in place", &[Check::InPlace], row_in_place),
    // Arithmetic.
    Plant::or_equal("operands exchanged", MEANING, operands_exchanged),
    Plant::or_equal("selection turned round", MEANING, selection_turned),
    Plant::or_equal("another function", MEANING, other_function),
    Plant::or_equal("another operation", MEANING, other_operation),
    Plant::or_equal("another reduction", MEANING, other_reduction),
    Plant::or_equal("round left out", &[Check::Meaning], round_left_out),
    Plant::or_equal("another grid", MEANING, other_grid),
    Plant::or_equal("another number", MEANING, other_number),
    Plant::or_equal("another integer", MEANING, other_integer),
    Plant::or_equal("another register stored", &[Check::Meaning, Check::Kernels], other_register),
];

fn is_load(_: &Region, instr: &Instr) -> bool {
    matches!(instr, Instr::Load { .. } | Instr::Gather { .. })
}

fn is_written(_: &Region, instr: &Instr) -> bool {
    matches!(instr, Instr::Store { .. } | Instr::Accumulate { .. })
}

fn has_guards(_: &Region, instr: &Instr) -> bool {
    guards(&mut instr.clone()).is_some()
}

fn operand_later(good: &Lowered) -> Vec<Edit> {
    let late = |instr: &mut Instr, region: &Region| match instr {
        Instr::Unary(_, a) | Instr::Cast(_, a) | Instr::Binary(_, a, _) => *a = region.body.len() as u32,
        _ => {}
    };
    let takes = |_: &Region, i: &Instr| matches!(i, Instr::Unary(..) | Instr::Cast(..) | Instr::Binary(..));
    instrs(good, takes, late)
}

/// A store that reads a store before it.
fn operand_is_store(good: &Lowered) -> Vec<Edit> {
    let first = |region: &Region| region.body.iter().position(|i| is_written(region, i));
    let mut edits = Vec::new();
    for (at, region) in regions(good) {
        let Some(stored) = first(region) else { continue };
        let later = region.body.iter().enumerate().skip(stored + 1).find(|(_, i)| is_written(region, i));
        edits.extend(later.map(|(i, _)| {
            edit(format!("k{}", at.0), move |bad| set_value(&mut region_mut(bad, at).body[i], stored as u32))
        }));
    }
    edits
}

fn set_value(instr: &mut Instr, to: u32) {
    if let Instr::Store { value, .. } | Instr::Accumulate { value, .. } = instr {
        *value = to;
    }
}

fn operands_of_two_types(good: &Lowered) -> Vec<Edit> {
    let mut edits = Vec::new();
    for (at, region) in regions(good) {
        let float = region.body.iter().position(|i| matches!(i, Instr::Unary(..) | Instr::Const(_)));
        let int = region.body.iter().position(|i| matches!(i, Instr::Index(_) | Instr::ConstInt(_)));
        let (Some(float), Some(int)) = (float, int) else { continue };
        edits.push(edit(format!("k{}", at.0), move |bad| {
            region_mut(bad, at).body.push(Instr::Binary(Binary::Add, float as u32, int as u32));
        }));
    }
    edits
}

fn argument_retyped(good: &Lowered) -> Vec<Edit> {
    whole(
        good,
        |r| !r.args.is_empty(),
        |region| {
            let last = region.args.last_mut().unwrap();
            *last = if *last == DType::F32 { DType::BF16 } else { DType::F32 };
        },
    )
}

fn no_argument(good: &Lowered) -> Vec<Edit> {
    instrs(good, is_load, |instr, region| {
        if let Instr::Load { arg, .. } | Instr::Gather { arg, .. } = instr {
            *arg = region.args.len() as u32;
        }
    })
}

fn stride_dropped(good: &Lowered) -> Vec<Edit> {
    let has_many = |r: &Region, i: &Instr| !r.rows.is_empty() && touched(&mut i.clone()).is_some();
    instrs(good, has_many, |instr, _| _ = touched(instr).unwrap().strides.remove(0))
}

fn is_permutation(region: &Region, instr: &Instr) -> bool {
    region.columns > 1 && matches!(instr, Instr::Permute(..))
}

fn columns_out_of_range(good: &Lowered) -> Vec<Edit> {
    instrs(good, is_permutation, |instr, region| {
        if let Instr::Permute(perm, _) = instr {
            let mut new = perm.to_vec();
            new[0] = region.columns as u32;
            *perm = new.into();
        }
    })
}

fn columns_rotated(good: &Lowered) -> Vec<Edit> {
    instrs(good, is_permutation, |instr, _| {
        if let Instr::Permute(perm, _) = instr {
            let mut new = perm.to_vec();
            new.swap(0, 1);
            *perm = new.into();
        }
    })
}

/// A row operation on a register that has one element a row.
fn row_of_one(good: &Lowered) -> Vec<Edit> {
    let mut edits = Vec::new();
    for (at, region) in regions(good).into_iter().filter(|(_, r)| r.columns > 1) {
        let row_op =
            region.body.iter().position(|i| matches!(i, Instr::RowReduce(..) | Instr::FakeQuant(..)));
        let narrow = region.body.iter().position(|i| matches!(i, Instr::Const(_)));
        let (Some(row_op), Some(narrow)) = (row_op, narrow.filter(|n| Some(*n) < row_op)) else { continue };
        edits.push(edit(format!("k{} instruction {row_op}", at.0), move |bad| {
            if let Instr::RowReduce(_, a) | Instr::FakeQuant(_, a) = &mut region_mut(bad, at).body[row_op] {
                *a = narrow as u32;
            }
        }));
    }
    edits
}

fn reduced_less(good: &Lowered) -> Vec<Edit> {
    whole(good, |r| r.reduced > 0, |region| region.reduced = 0)
}

fn accumulate_moves(good: &Lowered) -> Vec<Edit> {
    instrs(
        good,
        |_, i| matches!(i, Instr::Accumulate { .. }),
        |instr, region| {
            touched(instr).unwrap().strides[region.rows.len() - 1] = 1;
        },
    )
}

fn guard_empty(good: &Lowered) -> Vec<Edit> {
    instrs(good, has_guards, |instr, _| guards(instr).unwrap()[0].size = 0)
}

fn rows(good: &Lowered, by: isize) -> Vec<Edit> {
    let all = regions(good).into_iter().filter(|(_, r)| r.rows.first().is_some_and(|n| *n > 1));
    all.map(|(at, _): (At, _)| {
        edit(format!("k{}", at.0), move |bad| {
            let first = &mut region_mut(bad, at).rows[0];
            *first = first.saturating_add_signed(by);
        })
    })
    .collect()
}

fn half_of_the_columns(good: &Lowered) -> Vec<Edit> {
    whole(good, |r| r.columns > 1 && r.columns.is_multiple_of(2), |region| region.columns /= 2)
}

fn load_shifted(good: &Lowered, by: i64) -> Vec<Edit> {
    match by {
        1 => instrs(good, is_load, |instr, _| touched(instr).unwrap().offset += 1),
        _ => instrs(good, is_load, |instr, _| touched(instr).unwrap().offset -= 1),
    }
}

fn store_shifted(good: &Lowered) -> Vec<Edit> {
    instrs(good, is_written, |instr, _| touched(instr).unwrap().offset += 1)
}

/// The stride of the last axis that is not of size 1, and not 0.
fn widen(at: &mut Affine, region: &Region) {
    let sizes = region.sizes();
    let axis = (0..sizes.len()).rev().find(|&a| sizes[a] > 1 && at.strides[a] != 0).unwrap_or(0);
    at.strides[axis] += 1;
}

fn load_stride(good: &Lowered) -> Vec<Edit> {
    instrs(good, is_load, |instr, region| widen(touched(instr).unwrap(), region))
}

fn store_stride(good: &Lowered) -> Vec<Edit> {
    instrs(good, is_written, |instr, region| widen(touched(instr).unwrap(), region))
}

fn index_changed(good: &Lowered) -> Vec<Edit> {
    instrs(
        good,
        |_, i| matches!(i, Instr::Index(_)),
        |instr, _| {
            if let Instr::Index(at) = instr {
                at.offset += 1;
            }
        },
    )
}

fn gather_stride(good: &Lowered) -> Vec<Edit> {
    instrs(
        good,
        |_, i| matches!(i, Instr::Gather { .. }),
        |instr, _| {
            if let Instr::Gather { stride, .. } = instr {
                *stride += 1;
            }
        },
    )
}

fn guard_dropped(good: &Lowered) -> Vec<Edit> {
    instrs(good, has_guards, |instr, _| drop(guards(instr).unwrap().pop()))
}

fn guard_size(good: &Lowered, by: i64) -> Vec<Edit> {
    match by {
        1 => instrs(good, has_guards, |instr, _| guards(instr).unwrap()[0].size += 1),
        _ => instrs(
            good,
            |_, i| guards(&mut i.clone()).is_some_and(|g| g[0].size > 1),
            |instr, _| guards(instr).unwrap()[0].size -= 1,
        ),
    }
}

fn guard_shifted(good: &Lowered) -> Vec<Edit> {
    instrs(good, has_guards, |instr, _| guards(instr).unwrap()[0].expr.offset += 1)
}

/// The last column is read as zero.
fn guard_added(good: &Lowered) -> Vec<Edit> {
    let loads = |r: &Region, i: &Instr| {
        r.columns > 1 && matches!(i, Instr::Load { map, .. } if map.at.strides.last() != Some(&0))
    };
    instrs(good, loads, |instr, region| {
        if let Instr::Load { map, .. } = instr {
            let mut strides = map.at.strides.clone();
            strides.iter_mut().for_each(|s| *s = 0);
            *strides.last_mut().unwrap() = 1;
            map.guards.push(Guard { expr: Affine { offset: 0, strides }, size: region.columns as i64 - 1 });
        }
    })
}

/// Of a store without readers: the last instruction.
fn store_dropped(good: &Lowered) -> Vec<Edit> {
    whole(good, |r| r.body.last().is_some_and(|i| is_written(r, i)), |region| drop(region.body.pop()))
}

fn store_repeated(good: &Lowered) -> Vec<Edit> {
    whole(
        good,
        |r| r.body.last().is_some_and(|i| is_written(r, i)),
        |region| region.body.push(region.body.last().unwrap().clone()),
    )
}

/// A load of an argument that is read and written in place.
fn loads_in_place(region: &Region) -> Option<usize> {
    let written =
        |arg: u32| region.body.iter().any(|i| matches!(i, Instr::Store { arg: a, .. } if *a == arg));
    region.body.iter().position(|i| matches!(i, Instr::Load { arg, .. } if written(*arg)))
}

fn load_after_store(good: &Lowered) -> Vec<Edit> {
    whole(
        good,
        |r| loads_in_place(r).is_some(),
        |region| {
            let load = loads_in_place(region).unwrap();
            region.body.push(region.body[load].clone());
        },
    )
}

fn load_beside_store(good: &Lowered) -> Vec<Edit> {
    whole(
        good,
        |r| loads_in_place(r).is_some() && r.columns > 1,
        |region| {
            let load = loads_in_place(region).unwrap();
            let at = touched(&mut region.body[load]).unwrap();
            let column = at.strides.len() - 1;
            at.offset += at.strides[column];
        },
    )
}

/// One element a row, read before it is written, by rows of many columns: each piece of a long row reads it.
fn row_in_place(good: &Lowered) -> Vec<Edit> {
    let mut edits = Vec::new();
    for (at, region) in regions(good).into_iter().filter(|(_, r)| r.columns > 1) {
        for instr in &region.body {
            let Instr::Store { arg, at: to, .. } = instr else { continue };
            if to.strides.last() != Some(&0) || good.plan.kernels[at.0].arg_count() != region.args.len() {
                continue;
            }
            let load = Instr::Load { arg: *arg, map: IndexMap { at: to.clone(), guards: vec![] } };
            let arg = *arg as usize;
            edits.push(edit(format!("k{} a{arg}", at.0), move |bad| {
                let region = region_mut(bad, at);
                region.body.iter_mut().for_each(|instr| instr.for_each_operand(|r| *r += 1));
                region.body.insert(0, load.clone());
                for (launch, roles) in bad.plan.launches.iter().zip(&mut bad.roles) {
                    if launch.kernel.0 as usize == at.0 {
                        roles.reads[arg] = roles.writes[arg];
                    }
                }
            }));
        }
    }
    edits
}

fn operands_exchanged(good: &Lowered) -> Vec<Edit> {
    let ordered = |_: &Region, i: &Instr| matches!(i, Instr::Binary(Binary::Sub | Binary::Div | Binary::Gt, a, b) if a != b);
    instrs(good, ordered, |instr, _| {
        if let Instr::Binary(_, a, b) = instr {
            std::mem::swap(a, b);
        }
    })
}

fn selection_turned(good: &Lowered) -> Vec<Edit> {
    instrs(
        good,
        |_, i| matches!(i, Instr::Select(_, a, b) if a != b),
        |instr, _| {
            if let Instr::Select(_, a, b) = instr {
                std::mem::swap(a, b);
            }
        },
    )
}

fn other_function(good: &Lowered) -> Vec<Edit> {
    instrs(
        good,
        |_, i| matches!(i, Instr::Unary(..)),
        |instr, _| {
            if let Instr::Unary(f, _) = instr {
                *f = if *f == Unary::Exp { Unary::Tanh } else { Unary::Exp };
            }
        },
    )
}

fn other_operation(good: &Lowered) -> Vec<Edit> {
    let arithmetic =
        |_: &Region, i: &Instr| matches!(i, Instr::Binary(Binary::Add | Binary::Mul | Binary::Sub, ..));
    instrs(good, arithmetic, |instr, _| {
        if let Instr::Binary(f, ..) = instr {
            *f = if *f == Binary::Add { Binary::Mul } else { Binary::Add };
        }
    })
}

fn other_reduction(good: &Lowered) -> Vec<Edit> {
    instrs(
        good,
        |_, i| matches!(i, Instr::RowReduce(..) | Instr::Accumulate { .. }),
        |instr, _| {
            if let Instr::RowReduce(kind, _) | Instr::Accumulate { kind, .. } = instr {
                *kind = if *kind == Reduction::Sum { Reduction::Max } else { Reduction::Sum };
            }
        },
    )
}

/// A round to bfloat16 between two float32 computations.
fn round_left_out(good: &Lowered) -> Vec<Edit> {
    instrs(
        good,
        |_, i| matches!(i, Instr::Cast(DType::BF16, _)),
        |instr, _| {
            if let Instr::Cast(to, _) = instr {
                *to = DType::F32;
            }
        },
    )
}

fn other_grid(good: &Lowered) -> Vec<Edit> {
    instrs(
        good,
        |_, i| matches!(i, Instr::FakeQuant(..)),
        |instr, _| {
            if let Instr::FakeQuant(grid, _) = instr {
                grid.clip += 1;
            }
        },
    )
}

fn other_number(good: &Lowered) -> Vec<Edit> {
    instrs(
        good,
        |_, i| matches!(i, Instr::Const(_)),
        |instr, _| {
            if let Instr::Const(number) = instr {
                *number = number.mul_add(1.5, 1.0);
            }
        },
    )
}

fn other_integer(good: &Lowered) -> Vec<Edit> {
    instrs(
        good,
        |_, i| matches!(i, Instr::ConstInt(_)),
        |instr, _| {
            if let Instr::ConstInt(number) = instr {
                *number += 1;
            }
        },
    )
}

/// A store of the register before the one that it is to store.
fn other_register(good: &Lowered) -> Vec<Edit> {
    instrs(
        good,
        |_, i| matches!(i, Instr::Store { value, .. } if *value > 0),
        |instr, _| {
            if let Instr::Store { value, .. } = instr {
                *value -= 1;
            }
        },
    )
}
