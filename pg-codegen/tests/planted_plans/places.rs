//! Where plants go: regions, products and instructions of a plan by position.

use pg_codegen::plan::witness::Lowered;
use pg_codegen::plan::{Kernel, Matmul, Place};
use pg_codegen::region::{Affine, Guard, IndexMap, Instr, Region};

use crate::Edit;

/// A region of a plan: its kernel, and its product among several.
pub(crate) type At = (usize, usize);

fn members(kernel: &Kernel) -> &[Kernel] {
    match kernel {
        Kernel::Matmuls(all) => &all.members,
        one => std::slice::from_ref(one),
    }
}

fn member_mut(bad: &mut Lowered, (kernel, member): At) -> &mut Kernel {
    match &mut bad.plan.kernels[kernel] {
        Kernel::Matmuls(all) => &mut all.members[member],
        one => one,
    }
}

/// All regions of a plan.
pub(crate) fn regions(good: &Lowered) -> Vec<(At, &Region)> {
    let of = |(k, kernel)| {
        members(kernel).iter().enumerate().filter_map(move |(m, member)| match member {
            Kernel::Region(region) | Kernel::MatmulRegion(_, region) => Some(((k, m), region)),
            _ => None,
        })
    };
    good.plan.kernels.iter().enumerate().flat_map(of).collect()
}

pub(crate) fn region_mut(bad: &mut Lowered, at: At) -> &mut Region {
    match member_mut(bad, at) {
        Kernel::Region(region) | Kernel::MatmulRegion(_, region) => region,
        other => panic!("{other:?} has no region"),
    }
}

/// All products of a plan, and whether each has a region on its result.
pub(crate) fn products(good: &Lowered) -> Vec<(At, &Matmul, bool)> {
    let of = |(k, kernel)| {
        members(kernel).iter().enumerate().filter_map(move |(m, member)| match member {
            Kernel::Matmul(product) => Some(((k, m), product, false)),
            Kernel::MatmulRegion(product, _) => Some(((k, m), product, true)),
            _ => None,
        })
    };
    good.plan.kernels.iter().enumerate().flat_map(of).collect()
}

pub(crate) fn product_mut(bad: &mut Lowered, at: At) -> &mut Matmul {
    match member_mut(bad, at) {
        Kernel::Matmul(product) | Kernel::MatmulRegion(product, _) => product,
        other => panic!("{other:?} is no product"),
    }
}

/// An edit.
pub(crate) fn edit(what: impl Into<String>, edit: impl Fn(&mut Lowered) + 'static) -> Edit {
    (what.into(), Box::new(edit))
}

/// Edits of single instructions, with the region for those that need it: where `wanted` says so.
pub(crate) fn instrs(
    good: &Lowered,
    wanted: fn(&Region, &Instr) -> bool,
    change: fn(&mut Instr, &Region),
) -> Vec<Edit> {
    let mut edits = Vec::new();
    for (at, region) in regions(good) {
        for (i, instr) in region.body.iter().enumerate().filter(|(_, instr)| wanted(region, instr)) {
            edits.push(edit(format!("k{} instruction {i}, {instr}", at.0), move |bad| {
                let region = region_mut(bad, at);
                let before = region.clone();
                change(&mut region.body[i], &before);
            }));
        }
    }
    edits
}

/// Edits of whole regions.
pub(crate) fn whole(good: &Lowered, wanted: fn(&Region) -> bool, change: fn(&mut Region)) -> Vec<Edit> {
    let all = regions(good).into_iter().filter(|(_, region)| wanted(region));
    all.map(|(at, _)| edit(format!("k{}", at.0), move |bad| change(region_mut(bad, at)))).collect()
}

/// The index map of what an instruction touches.
pub(crate) fn touched(instr: &mut Instr) -> Option<&mut Affine> {
    match instr {
        Instr::Load { map, .. } | Instr::Gather { map, .. } => Some(&mut map.at),
        Instr::Store { at, .. } | Instr::Accumulate { at, .. } => Some(at),
        _ => None,
    }
}

/// The guards of an instruction.
pub(crate) fn guards(instr: &mut Instr) -> Option<&mut Vec<Guard>> {
    match instr {
        Instr::Load { map: IndexMap { guards, .. }, .. }
        | Instr::Gather { map: IndexMap { guards, .. }, .. }
            if !guards.is_empty() =>
        {
            Some(guards)
        }
        _ => None,
    }
}

/// Whether a buffer is a temporary.
pub(crate) fn is_temp(good: &Lowered, buffer: usize) -> bool {
    matches!(good.plan.buffers[buffer].place, Place::Temp { .. })
}

/// First and last launch that use each buffer.
pub(crate) fn uses(good: &Lowered) -> Vec<Option<(usize, usize)>> {
    good.plan.uses()
}
