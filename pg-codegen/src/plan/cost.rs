//! What a launch costs: floating point operations, and bytes that it reads and writes if every element
//! comes from memory once. It must count what the launch does, not what the graph would do unfused.

use pg_ir::op::Binary;

use crate::region::{Affine, IndexMap, Instr, Reg, Region};

/// Cost of one launch.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct LaunchCost {
    pub(crate) flops: f64,
    pub(crate) bytes: f64,
}

/// Cost of a region whose arguments have `lens` elements.
pub(crate) fn region(region: &Region, lens: &[usize]) -> LaunchCost {
    let (rows, columns) = (region.row_count() as f64, region.columns as f64);
    let (sizes, types) = (region.sizes(), region.reg_types());
    let wide = |r: &Reg| types[*r as usize].wide;
    let mut flops = 0.0;
    // Elements touched, by argument: several loads of one argument may overlap, but not exceed it.
    let mut touched = vec![0usize; region.args.len()];
    for (instr, ty) in region.body.iter().zip(&types) {
        // Operations for each element of a row of columns, or for the one that a row has.
        let (operations, is_wide) = match instr {
            Instr::Load { arg, map: IndexMap { at, .. } } | Instr::Store { arg, at, .. } => {
                touched[*arg as usize] += elements(at, &sizes);
                (0.0, false)
            }
            Instr::Gather { arg, .. } => {
                touched[*arg as usize] += sizes.iter().product::<usize>();
                (0.0, false)
            }
            Instr::Accumulate { arg, value, at, .. } => {
                touched[*arg as usize] += elements(at, &sizes);
                (1.0, wide(value))
            }
            Instr::Binary(Binary::Rem | Binary::Xor | Binary::Gt | Binary::Eq, ..)
            | Instr::Const(_)
            | Instr::ConstInt(_)
            | Instr::Index(_)
            | Instr::Select(..)
            | Instr::Cast(..)
            | Instr::Permute(..) => (0.0, false),
            Instr::Unary(..) | Instr::Binary(..) => (1.0, ty.wide),
            Instr::RowReduce(_, x) => (1.0, wide(x)),
            Instr::FakeQuant(..) => (4.0, ty.wide),
        };
        flops += operations * rows * if is_wide { columns } else { 1.0 };
    }
    let bytes = region.args.iter().zip(&touched).zip(lens);
    let bytes = bytes.map(|((dtype, &n), &len)| (n.min(len) * dtype.size()) as f64).sum();
    LaunchCost { flops, bytes }
}

/// Elements that an index map reaches, if no two indices meet.
fn elements(at: &Affine, sizes: &[usize]) -> usize {
    at.strides.iter().zip(sizes).filter(|(s, _)| **s != 0).map(|(_, n)| n).product()
}
