//! A reference executor of plans: element by element in float64, obviously right. It asserts what other
//! executors rely on, and overwrites what shares the arena with a buffer that is written.

use std::collections::HashMap;

use pg_codegen::plan::{BufferId, Contraction, Kernel, Matmul, MatrixView, Member, Place, Plan};
use pg_codegen::region::{Region, interp};
use pg_ir::interp::{Environment, Tensor};
use pg_ir::op::Op;
use pg_ir::ty::{DType, Type};

use crate::attention;

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
        Kernel::Region(r) => interp::run(r, args),
        Kernel::Contraction(c) => contraction(c, args),
        Kernel::Attention(s) => {
            let out = attention::forward(s, [&args[0], &args[1], &args[2]]);
            args[3..5].clone_from_slice(&out);
        }
        Kernel::AttentionGrad(s) => {
            let out = attention::backward(s, [0, 1, 2, 3, 4, 5].map(|i| &args[i]));
            args[6..9].clone_from_slice(&out);
        }
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

fn cast(to: DType, x: f64) -> f64 {
    let ty = Type::scalar(DType::F32);
    let op = Op::Cast(to);
    (op.record().eval)(&op, &[&vec![x]], &[&ty], &[ty.with_dtype(to)])[0][0]
}

fn matmul(m: &Matmul, [a, b]: [&Tensor; 2], result: &mut Tensor) {
    let place = |v: &MatrixView, i: usize, r: usize, c: usize| v.offset + i * v.batch + r * v.row + c * v.col;
    for i in 0..m.batch {
        for r in 0..m.m {
            for c in 0..m.n {
                let dot = |k| a[place(&m.a, i, r, k)] * b[place(&m.b, i, k, c)];
                let sum: f64 = (0..m.k).map(dot).sum();
                let slot = &mut result[place(&m.c, i, r, c)];
                *slot = sum + if m.accumulate { *slot } else { 0.0 };
            }
        }
    }
}

/// One member after the other, each on its own arguments.
fn contraction(c: &Contraction, args: &mut [Tensor]) {
    for (i, member) in c.members.iter().enumerate() {
        let at = c.args(i);
        let mut own: Vec<Tensor> = at.iter().map(|&at| args[at].clone()).collect();
        let (operands, rest) = own.split_at_mut(member.operand_count());
        match &member.epilogue {
            Some(region) => with_epilogue(member, region, operands, rest),
            None => products(member, operands, &mut rest[0]),
        }
        for (at, value) in at.into_iter().zip(own) {
            args[at] = value;
        }
    }
}

/// The products of all segments of k, added.
fn products(member: &Member, operands: &[Tensor], c: &mut Tensor) {
    for (i, (m, pair)) in member.products().zip(operands.chunks(2)).enumerate() {
        let m = Matmul { accumulate: m.accumulate || i > 0, ..m };
        matmul(&m, [&pair[0], &pair[1]], c);
    }
}

/// The whole result is the one tile.
fn with_epilogue(member: &Member, r: &Region, operands: &[Tensor], rest: &mut [Tensor]) {
    let m = &member.matmul;
    assert_eq!((r.row_count() * r.columns, m.n % r.columns), (m.batch * m.m * m.n, 0));
    let mut result = vec![0.0; m.batch * m.m * m.n];
    products(&Member { matmul: m.densely(), ..member.clone() }, operands, &mut result);
    let mut own = vec![result.into_iter().map(|x| cast(r.args[0], x)).collect()];
    own.extend(rest.iter().cloned());
    interp::run(r, &mut own);
    rest.clone_from_slice(&own[1..]);
}
