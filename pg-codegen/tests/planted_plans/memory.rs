//! Plants in buffers and their places: the arena, lengths, types, constants, copies.

use std::sync::Arc;

use pg_codegen::plan::witness::Lowered;
use pg_codegen::plan::{Kernel, Place};
use pg_codegen::verify::Check;
use pg_ir::ty::DType;

use crate::places::{edit, is_temp, uses};
use crate::{Edit, Plant};

pub(crate) const PLANTS: &[Plant] = &[
    Plant::new("temporary on another", &[Check::Arena], |good| aliased(good, 0)),
    Plant::new("temporary over another's end", &[Check::Arena], |good| aliased(good, 64)),
    Plant::new("temporary unaligned", &[Check::Arena], unaligned),
    Plant::new("temporary beyond the arena", &[Check::Arena], beyond),
    Plant::new("arena too small", &[Check::Arena], shrunk),
    Plant::new("buffer shorter", &[Check::Shapes], |good| resized(good, -1)),
    Plant::new("buffer longer", &[Check::Shapes], |good| resized(good, 1)),
    Plant::new("buffer of another type", &[Check::Shapes], retyped),
    Plant::new("slot with two buffers", &[Check::Shapes], two_buffers),
    Plant::new("constants cut", &[Check::Shapes], constants_cut),
    Plant::new("constant changed", &[Check::Meaning], constant_changed),
    Plant::new("constants one on", &[Check::Meaning], constants_moved),
    Plant::new("copy shorter", &[Check::Shapes], copy_shorter),
];

fn bytes(good: &Lowered, buffer: usize) -> usize {
    good.plan.buffers[buffer].len * good.plan.buffers[buffer].dtype.size()
}

fn offset(good: &Lowered, buffer: usize) -> Option<usize> {
    match good.plan.buffers[buffer].place {
        Place::Temp { offset } => Some(offset),
        _ => None,
    }
}

fn temporaries(good: &Lowered) -> Vec<usize> {
    (0..good.plan.buffers.len()).filter(|&b| is_temp(good, b)).collect()
}

fn moved(buffer: usize, to: usize) -> Edit {
    edit(format!("b{buffer} to {to}"), move |bad| bad.plan.buffers[buffer].place = Place::Temp { offset: to })
}

/// A temporary moved to where another that is alive with it lies, or `past` bytes on.
fn aliased(good: &Lowered, past: usize) -> Vec<Edit> {
    let uses = uses(good);
    let mut edits = Vec::new();
    for &a in &temporaries(good) {
        let together = |b: usize| match (uses[a], uses[b]) {
            (Some((first_a, last_a)), Some((first_b, last_b))) => first_a <= last_b && first_b <= last_a,
            _ => false,
        };
        let fits = |b: usize| {
            let to = offset(good, b).map_or(usize::MAX, |o| o + past);
            bytes(good, b) > past && to + bytes(good, a) <= good.plan.arena_bytes
        };
        let other = temporaries(good).into_iter().find(|&b| b != a && together(b) && fits(b));
        edits.extend(other.and_then(|b| Some(moved(a, offset(good, b)? + past))));
    }
    edits
}

fn unaligned(good: &Lowered) -> Vec<Edit> {
    temporaries(good).into_iter().filter_map(|b| Some(moved(b, offset(good, b)? + 4))).collect()
}

fn beyond(good: &Lowered) -> Vec<Edit> {
    let end = good.plan.arena_bytes;
    temporaries(good).into_iter().map(|b| moved(b, end)).collect()
}

fn shrunk(good: &Lowered) -> Vec<Edit> {
    let has_any = good.plan.arena_bytes > 0;
    has_any.then(|| edit("by 64 bytes", |bad| bad.plan.arena_bytes -= 64)).into_iter().collect()
}

fn resized(good: &Lowered, by: isize) -> Vec<Edit> {
    let resize = |b: usize| {
        edit(format!("b{b}"), move |bad| {
            let buffer = &mut bad.plan.buffers[b];
            buffer.len = buffer.len.saturating_add_signed(by);
        })
    };
    (0..good.plan.buffers.len()).map(resize).collect()
}

fn retyped(good: &Lowered) -> Vec<Edit> {
    let retype = |b: usize| {
        edit(format!("b{b}"), move |bad| {
            let dtype = &mut bad.plan.buffers[b].dtype;
            *dtype = if *dtype == DType::F32 { DType::BF16 } else { DType::F32 };
        })
    };
    (0..good.plan.buffers.len()).map(retype).collect()
}

fn two_buffers(good: &Lowered) -> Vec<Edit> {
    let slots = good.plan.buffers.iter().filter(|b| matches!(b.place, Place::External(_))).cloned();
    slots.map(|buffer| edit(buffer.label.clone(), move |bad| bad.plan.buffers.push(buffer.clone()))).collect()
}

fn tables(good: &Lowered) -> Vec<usize> {
    let is_table = |b: &usize| matches!(good.plan.buffers[*b].place, Place::Constant(_));
    (0..good.plan.buffers.len()).filter(is_table).collect()
}

fn on_table(good: &Lowered, change: fn(&mut Vec<u32>)) -> Vec<Edit> {
    let on = |b: usize| {
        edit(format!("b{b}"), move |bad| {
            if let Place::Constant(bits) = &mut bad.plan.buffers[b].place {
                let mut new = bits.to_vec();
                change(&mut new);
                *bits = Arc::from(new);
            }
        })
    };
    tables(good).into_iter().map(on).collect()
}

fn constants_cut(good: &Lowered) -> Vec<Edit> {
    on_table(good, |bits| _ = bits.pop())
}

fn constant_changed(good: &Lowered) -> Vec<Edit> {
    on_table(good, |bits| bits[0] ^= 1 << 20)
}

fn constants_moved(good: &Lowered) -> Vec<Edit> {
    on_table(good, |bits| bits.rotate_left(1))
}

fn copy_shorter(good: &Lowered) -> Vec<Edit> {
    let copies = good.plan.kernels.iter().enumerate().filter(|(_, k)| matches!(k, Kernel::Copy { .. }));
    let shorten = |(i, _): (usize, &Kernel)| {
        edit(format!("k{i}"), move |bad| {
            if let Kernel::Copy { len } = &mut bad.plan.kernels[i] {
                *len -= 1;
            }
        })
    };
    copies.map(shorten).collect()
}
