//! What a launch costs: floating point operations, and bytes that it reads and writes if every element
//! comes from memory once. It must count what the launch does, not what the graph would do unfused.

use pg_ir::op::Binary;

use crate::region::{Affine, Instr, Region};

/// Cost of one launch.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct LaunchCost {
    pub(crate) flops: f64,
    pub(crate) bytes: f64,
}

/// Cost of a region whose arguments have `lens` elements.
pub(crate) fn region(region: &Region, lens: &[usize]) -> LaunchCost {
    let (rows, columns) = (region.row_count() as f64, region.columns as f64);
    let sizes = region.sizes();
    let mut wide: Vec<bool> = Vec::with_capacity(region.body.len());
    let mut flops = 0.0;
    // Elements touched, by argument: several loads of one argument may overlap, but not exceed it.
    let mut touched = vec![0usize; region.args.len()];
    for instr in &region.body {
        let of = |r: &u32| wide[*r as usize];
        let (is_wide, ops_per_element) = match instr {
            Instr::Load { arg, map } => {
                touched[*arg as usize] += elements(&map.at, &sizes);
                (map.at.varies_along_columns(), 0.0)
            }
            Instr::Gather { arg, row, map, .. } => {
                touched[*arg as usize] += sizes.iter().product::<usize>();
                (of(row) || map.at.varies_along_columns(), 0.0)
            }
            Instr::Const(_) | Instr::ConstInt(_) => (false, 0.0),
            Instr::Index(at) => (at.varies_along_columns(), 0.0),
            Instr::Unary(_, a) => (of(a), 1.0),
            Instr::Binary(Binary::Rem | Binary::Xor | Binary::Gt | Binary::Eq, a, b) => (of(a) || of(b), 0.0),
            Instr::Binary(_, a, b) => (of(a) || of(b), 1.0),
            Instr::Select(c, a, b) => (of(c) || of(a) || of(b), 0.0),
            Instr::Cast(_, a) => (of(a), 0.0),
            Instr::Permute(_, a) => (of(a), 0.0),
            Instr::RowReduce(_, a) => {
                flops += rows * if of(a) { columns } else { 1.0 };
                (false, 0.0)
            }
            Instr::FakeQuant(_, a) => (of(a), 4.0),
            Instr::Store { arg, at, .. } => {
                touched[*arg as usize] += elements(at, &sizes);
                (false, 0.0)
            }
            Instr::Accumulate { arg, value, at, .. } => {
                touched[*arg as usize] += elements(at, &sizes);
                flops += rows * if of(value) { columns } else { 1.0 };
                (false, 0.0)
            }
        };
        flops += ops_per_element * rows * if is_wide { columns } else { 1.0 };
        wide.push(is_wide);
    }
    let bytes = region.args.iter().zip(&touched).zip(lens);
    let bytes = bytes.map(|((dtype, &n), &len)| (n.min(len) * dtype.size()) as f64).sum();
    LaunchCost { flops, bytes }
}

/// Elements that an index map reaches, if no two indices meet.
fn elements(at: &Affine, sizes: &[usize]) -> usize {
    at.strides.iter().zip(sizes).filter(|(s, _)| **s != 0).map(|(_, n)| n).product()
}
