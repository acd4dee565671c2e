//! Plants in what runs when on which buffers: launches dropped, moved, repeated; arguments and outputs exchanged.

use std::collections::HashSet;

use pg_codegen::plan::witness::Lowered;
use pg_codegen::plan::{BufferId, Kernel, Place};
use pg_codegen::report::provenance::Provenance;
use pg_codegen::verify::Check;
use pg_ir::op::Op;

use crate::places::edit;
use crate::{Edit, Plant};

pub(crate) const PLANTS: &[Plant] = &[
    Plant::new("launch dropped", &[Check::Contents, Check::Census], dropped),
    Plant::or_equal("launches exchanged", &[Check::Contents], exchanged),
    Plant::new("dependent launches exchanged", &[Check::Contents], dependent_exchanged),
    Plant::new("launch repeated", &[Check::Contents, Check::Census], repeated),
    Plant::new("old value overwritten early", &[Check::Contents], overwritten_early),
    Plant::new("arguments exchanged", &[Check::Contents, Check::Shapes], arguments_exchanged),
    Plant::or_equal("arguments and claims exchanged", &[Check::Meaning], claims_exchanged),
    Plant::new("read redirected", &[Check::Contents], read_redirected),
    Plant::new("write redirected", &[Check::Contents], write_redirected),
    Plant::new("output slots exchanged", &[Check::Contents], slots_exchanged),
    Plant::new("output renamed", &[Check::Contents], output_renamed),
    Plant::new("claim changed", &[Check::Contents, Check::Shapes], claim_changed),
    Plant::new("claim of the plan changed", &[Check::Contents], computed_changed),
    Plant::new("node of another launch", &[Check::Census, Check::Meaning], node_changed),
    Plant::new("provenance lost", &[Check::Census], provenance_lost),
    Plant::new("argument dropped", &[Check::Shapes], argument_dropped),
    Plant::new("kernel that is not there", &[Check::Shapes], no_kernel),
    Plant::new("buffer that is not there", &[Check::Shapes], no_buffer),
    Plant::new("input overwritten", &[Check::Shapes, Check::Contents], input_overwritten),
];

fn kernel(good: &Lowered, launch: usize) -> &Kernel {
    &good.plan.kernels[good.plan.launches[launch].kernel.0 as usize]
}

fn launches(good: &Lowered) -> std::ops::Range<usize> {
    0..good.plan.launches.len()
}

fn dropped(good: &Lowered) -> Vec<Edit> {
    let drop = |i: usize| {
        edit(format!("#{i}"), move |bad| {
            bad.plan.launches.remove(i);
            bad.roles.remove(i);
        })
    };
    launches(good).map(drop).collect()
}

fn exchange(i: usize) -> Edit {
    edit(format!("#{i} and the next"), move |bad| {
        bad.plan.launches.swap(i, i + 1);
        bad.roles.swap(i, i + 1);
    })
}

fn exchanged(good: &Lowered) -> Vec<Edit> {
    (0..good.plan.launches.len().saturating_sub(1)).map(exchange).collect()
}

/// Neighbours of which the second reads what the first writes, or overwrites what it reads.
fn dependent_exchanged(good: &Lowered) -> Vec<Edit> {
    let touched = |i: usize, of: fn(&Lowered, usize) -> Vec<bool>| -> HashSet<BufferId> {
        let which = of(good, i);
        good.plan.launches[i].args.iter().zip(which).filter(|(_, is)| *is).map(|(b, _)| *b).collect()
    };
    let reads =
        |good: &Lowered, i: usize| good.roles[i].reads.iter().map(Option::is_some).collect::<Vec<_>>();
    let writes =
        |good: &Lowered, i: usize| good.roles[i].writes.iter().map(Option::is_some).collect::<Vec<_>>();
    let depend = |i: usize| {
        let (r, w) = (touched(i, reads), touched(i, writes));
        let (next_r, next_w) = (touched(i + 1, reads), touched(i + 1, writes));
        !w.is_disjoint(&next_r) || !r.is_disjoint(&next_w)
    };
    (0..good.plan.launches.len().saturating_sub(1)).filter(|&i| depend(i)).map(exchange).collect()
}

fn repeated(good: &Lowered) -> Vec<Edit> {
    let repeat = |i: usize| {
        edit(format!("#{i}"), move |bad| {
            bad.plan.launches.insert(i, bad.plan.launches[i].clone());
            bad.roles.insert(i, bad.roles[i].clone());
        })
    };
    launches(good).map(repeat).collect()
}

