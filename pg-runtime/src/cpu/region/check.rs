//! What must hold of a region before it may run without further checks: that it is well formed, that its index maps
//! stay inside its arguments, and that no element is written while another task reads or writes it.

use pg_codegen::region::verify::{Malformed, verify};
use pg_codegen::region::{Affine, Instr, Region};
use pg_ir::ty::DType;

use super::super::error::Problem;
use super::super::raw::Arg;

/// Checks everything about a region that does not need its arguments: that it is well formed, and that no two elements
/// of its domain are written to one place.
pub(super) fn check(region: &Region) -> Result<(), Problem> {
    verify(region)?;
    let rank = region.rows.len() + 1;
    for (at, instr) in region.body.iter().enumerate() {
        let mut domain = region.sizes();
        let to = match instr {
            Instr::Store { at: to, .. } => to,
            Instr::Accumulate { at: to, .. } => {
                domain[rank - 1 - region.reduced..rank - 1].fill(1);
                to
            }
            _ => continue,
        };
        // A column stride of 0 writes one element a row.
        let axes = if to.varies_along_columns() { &domain[..] } else { &domain[..rank - 1] };
        if !injective(to, axes) {
            let message = "two elements of the domain are written to one place".into();
            return Err(Malformed { instr: Some(at), message }.into());
        }
    }
    Ok(())
}

/// Whether distinct indices give distinct values: sorted by size, each stride steps over everything that
/// the smaller ones reach. True of every layout without overlap.
pub(crate) fn injective(at: &Affine, axes: &[usize]) -> bool {
    let mut steps: Vec<(i64, i64)> =
        (at.strides.iter().zip(axes)).filter(|&(_, &n)| n > 1).map(|(s, &n)| (s.abs(), n as i64)).collect();
    steps.sort_unstable();
    let mut reach = 0;
    steps.iter().all(|&(stride, n)| {
        let clear = stride > reach;
        reach += stride * (n - 1);
        clear
    })
}

/// One access of a region to an argument.
#[derive(Clone, Debug)]
pub(crate) struct Touch {
    pub(crate) arg: usize,
    pub(crate) write: bool,
    pub(crate) at: Affine,
    /// Gathers may touch anything.
    pub(crate) anywhere: bool,
    /// Guarded and gathered accesses are checked as they happen.
    pub(crate) dynamic: bool,
    /// The piece of a row that a task writes is not the piece that it reads: several tasks share a row,
    /// and this access is the same for all of them.
    pub(crate) shared: bool,
}

/// Checks the accesses of a region against its arguments.
pub(crate) fn check_touches(touches: &[Touch], domain: &[usize], args: &[Arg]) -> Result<(), Problem> {
    for t in touches.iter().filter(|t| !t.dynamic) {
        let (first, last) = t.at.interval(domain);
        let len = args[t.arg].len();
        if first < 0 || last >= len as i64 {
            return Err(Problem::ArgRange { arg: t.arg, len, first, last });
        }
    }
    for (i, w) in touches.iter().enumerate().filter(|(_, t)| t.write) {
        for (j, r) in touches.iter().enumerate() {
            // Each pair of writes once; a write does not conflict with itself.
            if !(r.write && j <= i) && conflict(w, r, domain, args) {
                return Err(Problem::Hazard { written: w.arg, read: r.arg });
            }
        }
    }
    Ok(())
}

fn conflict(w: &Touch, r: &Touch, domain: &[usize], args: &[Arg]) -> bool {
    let (wa, ra) = (&args[w.arg], &args[r.arg]);
    let (wm, rm) = (wa.addresses(), ra.addresses());
    if wm.end <= rm.start || rm.end <= wm.start {
        return false;
    }
    let sizes_differ = wa.dtype().size() != ra.dtype().size();
    let apart = rm.start as i64 - wm.start as i64;
    let size = wa.dtype().size() as i64;
    if r.anywhere || sizes_differ || apart % size != 0 {
        return true;
    }
    // Both in elements from the start of the written argument.
    let mut read = r.at.clone();
    read.offset += apart / size;
    if read == w.at {
        // In place is through one argument: of two, a kernel does not know that they are one memory (`find_direct`).
        return r.write || r.shared || r.arg != w.arg;
    }
    may_meet(&w.at, &read, domain)
}

