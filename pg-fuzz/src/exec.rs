//! A reference executor of plans: element by element in float64, obviously right. It asserts what other
//! executors rely on, and overwrites what shares the arena with a buffer that is written.

use std::collections::HashMap;

use pg_codegen::plan::{AttentionShape, BufferId, Kernel, Matmul, Matmuls, MatrixView, Place, Plan};
use pg_codegen::region::{Affine, IndexMap, Instr, Region};
use pg_ir::interp::{Environment, Tensor};
use pg_ir::op::{Bits, Op, Reduction};
use pg_ir::ty::{Axis, DType, Role, Type};

/// Runs a plan on an environment and gives the external buffers back.
pub fn run(plan: &Plan, env: &Environment) -> Environment {
    run_watched(plan, env, |_, _, _| {})
}

/// As [`run`]; `watch` sees the position of each launch, and its arguments before and after.
pub fn run_watched(
    plan: &Plan,
    env: &Environment,
    mut watch: impl FnMut(usize, &[Tensor], &[Tensor]),
) -> Environment {
    let mut memory: Vec<Tensor> = plan.buffers.iter().map(|b| vec![f64::NAN; b.len]).collect();
    for (data, buffer) in memory.iter_mut().zip(&plan.buffers) {
        match &buffer.place {
            Place::External(slot) => {
                if let Some(given) = env.get(slot) {
                    assert_eq!(given.len(), buffer.len, "{slot}");
                    data.clone_from(given);
                }
            }
            Place::Constant(bits) => {
                let decode = |&b: &u32| match buffer.dtype {
                    DType::I32 => f64::from(b as i32),
                    _ => f64::from(f32::from_bits(b)),
                };
                *data = bits.iter().map(decode).collect();
            }
            Place::Temp { offset } => {
                assert!(offset % 64 == 0 && offset + buffer.len * buffer.dtype.size() <= plan.arena_bytes);
            }
        }
    }
    for (i, l) in plan.launches.iter().enumerate() {
        let kernel = &plan.kernels[l.kernel.0 as usize];
        let before: Vec<Tensor> = l.args.iter().map(|a| memory[a.0 as usize].clone()).collect();
        let mut args = before.clone();
        launch(kernel, &mut args);
        for (at, (arg, data)) in l.args.iter().zip(&mut args).enumerate() {
            // Kernels of every family round to what their buffers hold.
            if kernel.writes(at) && plan.buffers[arg.0 as usize].dtype == DType::BF16 {
                data.iter_mut().for_each(|x| *x = cast(DType::BF16, *x));
            }
        }
        watch(i, &before, &args);
        for ((arg, data), old) in l.args.iter().zip(args).zip(before) {
            let same = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits());
            if !same(&data, &old) {
                clobber(plan, *arg, &mut memory);
                memory[arg.0 as usize] = data;
            }
        }
    }
    let mut out = HashMap::new();
    for (data, buffer) in memory.into_iter().zip(&plan.buffers) {
        if let Place::External(slot) = &buffer.place {
            assert!(out.insert(slot.clone(), data).is_none(), "two buffers for {slot}");
        }
    }
    out
}

/// Runs a kernel on its arguments.
pub fn launch(kernel: &Kernel, args: &mut [Tensor]) {
    match kernel {
        Kernel::Region(r) => region(r, args),
        Kernel::Matmul(m) => matmul(m, args),
        Kernel::MatmulRegion(m, r) => matmul_region(m, r, args),
        Kernel::Matmuls(all) => matmuls(all, args),
        Kernel::Attention(s) => attention(s, args),
        Kernel::AttentionGrad(s) => attention_grad(s, args),
        &Kernel::ScatterAdd { rows, width, count } => {
            assert_eq!((args[0].len(), args[1].len(), args[2].len()), (count, count * width, rows * width));
            args[2].fill(0.0);
            for i in 0..count {
                for j in 0..width {
                    let (row, v) = (args[0][i] as usize, args[1][i * width + j]);
                    args[2][row * width + j] += v;
                }
            }
        }
        &Kernel::Copy { len } => {
            assert!(args[0].len() == len && args[1].len() == len);
            args[1] = args[0].clone();
        }
    }
}

/// Overwrites what lies where `written` lies.
fn clobber(plan: &Plan, written: BufferId, memory: &mut [Tensor]) {
    let range = |i: usize| match plan.buffers[i].place {
        Place::Temp { offset } => Some((offset, offset + plan.buffers[i].len * plan.buffers[i].dtype.size())),
        _ => None,
    };
    let Some((start, end)) = range(written.0 as usize) else { return };
    for i in (0..memory.len()).filter(|&i| i != written.0 as usize) {
        if range(i).is_some_and(|(s, e)| s < end && start < e) {
            memory[i].fill(f64::NAN);
        }
    }
}

