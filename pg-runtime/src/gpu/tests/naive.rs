//! Regions in float64, one row after the other: what a region means.

use pg_codegen::region::{Affine, IndexMap, Instr, Region};
use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::ty::DType;

use super::Arg;

fn at(a: &Affine, index: &[i64]) -> i64 {
    a.offset + a.strides.iter().zip(index).map(|(s, i)| s * i).sum::<i64>()
}

fn map(m: &IndexMap, index: &[i64]) -> Option<i64> {
    let inside = m.guards.iter().all(|g| (0..g.size).contains(&at(&g.expr, index)));
    inside.then(|| at(&m.at, index))
}

/// What a region writes, by argument; other elements of written arguments keep their old values.
pub(super) fn region(r: &Region, args: &[Arg]) -> Vec<Vec<f64>> {
    let mut memory: Vec<Vec<f64>> = (args.iter())
        .map(|arg| match arg {
            Arg::Floats(v) | Arg::InOut(v, _) => v.iter().map(|&x| f64::from(x)).collect(),
            Arg::Ints(v) => v.iter().map(|&x| f64::from(x)).collect(),
            Arg::Out(len) => vec![0.0; *len],
        })
        .collect();
    let before = memory.clone();
    let mut started = std::collections::HashSet::new();
    for row in 0..r.row_count() {
        let mut index = vec![0i64; r.rows.len() + 1];
        let mut rest = row;
        for axis in (0..r.rows.len()).rev() {
            index[axis] = (rest % r.rows[axis]) as i64;
            rest /= r.rows[axis];
        }
        let mut regs: Vec<Vec<f64>> = Vec::new();
        for instr in &r.body {
            let mut lanes = |f: &mut dyn FnMut(usize, &[i64]) -> f64| -> Vec<f64> {
                (0..r.lanes)
                    .map(|lane| {
                        *index.last_mut().unwrap() = lane as i64;
                        f(lane, &index)
                    })
                    .collect()
            };
            let value = match instr {
                Instr::Load { arg, map: m } => {
                    lanes(&mut |_, i| map(m, i).map_or(0.0, |at| before[*arg as usize][at as usize]))
                }
                Instr::Gather { arg, row, stride, map: m } => {
                    let rows = regs[*row as usize].clone();
                    lanes(&mut |l, i| {
                        let at = map(m, i).map(|at| at + rows[l] as i64 * stride);
                        at.map_or(0.0, |at| before[*arg as usize][at as usize])
                    })
                }
                Instr::Const(c) => vec![f64::from(*c); r.lanes],
                Instr::ConstInt(c) => vec![f64::from(*c); r.lanes],
                Instr::Index(a) => lanes(&mut |_, i| at(a, i) as f64),
                Instr::Unary(f, x) => regs[*x as usize].iter().map(|&x| unary(*f, x)).collect(),
                Instr::Binary(f, a, b) => {
                    let pairs = regs[*a as usize].iter().zip(&regs[*b as usize]);
                    pairs.map(|(&a, &b)| binary(*f, a, b)).collect()
                }
                Instr::Select(c, a, b) => {
                    let pick = |l: usize| {
                        let from = if regs[*c as usize][l] != 0.0 { a } else { b };
                        regs[*from as usize][l]
                    };
                    (0..r.lanes).map(pick).collect()
                }
                Instr::Cast(to, x) => regs[*x as usize].iter().map(|&x| cast(*to, x)).collect(),
                Instr::RowReduce(kind, x) => {
                    let x = &regs[*x as usize];
                    let total = match kind {
                        Reduction::Sum => x.iter().sum(),
                        Reduction::Max => x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                    };
                    vec![total; r.lanes]
                }
                Instr::Lanes(perm, x) => perm.iter().map(|&p| regs[*x as usize][p as usize]).collect(),
                Instr::FakeQuant(grid, x) => {
                    let x: Vec<f32> = regs[*x as usize].iter().map(|&x| x as f32).collect();
                    let mut y = vec![0.0; x.len()];
                    grid.fake_quantize_row(&x, &mut y);
                    y.into_iter().map(f64::from).collect()
                }
                Instr::Store { arg, value, at: to } => {
                    let x = regs[*value as usize].clone();
                    lanes(&mut |l, i| {
                        memory[*arg as usize][at(to, i) as usize] = x[l];
                        0.0
                    })
                }
                Instr::Accumulate { arg, value, kind, at: to } => {
                    let x = regs[*value as usize].clone();
                    let per_lane = to.strides[r.rows.len()] != 0;
                    lanes(&mut |l, i| {
                        if per_lane || l == 0 {
                            let place = &mut memory[*arg as usize][at(to, i) as usize];
                            *place = match (started.insert((*arg, at(to, i))), kind) {
                                (true, _) => x[l],
                                (false, Reduction::Sum) => *place + x[l],
                                (false, Reduction::Max) => place.max(x[l]),
                            };
                        }
                        0.0
                    })
                }
            };
            regs.push(value);
        }
    }
    let written = |(arg, memory)| matches!(arg, &Arg::Out(_) | &Arg::InOut(..)).then_some(memory);
    args.iter().zip(memory).filter_map(written).collect()
}

fn unary(f: Unary, x: f64) -> f64 {
    match f {
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
    }
}

fn binary(f: Binary, a: f64, b: f64) -> f64 {
    match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Max => a.max(b),
        Binary::Rem => a % b,
        Binary::Xor => f64::from(a as i32 ^ b as i32),
        Binary::Gt => f64::from(a > b),
        Binary::Eq => f64::from(a == b),
    }
}

fn cast(to: DType, x: f64) -> f64 {
    match to {
        DType::F32 => x,
        DType::BF16 => f64::from(half::bf16::from_f32(x as f32).to_f32()),
        DType::I32 => f64::from(x as i32),
        DType::Bool => f64::from(x != 0.0),
    }
}
