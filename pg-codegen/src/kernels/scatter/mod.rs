//! Sums of rows by id without atomics, in time linear in the positions: positions are sorted by id, stably, by counting
//! ([`sort`]), then stretches of equal ids are summed in order ([`sum`]).
//!
//! Nothing depends on which thread comes first, so that two runs give the same bits: within a piece of the sorted
//! positions rows are added in order of position, then the pieces of an id are.

mod sort;
mod sum;

use pg_ir::ty::DType;

use super::error::CubeError;
use super::stage::{ArgInfo, Launches, StageArg};
use crate::machine::Machine;

const THREADS: usize = 256;

/// What is summed: as many rows as there are ids, each of `width`, into `rows` of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sizes {
    rows: usize,
    width: usize,
    count: usize,
}

/// Positions in order of their ids, as workspaces.
#[derive(Clone, Copy)]
struct Sorted {
    /// The ids, in order.
    ids: StageArg,
    /// The position of each.
    order: StageArg,
    /// Where each row's ids begin; one more says where the last one's end.
    starts: StageArg,
}

/// Adds the launches of a sum by id.
pub(crate) fn lower(
    (rows, width, count): (usize, usize, usize),
    infos: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let malformed = |what: &str| CubeError::Malformed { kernel: "scatter_add".into(), what: what.into() };
    let [ids, values, result] = infos else { return Err(malformed("it takes three arguments")) };
    let fits = matches!(values.dtype, DType::F32 | DType::BF16);
    if (ids.dtype, result.dtype) != (DType::I32, DType::F32) || !fits {
        return Err(malformed("it takes int32 ids and floats, and sums in float32"));
    }
    if (rows.max(count) + 1) * width > i32::MAX as usize || rows * sort::segments(count) > i32::MAX as usize {
        return Err(malformed("an index is beyond 2^31"));
    }
    let sizes = Sizes { rows, width, count };
    let sorted = sort::lower(sizes, ids, machine, out)?;
    sum::lower(sizes, sorted, (values, result), machine, out)
}