fn affine(a: &Affine, index: &[usize]) -> i64 {
    assert_eq!(a.strides.len(), index.len());
    a.offset + a.strides.iter().zip(index).map(|(s, i)| s * *i as i64).sum::<i64>()
}

fn load(arg: &[f64], map: &IndexMap, extra: i64, index: &[usize]) -> f64 {
    let inside = map.guards.iter().all(|g| (0..g.size).contains(&affine(&g.expr, index)));
    if inside { arg[(affine(&map.at, index) + extra) as usize] } else { 0.0 }
}

/// Whether a load or index gives one element a row.
fn is_narrow(map: &IndexMap) -> bool {
    let flat = |a: &Affine| a.strides.last() == Some(&0);
    flat(&map.at) && map.guards.iter().all(|g| flat(&g.expr))
}

fn region(r: &Region, args: &mut [Tensor]) {
    assert_eq!(r.args.len(), args.len());
    let reduced: usize = r.rows[r.rows.len() - r.reduced..].iter().product();
    for row in 0..r.row_count() {
        let mut index = vec![0; r.rows.len() + 1];
        let mut rest = row;
        for (i, n) in r.rows.iter().enumerate().rev() {
            index[i] = rest % n;
            rest /= n;
        }
        let mut regs: Vec<Tensor> = Vec::new();
        for instr in &r.body {
            let wide = |narrow: bool| if narrow { 1 } else { r.lanes };
            let value = match instr {
                Instr::Load { arg, map } => {
                    tabulate(wide(is_narrow(map)), &mut index, |ix, _| load(&args[*arg as usize], map, 0, ix))
                }
                Instr::Gather { arg, row, stride, map } => {
                    let ids = &regs[*row as usize];
                    tabulate(wide(is_narrow(map) && ids.len() == 1), &mut index, |ix, l| {
                        load(&args[*arg as usize], map, at(ids, l) as i64 * stride, ix)
                    })
                }
                Instr::Const(v) => vec![f64::from(*v)],
                Instr::ConstInt(v) => vec![f64::from(*v)],
                Instr::Index(a) => {
                    tabulate(wide(a.strides.last() == Some(&0)), &mut index, |ix, _| affine(a, ix) as f64)
                }
                Instr::Unary(f, a) => elementwise(Op::Unary(*f), DType::F32, &[&regs[*a as usize]]),
                Instr::Binary(f, a, b) => {
                    elementwise(Op::Binary(*f), DType::F32, &[&regs[*a as usize], &regs[*b as usize]])
                }
                Instr::Select(c, a, b) => {
                    let [c, a, b] = [c, a, b].map(|r| &regs[*r as usize]);
                    let n = c.len().max(a.len()).max(b.len());
                    (0..n).map(|l| if at(c, l) != 0.0 { at(a, l) } else { at(b, l) }).collect()
                }
                Instr::Cast(to, a) => elementwise(Op::Cast(*to), DType::F32, &[&regs[*a as usize]]),
                Instr::RowReduce(kind, a) => {
                    assert_eq!(regs[*a as usize].len(), r.lanes, "row reduction of a row");
                    vec![combine(*kind, &regs[*a as usize])]
                }
                Instr::Lanes(perm, a) => {
                    assert!(regs[*a as usize].len() == r.lanes && perm.len() == r.lanes);
                    perm.iter().map(|&p| regs[*a as usize][p as usize]).collect()
                }
                Instr::FakeQuant(grid, a) => {
                    assert_eq!(regs[*a as usize].len(), r.lanes, "fake quantisation of a row");
                    let src: Vec<f32> = regs[*a as usize].iter().map(|&x| x as f32).collect();
                    let mut dst = vec![0f32; src.len()];
                    grid.fake_quantize_row(&src, &mut dst);
                    dst.into_iter().map(f64::from).collect()
                }
                Instr::Store { arg, value, at: to } => {
                    let value = &regs[*value as usize];
                    let n = wide(to.strides.last() == Some(&0));
                    assert_eq!(value.len(), n, "a store of a row stores a row");
                    for (l, v) in value.iter().enumerate() {
                        *index.last_mut().unwrap() = l;
                        args[*arg as usize][affine(to, &index) as usize] = *v;
                    }
                    *index.last_mut().unwrap() = 0;
                    Vec::new()
                }
                Instr::Accumulate { arg, value, kind, at: to } => {
                    assert!(r.reduced > 0);
                    let n = r.rows.len();
                    assert!(to.strides[n - r.reduced..n].iter().all(|s| *s == 0));
                    let value = &regs[*value as usize];
                    let n = wide(to.strides.last() == Some(&0));
                    assert_eq!(value.len(), n, "an accumulation of a row takes a row");
                    for (l, &v) in value.iter().enumerate() {
                        *index.last_mut().unwrap() = l;
                        let slot = &mut args[*arg as usize][affine(to, &index) as usize];
                        let is_first = row % reduced == 0;
                        *slot = if is_first { v } else { combine(*kind, &[*slot, v]) };
                    }
                    *index.last_mut().unwrap() = 0;
                    Vec::new()
                }
            };
            regs.push(value);
        }
    }
}