/// The launch that overwrites a slot runs before one that reads the old value there.
fn overwritten_early(good: &Lowered) -> Vec<Edit> {
    let mut edits = Vec::new();
    for i in launches(good) {
        for (arg, buffer) in good.plan.launches[i].args.iter().enumerate() {
            let is_slot = matches!(good.plan.buffers[buffer.0 as usize].place, Place::External(_));
            if !is_slot || good.roles[i].writes[arg].is_none() {
                continue;
            }
            let reads = |&r: &usize| {
                good.plan.launches[r]
                    .args
                    .iter()
                    .zip(&good.roles[r].reads)
                    .any(|(b, v)| b == buffer && v.is_some())
            };
            if let Some(reader) = (0..i).rfind(reads) {
                edits.push(edit(format!("#{i} before #{reader}"), move |bad| {
                    let (launch, roles) = (bad.plan.launches.remove(i), bad.roles.remove(i));
                    bad.plan.launches.insert(reader, launch);
                    bad.roles.insert(reader, roles);
                }));
            }
        }
    }
    edits
}

/// Pairs of arguments of a launch with one type and length, in different buffers.
fn pairs(good: &Lowered) -> Vec<(usize, usize, usize)> {
    let mut pairs = Vec::new();
    for i in launches(good) {
        let args = &good.plan.launches[i].args;
        let ty = |a: usize| {
            let b = &good.plan.buffers[args[a].0 as usize];
            (b.dtype, b.len)
        };
        for a in 0..args.len() {
            let others = (a + 1..args.len()).filter(|&b| ty(a) == ty(b) && args[a] != args[b]);
            pairs.extend(others.map(|b| (i, a, b)));
        }
    }
    pairs
}

fn arguments_exchanged(good: &Lowered) -> Vec<Edit> {
    let swap = |(i, a, b): (usize, usize, usize)| {
        edit(format!("#{i} arguments {a} and {b}"), move |bad| bad.plan.launches[i].args.swap(a, b))
    };
    pairs(good).into_iter().map(swap).collect()
}

/// As if operands had been bound in another order from the start.
fn claims_exchanged(good: &Lowered) -> Vec<Edit> {
    let swap = |(i, a, b): (usize, usize, usize)| {
        edit(format!("#{i} arguments {a} and {b}"), move |bad| {
            bad.plan.launches[i].args.swap(a, b);
            bad.roles[i].reads.swap(a, b);
            bad.roles[i].writes.swap(a, b);
        })
    };
    let alike = |&(i, a, b): &(usize, usize, usize)| {
        let roles = &good.roles[i];
        let side = |arg: usize| (roles.reads[arg].is_some(), roles.writes[arg].is_some());
        side(a) == side(b)
    };
    pairs(good).into_iter().filter(alike).map(swap).collect()
}

/// An argument that is read or written, another buffer of its type, and whether it is written.
fn redirected(good: &Lowered, written: bool) -> Vec<Edit> {
    let mut edits = Vec::new();
    for i in launches(good) {
        for (arg, &from) in good.plan.launches[i].args.iter().enumerate() {
            let roles = &good.roles[i];
            if roles.writes[arg].is_some() != written || roles.reads[arg].is_some() == written {
                continue;
            }
            let buffers = &good.plan.buffers;
            let alike = |b: usize| {
                let (x, y) = (&buffers[b], &buffers[from.0 as usize]);
                (x.dtype, x.len) == (y.dtype, y.len) && b != from.0 as usize
            };
            if let Some(to) = (0..buffers.len()).rev().find(|&b| alike(b)) {
                edits.push(edit(format!("#{i} argument {arg} to b{to}"), move |bad| {
                    bad.plan.launches[i].args[arg] = BufferId(to as u32);
                }));
            }
        }
    }
    edits
}

fn read_redirected(good: &Lowered) -> Vec<Edit> {
    redirected(good, false)
}

fn write_redirected(good: &Lowered) -> Vec<Edit> {
    redirected(good, true)
}

/// Buffers of slots that the program writes.
fn outputs(good: &Lowered) -> Vec<usize> {
    let is_output =
        |place: &Place| matches!(place, Place::External(slot) if good.graph.output(slot).is_some());
    let buffers = good.plan.buffers.iter().enumerate();
    buffers.filter(|(_, b)| is_output(&b.place)).map(|(i, _)| i).collect()
}

fn slots_exchanged(good: &Lowered) -> Vec<Edit> {
    let outputs = outputs(good);
    let mut edits = Vec::new();
    for (i, &a) in outputs.iter().enumerate() {
        let b = &good.plan.buffers;
        let alike = |&&o: &&usize| (b[o].dtype, b[o].len) == (b[a].dtype, b[a].len);
        // One value may go to two slots.
        let differ = |&&o: &&usize| {
            let value = |at: usize| match &b[at].place {
                Place::External(slot) => good.graph.output(slot),
                _ => None,
            };
            let mut values = [value(a), value(o)];
            for value in values.iter_mut().flatten() {
                while let Op::Reshape(_) = good.graph.producer(*value).op {
                    *value = good.graph.producer(*value).operands[0];
                }
            }
            values[0] != values[1]
        };
        if let Some(&o) = outputs[i + 1..].iter().filter(alike).find(differ) {
            edits.push(edit(format!("b{a} and b{o}"), move |bad| {
                let place = bad.plan.buffers[a].place.clone();
                bad.plan.buffers[a].place = std::mem::replace(&mut bad.plan.buffers[o].place, place);
            }));
        }
    }
    edits
}

