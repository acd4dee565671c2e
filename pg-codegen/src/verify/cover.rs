//! Every element of what is written is written, and once.
//!
//! A launch writes the whole of each buffer that it writes: nothing in a plan writes a part of one. So the index map of
//! a store must be a bijection from its domain to the buffer's elements. Kernels of a family of their own write dense
//! results whose lengths [`super::launch`] compares.

use super::access::{products, regions};
use super::{Check, Finding, Subject};
use crate::plan::Launch;
use crate::region::Instr;

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    s.each(Check::Cover, check_launch)
}

fn check_launch(s: Subject<'_>, launch: &Launch) -> Result<(), String> {
    let kernel = s.kernel(launch);
    for product in products(kernel).into_iter().filter(|p| p.region.is_none()) {
        let m = product.matmul;
        let steps = [(m.c.batch, m.batch), (m.c.row, m.m), (m.c.col, m.n)];
        let steps = steps.map(|(stride, size)| (stride as i64, size));
        whole(m.c.offset as i64, &steps, s.buffer(launch, product.rest()[0]).len)
            .map_err(|e| format!("matrix c {e}"))?;
    }
    for part in regions(kernel) {
        let sizes = part.region.sizes();
        let rank = part.region.rows.len();
        let kept = rank - part.region.reduced;
        let mut written = vec![false; part.region.args.len()];
        for (i, instr) in part.region.body.iter().enumerate() {
            let (arg, at, reduces) = match instr {
                Instr::Store { arg, at, .. } => (*arg as usize, at, false),
                Instr::Accumulate { arg, at, .. } => (*arg as usize, at, true),
                _ => continue,
            };
            let Some(place) = part.args[arg] else { continue };
            if std::mem::replace(&mut written[arg], true) {
                return Err(format!("instruction {i}, {instr}, writes a{arg} a second time"));
            }
            let steps: Vec<(i64, usize)> = at.strides.iter().copied().zip(sizes.iter().copied()).collect();
            // Reduced axes are combined before; a column stride of 0 writes one element a row.
            let stays = |axis: usize| match axis == rank {
                true => steps[axis].0 == 0,
                false => reduces && axis >= kept,
            };
            let steps: Vec<(i64, usize)> =
                (0..steps.len()).filter(|&a| !stays(a)).map(|a| steps[a]).collect();
            whole(at.offset, &steps, s.buffer(launch, place).len)
                .map_err(|e| format!("instruction {i}, {instr}, {e}"))?;
        }
    }
    Ok(())
}

/// Whether offset + Σ stride · x takes each value below `len` once, for x below the sizes. Each stride, from the
/// smallest, then steps over exactly what the smaller ones reach; as each value is taken once, the last is the
/// product of the sizes less one.
fn whole(offset: i64, steps: &[(i64, usize)], len: usize) -> Result<(), String> {
    let mut sorted: Vec<(i64, usize)> = steps.iter().copied().filter(|(_, size)| *size > 1).collect();
    sorted.sort_unstable();
    let mut next: i64 = 1;
    for (stride, size) in sorted {
        if stride != next {
            let how = if stride < next { "more than once" } else { "not at all" };
            return Err(format!("writes some elements {how}"));
        }
        next = next.saturating_mul(size as i64);
    }
    if offset != 0 || next != len as i64 {
        return Err(format!("writes elements {offset} to {} of {len}", offset.saturating_add(next - 1)));
    }
    Ok(())
}
