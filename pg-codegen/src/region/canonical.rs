//! An equal region over a simpler domain: no axes of size 1, neighbouring axes merged wherever every
//! index map walks them as one, and a useful column axis where the lowering gave one column.
//!
//! Merging is what turns most element-wise regions into one long contiguous row, and most loads into a
//! single copy per block.

use super::{Instr, Reg, Region};

/// The canonical form of a [verified](super::verify) region.
pub fn canonical(region: &Region) -> Region {
    let mut region = region.clone();
    drop_unit_axes(&mut region);
    merge_rows(&mut region);
    if region.columns == 1 {
        give_columns(&mut region);
    }
    merge_rows(&mut region);
    if region.reduced == 0 && !region.columns_meet() {
        while let Some(&n) = region.rows.last() {
            let inner = region.rows.len();
            if !mergeable(&region, inner - 1, region.columns) {
                break;
            }
            region.rows.pop();
            region.columns *= n;
            remove_axis(&mut region, inner - 1);
        }
    }
    region
}

fn remove_axis(region: &mut Region, axis: usize) {
    for affine in region.body.iter_mut().flat_map(Instr::affines_mut) {
        affine.strides.remove(axis);
    }
}

fn drop_unit_axes(region: &mut Region) {
    for axis in (0..region.rows.len()).rev() {
        if region.rows[axis] == 1 {
            if axis >= region.rows.len() - region.reduced {
                region.reduced -= 1;
            }
            region.rows.remove(axis);
            remove_axis(region, axis);
        }
    }
}

/// Whether axes `outer` and `outer + 1` (of size `inner_size`) are one axis to every index map.
fn mergeable(region: &Region, outer: usize, inner_size: usize) -> bool {
    (region.body.iter().flat_map(Instr::affines))
        .all(|a| a.strides[outer] == a.strides[outer + 1] * inner_size as i64)
}

fn merge_rows(region: &mut Region) {
    for outer in (0..region.rows.len().saturating_sub(1)).rev() {
        // Kept axes and reduced axes stay apart.
        let boundary = region.rows.len() - region.reduced;
        if outer + 1 != boundary && mergeable(region, outer, region.rows[outer + 1]) {
            if outer >= boundary {
                region.reduced -= 1;
            }
            let inner = region.rows.remove(outer + 1);
            region.rows[outer] *= inner;
            remove_axis(region, outer);
        }
    }
}

/// Rows of one column would run one element at a time: their innermost axis becomes the columns. If that is
/// the only reduced axis, accumulating over it becomes reducing the row.
fn give_columns(region: &mut Region) {
    let has_quant = region.body.iter().any(|i| matches!(i, Instr::FakeQuant(..)));
    if region.rows.is_empty() || region.reduced > 1 || has_quant {
        return;
    }
    let mut body: Vec<Instr> = Vec::with_capacity(region.body.len() + 1);
    let mut renamed: Vec<Reg> = Vec::with_capacity(region.body.len());
    for mut instr in std::mem::take(&mut region.body) {
        instr.for_each_operand(|r| *r = renamed[*r as usize]);
        match instr {
            // Of one column, these are the identity.
            Instr::RowReduce(_, x) | Instr::Permute(_, x) => renamed.push(x),
            Instr::Accumulate { arg, value, kind, at } => {
                renamed.push(body.len() as Reg);
                body.push(Instr::RowReduce(kind, value));
                body.push(Instr::Store { arg, value: body.len() as Reg - 1, at });
            }
            other => {
                renamed.push(body.len() as Reg);
                body.push(other);
            }
        }
    }
    region.body = body;
    region.reduced = 0;
    region.columns = region.rows.pop().expect("checked above");
    // The column stride of a single column means nothing.
    let last = region.rows.len() + 1;
    remove_axis(region, last);
}
