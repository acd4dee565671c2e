//! Where plants go: regions, products and instructions of a plan by position.

use pg_codegen::plan::witness::Lowered;
use pg_codegen::plan::{Kernel, Matmul, Member, Place};
use pg_codegen::region::{Affine, Guard, IndexMap, Instr, Region};

use crate::Edit;

/// A region of a plan: its kernel, and its product among several.
pub(crate) type At = (usize, usize);

/// The region of a kernel, by the position of its product if it is an epilogue.
fn region_of(kernel: &Kernel, member: usize) -> Option<&Region> {
    match kernel {
        Kernel::Region(region) if member == 0 => Some(region),
        Kernel::Contraction(contraction) => contraction.members.get(member)?.epilogue.as_ref(),
        _ => None,
    }
}

/// All regions of a plan.
pub(crate) fn regions(good: &Lowered) -> Vec<(At, &Region)> {
    let of = |(k, kernel): (usize, &'_ Kernel)| (k, kernel.products().count().max(1));
    let places = good.plan.kernels.iter().enumerate().map(of);
    let places = places.flat_map(|(k, members)| (0..members).map(move |m| (k, m)));
    places.filter_map(|at| Some((at, region_of(&good.plan.kernels[at.0], at.1)?))).collect()
}

pub(crate) fn region_mut(bad: &mut Lowered, (kernel, member): At) -> &mut Region {
    let found = match &mut bad.plan.kernels[kernel] {
        Kernel::Region(region) => Some(region),
        Kernel::Contraction(contraction) => contraction.members[member].epilogue.as_mut(),
        _ => None,
    };
    found.expect("it has a region")
}

/// All products of a plan, and whether each has an epilogue.
pub(crate) fn products(good: &Lowered) -> Vec<(At, &Matmul, bool)> {
    let mut found = Vec::new();
    for (k, kernel) in good.plan.kernels.iter().enumerate() {
        let Kernel::Contraction(contraction) = kernel else { continue };
        for (i, Member { matmul, epilogue, .. }) in contraction.members.iter().enumerate() {
            found.push(((k, i), matmul, epilogue.is_some()));
        }
    }
    found
}

pub(crate) fn product_mut(bad: &mut Lowered, (kernel, member): At) -> &mut Matmul {
    match &mut bad.plan.kernels[kernel] {
        Kernel::Contraction(contraction) => &mut contraction.members[member].matmul,
        other => panic!("{other:?} is no contraction"),
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
