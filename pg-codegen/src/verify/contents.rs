//! Which value each buffer holds at each launch: what a launch reads is there, was written before, and has not been
//! overwritten; each value is computed once; each output is in its slot at the end, written once, and nothing else
//! that lives outside is written.
//!
//! A walk over the launches in order, so a launch that is missing shows where its result is read, and launches that
//! wait for each other cannot be in any order that passes. It takes the launches' word for what they compute.

use pg_ir::graph::ValueId;
use pg_ir::op::Op;
use pg_ir::slot::Slot;

use super::{Check, Finding, Subject};
use crate::plan::{Computed, Kernel, Place};

/// What a buffer holds.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Holds {
    /// Nothing that this run put there.
    Nothing,
    Value(ValueId),
    /// Constants, of a value that the first launch that reads them names.
    Constants,
}

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    let inputs: std::collections::HashMap<&Slot, ValueId> = s.graph.inputs().collect();
    let begin = |place: &Place| match place {
        Place::External(slot) => inputs.get(slot).map_or(Holds::Nothing, |v| Holds::Value(*v)),
        Place::Temp { .. } => Holds::Nothing,
        Place::Constant(_) => Holds::Constants,
    };
    let mut holds: Vec<Holds> = s.plan.buffers.iter().map(|b| begin(&b.place)).collect();
    let mut writer: Vec<Option<usize>> = vec![None; s.plan.buffers.len()];
    let mut computed: Vec<Option<usize>> = vec![None; s.graph.value_count()];
    for (i, launch, roles) in s.launches() {
        let fault = |message: String| Err(Finding::at(Check::Contents, i, message));
        let name = |arg: usize| format!("argument {arg} (b{})", launch.args[arg].0);
        let reads = roles.reads.iter().enumerate().filter_map(|(arg, v)| Some((arg, (*v)?)));
        for (arg, value) in reads {
            let at = launch.args[arg].0 as usize;
            match holds[at] {
                Holds::Value(found) if found == value => {}
                Holds::Constants => holds[at] = Holds::Value(value),
                Holds::Nothing => {
                    let (name, what) = (name(arg), s.describe(value));
                    return fault(format!("reads {what} in {name}, which nothing has written before"));
                }
                Holds::Value(found) => {
                    let (name, what, other) = (name(arg), s.describe(value), s.describe(found));
                    return fault(format!("reads {what} in {name}, which holds {other} by then"));
                }
            }
        }
        let is_copy = matches!(s.kernel(launch), Kernel::Copy { .. });
        if is_copy && roles.reads[0] != roles.writes[1] {
            return fault("a copy of one value is said to be another".into());
        }
        let writes = roles.writes.iter().enumerate().filter_map(|(arg, v)| Some((arg, (*v)?)));
        for (arg, value) in writes {
            let at = launch.args[arg].0 as usize;
            if let Some(before) = writer[at].replace(i) {
                return fault(format!("writes {}, which launch #{before} has written", name(arg)));
            }
            if let Some(before) = computed[value.index()].filter(|_| !is_copy) {
                return fault(format!("computes {}, as launch #{before} does", s.describe(value)));
            }
            if !is_copy {
                computed[value.index()] = Some(i);
            }
            if let Place::External(slot) = &s.plan.buffers[at].place
                && s.graph.output(slot).is_none()
            {
                return fault(format!("writes {slot}, which is no output of the program"));
            }
            holds[at] = Holds::Value(value);
        }
    }
    check_computed(s)?;
    check_outputs(s, &holds)
}

/// What the plan says that buffers hold after launches is what they hold, and all of it.
fn check_computed(s: Subject<'_>) -> Result<(), Finding> {
    let written = s.launches().flat_map(|(launch, l, roles)| {
        let written = l.args.iter().zip(&roles.writes);
        written.filter_map(move |(&buffer, value)| Some(Computed { launch, buffer, value: (*value)? }))
    });
    if written.eq(s.plan.computed.iter().copied()) {
        return Ok(());
    }
    Err(Finding::new(Check::Contents, "what it says that its launches compute is not what they compute"))
}

/// Every output is where it belongs, as it is or as what it is a reshape of.
fn check_outputs(s: Subject<'_>, holds: &[Holds]) -> Result<(), Finding> {
    let mut at = std::collections::HashMap::new();
    for (i, buffer) in s.plan.buffers.iter().enumerate() {
        if let Place::External(slot) = &buffer.place {
            at.insert(slot, i);
        }
    }
    for output in &s.graph.outputs {
        let mut value = output.value;
        let found = at.get(&output.slot).map_or(Holds::Nothing, |&i| holds[i]);
        while found != Holds::Value(value) {
            let node = s.graph.producer(value);
            match (&node.op, found) {
                (Op::Reshape(_), _) => value = node.operands[0],
                // Not even a buffer: what goes there is what came from there.
                (Op::Input(slot, _), Holds::Nothing) if *slot == output.slot => break,
                (_, Holds::Value(other)) => {
                    let (what, other) = (s.describe(output.value), s.describe(other));
                    let slot = &output.slot;
                    let message = format!("{slot} is to hold {what} at the end, and holds {other}");
                    return Err(Finding::of(Check::Contents, output.value, message));
                }
                _ => {
                    let (what, slot) = (s.describe(output.value), &output.slot);
                    let message = format!("nothing writes {slot}, which is {what}");
                    return Err(Finding::of(Check::Contents, output.value, message));
                }
            }
        }
    }
    Ok(())
}