/// Whether two index maps can have a value in common, each over the whole domain. May say yes wrongly.
fn may_meet(a: &Affine, b: &Affine, domain: &[usize]) -> bool {
    let gap = b.offset - a.offset;
    let mut terms: Vec<(i64, i64)> = Vec::new(); // (stride, largest multiple), multiples from 0
    let mut gap = gap;
    for (sign, affine) in [(1, a), (-1, b)] {
        for (&s, &n) in affine.strides.iter().zip(domain) {
            let (s, n) = (sign * s, n as i64 - 1);
            if s != 0 && n > 0 {
                // Walked backwards, a negative stride is a positive one from another start.
                if s < 0 {
                    gap -= s * n;
                }
                terms.push((s.abs(), n));
            }
        }
    }
    terms.sort_unstable_by(|x, y| y.cmp(x));
    let mut budget = 10_000;
    reachable(gap, &terms, &mut budget)
}

/// Whether Σ stride · k = target for some 0 ≤ k ≤ most. Terms are sorted, widest stride first.
fn reachable(target: i64, terms: &[(i64, i64)], budget: &mut u32) -> bool {
    let Some((&(stride, most), rest)) = terms.split_first() else { return target == 0 };
    if *budget == 0 {
        return true;
    }
    *budget -= 1;
    let reach: i64 = rest.iter().map(|(s, n)| s * n).sum();
    let common = rest.iter().fold(stride, |g, (s, _)| gcd(g, *s));
    if target % common != 0 {
        return false;
    }
    let from = (target - reach).max(0).div_euclid(stride) + i64::from((target - reach).max(0) % stride != 0);
    let to = target.div_euclid(stride).min(most);
    (from..=to).any(|k| reachable(target - k * stride, rest, budget))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Checks the number and element types of a launch's arguments.
pub(crate) fn check_types(want: &[DType], args: &[Arg]) -> Result<(), Problem> {
    check_each_type(want, args, |want, have| want == have)
}

/// [`check_types`] for kernels whose float32 arguments may be stored as bfloat16.
pub(crate) fn check_computed_types(want: &[DType], args: &[Arg]) -> Result<(), Problem> {
    check_each_type(want, args, |want, have| want == have || (want, have) == (DType::F32, DType::BF16))
}

fn check_each_type(want: &[DType], args: &[Arg], fits: fn(DType, DType) -> bool) -> Result<(), Problem> {
    if want.len() != args.len() {
        return Err(Problem::ArgCount { want: want.len(), have: args.len() });
    }
    let wrong = want.iter().zip(args).enumerate().find(|(_, (want, arg))| !fits(**want, arg.dtype()));
    match wrong {
        Some((arg, (&want, have))) => Err(Problem::ArgType { arg, want, have: have.dtype() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn affine(offset: i64, strides: &[i64]) -> Affine {
        Affine { offset, strides: strides.into() }
    }

    #[test]
    fn layouts_without_overlap_are_injective() {
        assert!(injective(&affine(3, &[12, 1, 4]), &[2, 4, 3]));
        assert!(injective(&affine(9, &[-1]), &[10]));
        assert!(!injective(&affine(0, &[2, 1]), &[4, 3]));
        assert!(!injective(&affine(0, &[0, 1]), &[4, 3]));
    }

    #[test]
    fn interleaved_halves_do_not_meet() {
        let domain = [5, 4];
        assert!(!may_meet(&affine(0, &[8, 1]), &affine(4, &[8, 1]), &domain));
        assert!(may_meet(&affine(0, &[8, 1]), &affine(3, &[8, 1]), &domain));
        assert!(!may_meet(&affine(0, &[2, 8]), &affine(1, &[2, 8]), &[4, 3]));
        assert!(may_meet(&affine(19, &[-4, -1]), &affine(0, &[4, 1]), &domain));
        assert!(!may_meet(&affine(0, &[4, 1]), &affine(20, &[4, 1]), &domain));
    }
}
