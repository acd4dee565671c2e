//! Products: what a contraction, one with a region on its result, and several side by side promise to executors, which
//! keep results in registers, mirror triangles and load shared operands once on the strength of it.
//!
//! The promises are those of `plan`'s documentation. Whether the right matrices are multiplied is another file's
//! business.

use super::access::products;
use super::{Check, Finding, Subject};
use crate::plan::{Contraction, Kernel, Launch, Matmul, Member, Side};
use crate::region::{Affine, Instr, Region};

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    let mut seen = vec![false; s.plan.kernels.len()];
    for (i, launch, roles) in s.launches() {
        let kernel = s.kernel(launch);
        let fault = |message: String| Finding::at(Check::Kernels, i, message);
        let want = match kernel {
            Kernel::Region(_) | Kernel::Copy { .. } => 0,
            Kernel::Contraction(contraction) => contraction.members.len(),
            Kernel::Attention(_) | Kernel::AttentionGrad(_) | Kernel::ScatterAdd { .. } => 1,
        };
        if roles.library.len() != want {
            return Err(fault(format!(
                "{want} nodes with a kernel of their own, said {}",
                roles.library.len()
            )));
        }
        check_launch(s, kernel, launch).map_err(fault)?;
        if !std::mem::replace(&mut seen[launch.kernel.0 as usize], true) {
            check_kernel(kernel).map_err(fault)?;
        }
    }
    Ok(())
}

/// What does not depend on the buffers.
fn check_kernel(kernel: &Kernel) -> Result<(), String> {
    for product in products(kernel) {
        let m = product.matmul;
        for m in &product.segments {
            let sizes = [m.batch, m.m, m.n, m.k];
            let work = sizes.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
            if work.is_none_or(|work| work == 0) {
                return Err(format!("a product of {} × {} × {} × {}", m.batch, m.m, m.n, m.k));
            }
        }
        if let Some(region) = product.region {
            if m.accumulate || m.symmetric && m.m != m.n {
                return Err("a product with a region on its result adds to nothing".into());
            }
            check_tile(m, region)?;
        }
    }
    if let Kernel::Contraction(contraction) = kernel { check_shared(contraction) } else { Ok(()) }
}

/// A region on a product's result: its rows are the result's or equal parts of them, in order, and it loads the
/// result only at its own place.
fn check_tile(m: &Matmul, region: &Region) -> Result<(), String> {
    if region.reduced > 0 {
        return Err("the rows of a region on a product's result meet".into());
    }
    let elements = region.rows.iter().product::<usize>() * region.columns;
    if elements != m.batch * m.m * m.n || !m.n.is_multiple_of(region.columns) {
        let (rows, columns) = (&region.rows, region.columns);
        return Err(format!(
            "a region over {rows:?} × {columns} on a result of {} × {} × {}",
            m.batch, m.m, m.n
        ));
    }
    for instr in &region.body {
        match instr {
            Instr::Load { arg: 0, map } if !map.guards.is_empty() || !is_own_place(&map.at, region) => {
                return Err(format!(
                    "a region loads the product's result at {}, not at its own place",
                    map.at
                ));
            }
            Instr::Gather { arg: 0, .. } => {
                return Err("a region gathers rows of the product's result".into());
            }
            Instr::Store { arg: 0, .. } | Instr::Accumulate { arg: 0, .. } => {
                return Err("a region writes the product's result where it is in no buffer".into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether an index map walks the domain in row-major order from 0, axes of size 1 aside.
fn is_own_place(at: &Affine, region: &Region) -> bool {
    let mut step = 1;
    let sizes = region.sizes();
    let follows = at.strides.iter().zip(&sizes).rev().all(|(&stride, &size)| {
        let follows = size == 1 || stride == step;
        step *= size as i64;
        follows
    });
    follows && at.offset == 0
}

/// Members have batch, k, and the shared operand's view and free axis in common.
fn check_shared(contraction: &Contraction) -> Result<(), String> {
    let Some(side) = contraction.shared else { return Ok(()) };
    let shared = |member: &Member| match (side, &member.matmul) {
        (Side::Left, m) => (m.batch, m.k, m.a, m.m),
        (Side::Right, m) => (m.batch, m.k, m.b, m.n),
    };
    let mut each = contraction.members.iter().map(shared);
    let first = each.next();
    if each.any(|other| Some(other) != first) {
        return Err("products side by side do not read the operand that they share alike".into());
    }
    Ok(())
}

/// What depends on the buffers: nothing that is written is anything else of the launch, and a symmetric product is
/// of one buffer.
fn check_launch(s: Subject<'_>, kernel: &Kernel, launch: &Launch) -> Result<(), String> {
    for product in products(kernel) {
        let m = product.matmul;
        let [a, b] = [0, 1].map(|i| launch.args[product.args[i]]);
        let mirrored = a == b
            && m.m == m.n
            && (m.a.offset, m.a.batch, m.a.row, m.a.col) == (m.b.offset, m.b.batch, m.b.col, m.b.row);
        if m.symmetric && (!mirrored || m.accumulate || product.segments.len() > 1) {
            return Err("it is said to equal its transpose, but is not of a matrix with itself".into());
        }
        if m.symmetric && product.region.is_none() && m.n > 1 && m.c.col != 1 {
            return Err("it is said to equal its transpose, but its rows have gaps".into());
        }
    }
    for (w, _) in kernel.params().iter().enumerate().filter(|(_, param)| param.is_written) {
        if let Some(other) = (0..launch.args.len()).find(|&o| o != w && launch.args[o] == launch.args[w]) {
            let label = &s.buffer(launch, w).label;
            return Err(format!("arguments {w}, which it writes, and {other} are one buffer ({label})"));
        }
    }
    Ok(())
}
