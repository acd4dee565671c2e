//! What a region means, one element at a time in float64.

use pg_codegen::region::{Affine, IndexMap, Instr, Region};
use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::ty::DType;

use super::super::math::round_bf16;

fn eval(at: &Affine, index: &[usize]) -> i64 {
    at.offset + at.strides.iter().zip(index).map(|(s, &i)| s * i as i64).sum::<i64>()
}

fn read(arg: &[f64], map: &IndexMap, index: &[usize], extra: i64) -> f64 {
    let inside = map.guards.iter().all(|g| (0..g.size).contains(&eval(&g.expr, index)));
    if inside { arg[(eval(&map.at, index) + extra) as usize] } else { 0.0 }
}

/// Runs a region on arguments as float64.
pub(super) fn run(region: &Region, args: &mut [Vec<f64>]) {
    let (lanes, rank) = (region.lanes, region.rows.len());
    let inputs = args.to_vec();
    let mut integer = Vec::new();
    // Where each accumulation has written so far.
    let mut begun = std::collections::HashSet::new();
    for row in 0..region.row_count() {
        let mut index = vec![0; rank + 1];
        let mut rest = row;
        for axis in (0..rank).rev() {
            index[axis] = rest % region.rows[axis];
            rest /= region.rows[axis];
        }
        let mut regs: Vec<Vec<f64>> = Vec::new();
        integer.clear();
        for (number, instr) in region.body.iter().enumerate() {
            let mut is_int = false;
            let mut lane = |f: &mut dyn FnMut(&[usize], usize) -> f64| -> Vec<f64> {
                (0..lanes)
                    .map(|l| {
                        index[rank] = l;
                        f(&index, l)
                    })
                    .collect()
            };
            let value = match instr {
                Instr::Load { arg, map } => {
                    is_int = region.args[*arg as usize] == DType::I32;
                    lane(&mut |ix, _| read(&inputs[*arg as usize], map, ix, 0))
                }
                Instr::Gather { arg, row, stride, map } => lane(&mut |ix, l| {
                    read(&inputs[*arg as usize], map, ix, regs[*row as usize][l] as i64 * stride)
                }),
                Instr::Const(c) => vec![f64::from(*c); lanes],
                Instr::ConstInt(c) => {
                    is_int = true;
                    vec![f64::from(*c); lanes]
                }
                Instr::Index(at) => {
                    is_int = true;
                    lane(&mut |ix, _| eval(at, ix) as f64)
                }
                Instr::Unary(f, x) => {
                    let f: fn(f64) -> f64 = match f {
                        Unary::Exp => f64::exp,
                        Unary::Log => f64::ln,
                        Unary::Tanh => f64::tanh,
                        Unary::Sigmoid => |x| 1.0 / (1.0 + (-x).exp()),
                        Unary::Sqrt => f64::sqrt,
                        Unary::Rsqrt => |x| 1.0 / x.sqrt(),
                        Unary::Sin => f64::sin,
                        Unary::Cos => f64::cos,
                    };
                    regs[*x as usize].iter().map(|&x| f(x)).collect()
                }
                Instr::Binary(f, a, b) => {
                    is_int = integer[*a as usize] && !matches!(f, Binary::Gt | Binary::Eq);
                    let f: fn(f64, f64) -> f64 = match f {
                        Binary::Add => |a, b| a + b,
                        Binary::Sub => |a, b| a - b,
                        Binary::Mul => |a, b| a * b,
                        Binary::Div => |a, b| a / b,
                        Binary::Max => f64::max,
                        Binary::Rem => |a, b| a % b,
                        Binary::Xor => |a, b| ((a as i64) ^ (b as i64)) as f64,
                        Binary::Gt => |a, b| f64::from(a > b),
                        Binary::Eq => |a, b| f64::from(a == b),
                    };
                    let wrap = |x: f64| if is_int { f64::from(x as i64 as i32) } else { x };
                    let (a, b) = (&regs[*a as usize], &regs[*b as usize]);
                    a.iter().zip(b).map(|(&a, &b)| wrap(f(a, b))).collect()
                }
                Instr::Select(c, a, b) => {
                    is_int = integer[*a as usize];
                    let pick = |l: usize| regs[if regs[*c as usize][l] != 0.0 { *a } else { *b } as usize][l];
                    (0..lanes).map(pick).collect()
                }
                Instr::Cast(to, x) => {
                    is_int = *to == DType::I32;
                    let convert: fn(f64) -> f64 = match to {
                        DType::F32 => |x| x,
                        DType::BF16 => |x| f64::from(round_bf16(x as f32)),
                        DType::I32 => |x| f64::from(x as i32),
                        DType::Bool => |x| f64::from(x != 0.0),
                    };
                    regs[*x as usize].iter().map(|&x| convert(x)).collect()
                }
                Instr::RowReduce(Reduction::Sum, x) => vec![regs[*x as usize].iter().sum(); lanes],
                Instr::RowReduce(Reduction::Max, x) => {
                    vec![regs[*x as usize].iter().copied().fold(f64::NEG_INFINITY, f64::max); lanes]
                }
                Instr::Lanes(perm, x) => {
                    is_int = integer[*x as usize];
                    perm.iter().map(|&p| regs[*x as usize][p as usize]).collect()
                }
                Instr::FakeQuant(grid, x) => {
                    let row: Vec<f32> = regs[*x as usize].iter().map(|&x| x as f32).collect();
                    let mut out = vec![0.0; lanes];
                    grid.fake_quantize_row(&row, &mut out);
                    out.into_iter().map(f64::from).collect()
                }
                Instr::Store { arg, value, at } => {
                    for (l, &x) in regs[*value as usize].iter().enumerate() {
                        index[rank] = l;
                        let to = eval(at, &index) as usize;
                        args[*arg as usize][to] = x;
                    }
                    Vec::new()
                }
                Instr::Accumulate { arg, value, kind, at } => {
                    let narrow = at.strides[rank] == 0;
                    for (l, &x) in
                        regs[*value as usize].iter().enumerate().take(if narrow { 1 } else { lanes })
                    {
                        index[rank] = l;
                        let to = eval(at, &index) as usize;
                        let out = &mut args[*arg as usize][to];
                        *out = match (begun.insert((number, to)), kind) {
                            (true, _) => x,
                            (false, Reduction::Sum) => *out + x,
                            (false, Reduction::Max) => out.max(x),
                        };
                    }
                    Vec::new()
                }
            };
            regs.push(value);
            integer.push(is_int);
        }
    }
}