fn output_renamed(good: &Lowered) -> Vec<Edit> {
    let written: HashSet<BufferId> = launches(good)
        .flat_map(|i| good.plan.launches[i].args.iter().zip(&good.roles[i].writes))
        .filter_map(|(b, v)| v.is_some().then_some(*b))
        .collect();
    let rename = |b: usize| {
        edit(format!("b{b}"), move |bad| {
            if let Place::External(slot) = &mut bad.plan.buffers[b].place {
                slot.name.push('x');
            }
        })
    };
    outputs(good).into_iter().filter(|&b| written.contains(&BufferId(b as u32))).map(rename).collect()
}

/// Of two arguments that are read, the second is said to hold what the first does.
fn claim_changed(good: &Lowered) -> Vec<Edit> {
    let change = |(i, a, b): (usize, usize, usize)| {
        edit(format!("#{i} argument {b} as {a}"), move |bad| bad.roles[i].reads[b] = bad.roles[i].reads[a])
    };
    let read = |&(i, a, b): &(usize, usize, usize)| {
        good.roles[i].reads[a].is_some() && good.roles[i].reads[b].is_some()
    };
    pairs(good).into_iter().filter(read).map(change).collect()
}

/// The plan says of a buffer that another launch's value is there.
fn computed_changed(good: &Lowered) -> Vec<Edit> {
    let n = good.plan.computed.len();
    let change = |i: usize| {
        edit(format!("entry {i}"), move |bad| {
            bad.plan.computed[i].value = bad.plan.computed[(i + 1) % n].value
        })
    };
    (0..n)
        .filter(|i| good.plan.computed[*i].value != good.plan.computed[(i + 1) % n].value)
        .map(change)
        .collect()
}

/// A launch is said to compute the node of another launch of its kernel.
fn node_changed(good: &Lowered) -> Vec<Edit> {
    let mut edits = Vec::new();
    for i in launches(good).filter(|&i| !good.roles[i].library.is_empty()) {
        let alike = |&j: &usize| {
            good.plan.launches[j].kernel == good.plan.launches[i].kernel
                && good.roles[j].library != good.roles[i].library
        };
        if let Some(j) = launches(good).rev().find(alike) {
            edits.push(edit(format!("#{i} as #{j}"), move |bad| {
                bad.roles[i].library = bad.roles[j].library.clone()
            }));
        }
    }
    edits
}

fn provenance_lost(good: &Lowered) -> Vec<Edit> {
    let says = |&i: &usize| !good.plan.launches[i].provenance.ops.is_empty();
    let lose =
        |i: usize| edit(format!("#{i}"), move |bad| bad.plan.launches[i].provenance = Provenance::default());
    launches(good).filter(says).map(lose).collect()
}

fn argument_dropped(good: &Lowered) -> Vec<Edit> {
    launches(good).map(|i| edit(format!("#{i}"), move |bad| _ = bad.plan.launches[i].args.pop())).collect()
}

fn no_kernel(good: &Lowered) -> Vec<Edit> {
    let n = good.plan.kernels.len() as u32;
    launches(good).map(|i| edit(format!("#{i}"), move |bad| bad.plan.launches[i].kernel.0 = n)).collect()
}

fn no_buffer(good: &Lowered) -> Vec<Edit> {
    let none = BufferId(good.plan.buffers.len() as u32);
    launches(good).map(|i| edit(format!("#{i}"), move |bad| bad.plan.launches[i].args[0] = none)).collect()
}

/// What is written is called an input.
fn input_overwritten(good: &Lowered) -> Vec<Edit> {
    let mut edits = Vec::new();
    for i in launches(good).filter(|&i| !matches!(kernel(good, i), Kernel::Copy { .. })) {
        let written = (0..good.roles[i].writes.len()).find(|&arg| good.roles[i].writes[arg].is_some());
        if let Some(arg) = written {
            edits.push(edit(format!("#{i} argument {arg}"), move |bad| {
                let buffer = bad.plan.launches[i].args[arg].0 as usize;
                let slot = pg_ir::slot::Slot::new(pg_ir::slot::Space::Scalar, "planted");
                bad.plan.buffers[buffer].place = Place::External(slot);
            }));
        }
    }
    edits
}
