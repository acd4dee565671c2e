//! Fragments of results in a warp's registers: 16 rows and 8 columns each, of which a lane holds two
//! neighbouring columns of row `lane / 4` and of the row eight below. They are summed into, read, and passed
//! on as the left operand of the next product without leaving registers.

use cubecl::cmma::MmaDefinition;
use cubecl::prelude::*;
use half::bf16;

use crate::kernels::tensor_core::tile::{Operand, fragments_b};

/// Zeros for fragments of 16 rows and `count` times 8 columns.
#[cube]
pub(crate) fn zeros<C: Size>(#[comptime] count: usize) -> Sequence<Array<Vector<f32, C>>> {
    let mut all = Sequence::<Array<Vector<f32, C>>>::new();
    #[unroll]
    for _i in 0..count {
        let mut sum = Array::<Vector<f32, C>>::new(2usize);
        sum[0] = Vector::new(0.0f32);
        sum[1] = Vector::new(0.0f32);
        all.push(sum);
    }
    all
}

/// Adds left · right: `left` holds the `rows` fragments of 16 rows of this step, the tile has `columns` columns.
#[cube]
#[allow(clippy::too_many_arguments, reason = "a product's parts")]
pub(crate) fn multiply<N: Size, R: Size, C: Size>(
    def: &MmaDefinition<bf16, bf16, f32>,
    left: &Sequence<Array<Vector<bf16, R>>>,
    right: &SharedMemory<Vector<bf16, N>>,
    tile: u32,
    sums: &mut Sequence<Array<Vector<f32, C>>>,
    #[comptime] step: usize,
    #[comptime] rows: usize,
    #[comptime] columns: usize,
    #[comptime] x: Operand,
) {
    #[unroll]
    for pair in 0..comptime!(columns / 16) {
        let both = fragments_b::<N, R>(def, right, comptime!((pair * 16) as u32), tile, step, x);
        #[unroll]
        for j in 0..2usize {
            let mut one = Array::<Vector<bf16, R>>::new(2usize);
            one[0] = both[comptime!(2 * j)];
            one[1] = both[comptime!(2 * j + 1)];
            #[unroll]
            for i in 0..rows {
                let at = comptime!(i * columns / 8 + 2 * pair + j);
                def.execute_inplace(left.index(i), &one, sums.index_mut(at));
            }
        }
    }
}

/// The sums of a fragment in its upper or lower eight rows.
#[cube]
pub(crate) fn sums_of<C: Size>(
    of: &Sequence<Array<Vector<f32, C>>>,
    #[comptime] at: usize,
    #[comptime] half: usize,
) -> Vector<f32, C> {
    of.index(at)[half]
}

/// Replaces them.
#[cube]
pub(crate) fn set<C: Size>(
    of: &mut Sequence<Array<Vector<f32, C>>>,
    #[comptime] at: usize,
    #[comptime] half: usize,
    value: Vector<f32, C>,
) {
    let one = of.index_mut(at);
    one[half] = value;
}

/// Two neighbouring fragments, from number `at` on, as a fragment of a left operand, rounded to bfloat16: what a
/// lane holds of the ones is what it holds of the other.
#[cube]
pub(crate) fn left_of<R: Size, C: Size>(
    of: &Sequence<Array<Vector<f32, C>>>,
    #[comptime] at: usize,
) -> Array<Vector<bf16, R>> {
    let mut left = Array::<Vector<bf16, R>>::new(4usize);
    #[unroll]
    for part in 0..4usize {
        let x = sums_of::<C>(of, comptime!(at + part / 2), comptime!(part % 2));
        let mut pair = Vector::<bf16, R>::from_int(0);
        pair[0] = bf16::cast_from(x[0]);
        pair[1] = bf16::cast_from(x[1]);
        left[part] = pair;
    }
    left
}

/// Four neighbouring columns of a row, from two fragments side by side: a lane keeps its columns of one and
/// trades those of the other with its neighbour. They begin at column `lane % 2 · 8 + lane % 4 / 2 · 4`.
#[cube]
pub(crate) fn four<V: Size, C: Size>(left: Vector<f32, C>, right: Vector<f32, C>) -> Vector<f32, V> {
    let is_odd = UNIT_POS % 2 == 1;
    let give = select(is_odd, left, right);
    let keep = select(is_odd, right, left);
    let got_0 = plane_shuffle_xor(give[0], 1u32);
    let got_1 = plane_shuffle_xor(give[1], 1u32);
    let mut value = Vector::<f32, V>::empty();
    value[0] = select(is_odd, got_0, keep[0]);
    value[1] = select(is_odd, got_1, keep[1]);
    value[2] = select(is_odd, keep[0], got_0);
    value[3] = select(is_odd, keep[1], got_1);
    value
}
