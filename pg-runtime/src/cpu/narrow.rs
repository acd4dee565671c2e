//! Kernels of their own family on bfloat16 arguments: widened to float32, run, and rounded back.
//!
//! bfloat16 is a storage type here; what a kernel computes it computes in float32. A kernel that reads
//! bfloat16 by itself does not come by.

use pg_ir::ty::DType;

use super::aligned::Aligned;
use super::math;
use super::parallel::parallel;
use super::raw::Arg;

/// Elements of a task.
const PIECE: usize = 1 << 14;

/// Elements of float32 memory that arguments of these types and lengths need.
pub(crate) fn elements(args: impl Iterator<Item = (DType, usize)>) -> usize {
    args.filter(|a| a.0 == DType::BF16).map(|a| padded(a.1)).sum()
}

/// Whole cache lines.
fn padded(len: usize) -> usize {
    len.next_multiple_of(16)
}

/// Runs a kernel on arguments of which the bfloat16 ones are float32 copies. `written` says which arguments it
/// writes; those it may read, too.
pub(crate) fn widened(args: &[Arg], written: &[usize], memory: &mut Aligned, run: impl FnOnce(&[Arg])) {
    // As many as any family has.
    const MOST: usize = 9;
    assert!(args.len() <= MOST, "internal error: a kernel of {} arguments", args.len());
    let needed = elements(args.iter().map(|a| (a.dtype(), a.len())));
    assert!(needed <= memory.len(), "internal error: memory for {} of {needed} elements", memory.len());
    let mut wide = [args[0]; MOST];
    wide[..args.len()].copy_from_slice(args);
    let mut at = memory.as_mut_ptr().cast::<f32>();
    for (&narrow, wide) in args.iter().zip(&mut wide).filter(|(a, _)| a.dtype() == DType::BF16) {
        *wide = Arg::new(at.cast(), narrow.len(), DType::F32);
        at = at.wrapping_add(padded(narrow.len()));
        pieces(narrow.len(), |from, len| {
            // SAFETY: inside both, by the assertion; the copy is this launch's own, and each task has its own piece of it.
            let (from, to) = unsafe { (narrow.read::<u16>(from, len), wide.write::<f32>(from, len)) };
            to.iter_mut().zip(from).for_each(|(t, f)| *t = math::from_bf16(*f));
        });
    }
    run(&wide[..args.len()]);
    for &i in written.iter().filter(|&&i| args[i].dtype() == DType::BF16) {
        let (narrow, wide) = (args[i], wide[i]);
        pieces(narrow.len(), |from, len| {
            // SAFETY: as above; the kernel has ended, and it writes this argument.
            let (from, to) = unsafe { (wide.read::<f32>(from, len), narrow.write::<u16>(from, len)) };
            to.iter_mut().zip(from).for_each(|(t, f)| *t = math::to_bf16(*f));
        });
    }
}

fn pieces(len: usize, f: impl Fn(usize, usize) + Sync) {
    parallel(len.div_ceil(PIECE), PIECE, |task| f(task * PIECE, PIECE.min(len - task * PIECE)));
}
