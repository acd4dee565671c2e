//! The arena: temporaries that are alive together lie apart, inside the arena, and begin where rows may.
//!
//! A temporary is alive from the first launch that uses it to the last, both included: a launch's arguments never share
//! bytes. One sweep over the launches, with what is alive by offset.

use std::collections::BTreeMap;

use super::{Check, Finding, Subject};
use crate::plan::Place;

/// Offsets are multiples of this.
const ALIGN: usize = 64;

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    let fault = |message: String| Finding::new(Check::Arena, message);
    let mut uses: Vec<Option<(usize, usize)>> = vec![None; s.plan.buffers.len()];
    for (i, launch, _) in s.launches() {
        for arg in &launch.args {
            let known = &mut uses[arg.0 as usize];
            *known = Some((known.map_or(i, |k| k.0), i));
        }
    }
    let (mut begins, mut ends) =
        (vec![Vec::new(); s.plan.launches.len()], vec![Vec::new(); s.plan.launches.len()]);
    for (i, buffer) in s.plan.buffers.iter().enumerate() {
        let Place::Temp { offset } = buffer.place else { continue };
        let end = offset.checked_add(buffer.len * buffer.dtype.size());
        if !offset.is_multiple_of(ALIGN) {
            return Err(fault(format!("b{i} ({}) is at {offset}, no multiple of {ALIGN}", buffer.label)));
        }
        let arena = s.plan.arena_bytes;
        let Some(end) = end.filter(|end| *end <= arena) else {
            return Err(fault(format!("b{i} ({}) at {offset} ends beyond the {arena} bytes", buffer.label)));
        };
        if let Some((first, last)) = uses[i] {
            begins[first].push((offset, end, i));
            ends[last].push(offset);
        }
    }
    // By offset: the end, and the buffer.
    let mut alive: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for (launch, (begins, ends)) in begins.iter().zip(&ends).enumerate() {
        for &(offset, end, i) in begins {
            let before = alive.range(..=offset).next_back().filter(|(_, (e, _))| *e > offset);
            let after = alive.range(offset..end).next();
            if let Some((_, (_, other))) = before.or(after) {
                let [a, b] = [i, *other].map(|b| format!("b{b} ({})", s.plan.buffers[b].label));
                return Err(Finding::at(Check::Arena, launch, format!("{a} lies where {b} is alive")));
            }
            alive.insert(offset, (end, i));
        }
        ends.iter().for_each(|offset| _ = alive.remove(offset));
    }
    Ok(())
}
