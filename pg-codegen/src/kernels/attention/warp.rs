//! Where a thread is among the accumulators of its warp.

use cubecl::prelude::*;

/// A warp's rows of its thread block's tile, and a thread's lane. The lane holds parts of rows lane / 4 and 8 below
/// of each fragment of 16 rows.
#[derive(CubeType, Clone)]
pub(crate) struct WarpRows {
    pub(crate) first: u32,
    pub(crate) lane: u32,
}

/// Warps have `rows` rows each, one warp after another.
#[cube]
pub(crate) fn warp_rows(#[comptime] rows: u32) -> WarpRows {
    let lane = UNIT_POS % 32;
    let first = UNIT_POS / 32 * rows;
    WarpRows { first, lane }
}