fn at(reg: &[f64], lane: usize) -> f64 {
    if reg.len() == 1 { reg[0] } else { reg[lane] }
}

fn tabulate(n: usize, index: &mut [usize], f: impl Fn(&[usize], usize) -> f64) -> Tensor {
    let last = index.len() - 1;
    let out = (0..n)
        .map(|l| {
            index[last] = l;
            f(index, l)
        })
        .collect();
    index[last] = 0;
    out
}

fn combine(kind: Reduction, values: &[f64]) -> f64 {
    match kind {
        Reduction::Sum => values.iter().sum(),
        Reduction::Max => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    }
}

/// An op on whole registers: of one element, or of as many as the longest has.
fn elementwise(op: Op, from: DType, regs: &[&[f64]]) -> Tensor {
    let n = regs.iter().map(|r| r.len()).max().unwrap_or(0);
    let tensors: Vec<Tensor> = regs.iter().map(|r| (0..n).map(|l| at(r, l)).collect()).collect();
    let ty = |dtype| Type::new(dtype, [Axis::channel(n)]);
    let (tensors, from): (Vec<&Tensor>, Type) = (tensors.iter().collect(), ty(from));
    (op.record().eval)(&op, &tensors, &vec![&from; regs.len()], &[ty(DType::F32)]).swap_remove(0)
}

fn cast(to: DType, x: f64) -> f64 {
    elementwise(Op::Cast(to), DType::F32, &[&[x]])[0]
}

fn matmul(m: &Matmul, args: &mut [Tensor]) {
    let place = |v: &MatrixView, i: usize, r: usize, c: usize| v.offset + i * v.batch + r * v.row + c * v.col;
    for i in 0..m.batch {
        for r in 0..m.m {
            for c in 0..m.n {
                let dot = |k| args[0][place(&m.a, i, r, k)] * args[1][place(&m.b, i, k, c)];
                let sum: f64 = (0..m.k).map(dot).sum();
                let slot = &mut args[2][place(&m.c, i, r, c)];
                *slot = sum + if m.accumulate { *slot } else { 0.0 };
            }
        }
    }
}

/// The whole result is the one block.
fn matmul_region(m: &Matmul, r: &Region, args: &mut [Tensor]) {
    assert_eq!((r.row_count() * r.lanes, m.n % r.lanes), (m.batch * m.m * m.n, 0));
    let mut tile = vec![args[0].clone(), args[1].clone(), vec![0.0; m.batch * m.m * m.n]];
    matmul(m, &mut tile);
    let mut own = vec![tile.remove(2).into_iter().map(|x| cast(r.args[0], x)).collect()];
    own.extend(args[2..].iter().cloned());
    region(r, &mut own);
    args[2..].clone_from_slice(&own[1..]);
}

fn matmuls(all: &Matmuls, args: &mut [Tensor]) {
    for (i, member) in all.members.iter().enumerate() {
        let at = all.args(i);
        let mut own: Vec<Tensor> = at.iter().map(|&at| args[at].clone()).collect();
        launch(member, &mut own);
        for (at, value) in at.into_iter().zip(own) {
            args[at] = value;
        }
    }
}

fn attention_types(s: &AttentionShape) -> [Type; 3] {
    let axes = |heads, dims: &[usize]| {
        let lead =
            [Axis::new(s.batch, Role::Batch), Axis::new(s.time, Role::Time), Axis::new(heads, Role::Head)];
        Type::new(DType::F32, lead.into_iter().chain(dims.iter().map(|&d| Axis::channel(d))))
    };
    [axes(s.heads, &[s.dim]), axes(s.kv_heads, &[s.dim]), axes(s.heads, &[])]
}

fn attention(s: &AttentionShape, args: &mut [Tensor]) {
    let [q, kv, lse] = attention_types(s);
    let op = Op::Attention { scale: Bits::new(f64::from(s.scale)) };
    let out = (op.record().eval)(&op, &[&args[0], &args[1], &args[2]], &[&q, &kv, &kv], &[q.clone(), lse]);
    args[3..5].clone_from_slice(&out);
}

fn attention_grad(s: &AttentionShape, args: &mut [Tensor]) {
    let [q, kv, lse] = attention_types(s);
    let op = Op::AttentionGrad { scale: Bits::new(f64::from(s.scale)) };
    let operands: Vec<&Tensor> = args[..6].iter().collect();
    let results = [q.clone(), kv.clone(), kv.clone()];
    let out = (op.record().eval)(&op, &operands, &[&q, &kv, &kv, &q, &lse, &q], &results);
    args[6..9].clone_from_slice(&out);
}
