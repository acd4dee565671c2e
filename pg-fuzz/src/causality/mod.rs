//! A search for graphs that the proof of causality accepts and that leak all the same: random graphs, each evaluated in
//! float64 with one token after the other changed. Of the graphs that it refuses those are counted that were not seen
//! to leak: what the proof could still learn.

mod graphs;
mod masks;

use std::collections::BTreeMap;
use std::fmt;

use pg_ir::causality::prove_causal;
use pg_ir::graph::{Graph, ValueId};
use pg_ir::interp::{Environment, Tensor, evaluate};
use pg_ir::refusal::Refusal;
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::Role;
use rayon::prelude::*;

use crate::rng::Rng;

/// Rows of every table, and values of a token.
const ROWS: usize = 5;

/// Draws of parameters and tokens that a graph is tried with. Of the last the parameters are large, so that numbers
/// overflow and the smallest score is not a small one.
const DRAWS: u64 = 3;

/// What parameters of that draw are multiplied with.
const LARGE: f64 = 1e9;

/// A token, and a logit that it must not change and does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leak {
    /// Sequence and position of the token.
    pub token: [usize; 2],
    /// Sequence and position of the logit.
    pub logit: [usize; 2],
}

/// What became of one graph.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// The proof's answer.
    pub proof: Result<(), Refusal>,
    /// A leak that was seen.
    pub leak: Option<Leak>,
    /// Whether some value of it has two axes of positions.
    pub has_tables: bool,
}

/// What became of many graphs.
#[derive(Clone, Default, Debug)]
pub struct Totals {
    /// Graphs.
    pub graphs: u64,
    /// Accepted ones.
    pub accepted: u64,
    /// Accepted ones with a table of positions, as attention by hand has.
    pub accepted_tables: u64,
    /// Seeds of accepted graphs that leak.
    pub leaks: Vec<u64>,
    /// Refused graphs by the op that the proof names: all, and those that were not seen to leak.
    pub refused: BTreeMap<String, [u64; 2]>,
}

/// The graph of a seed and its logits [batch, time, channel].
pub fn graph(seed: u64) -> (Graph, ValueId) {
    graphs::graph(seed)
}

/// Proves and perturbs the graph of a seed.
pub fn check(seed: u64) -> Verdict {
    let (graph, logits) = graph(seed);
    let has_tables = graph.nodes().flat_map(|(_, node)| graph.results(node)).any(|v| {
        let is_time = |a: &&pg_ir::ty::Axis| a.role == Role::Time && a.size > 1;
        graph.ty(v).axes.iter().filter(is_time).count() > 1
    });
    Verdict { proof: prove_causal(&graph, logits), leak: leak(&graph, logits, seed), has_tables }
}

/// Checks many seeds, on all threads of the current pool.
pub fn search(seeds: std::ops::Range<u64>) -> Totals {
    let add = |mut totals: Totals, seed: u64| {
        totals.add(seed, &check(seed));
        totals
    };
    seeds.into_par_iter().fold(Totals::default, add).reduce(Totals::default, Totals::and)
}

/// A token that changes a logit of an earlier position, or of another sequence.
fn leak(graph: &Graph, logits: ValueId, seed: u64) -> Option<Leak> {
    let tokens = Slot::new(Space::Data, "tokens");
    let [batch, time, width] = graph.ty(logits).shape()[..] else { unreachable!("logits have three axes") };
    let run = |env: &Environment| -> Tensor {
        let mut values = evaluate(graph, env).expect("every input has a value");
        values.swap_remove(logits.index())
    };
    for draw in 0..DRAWS {
        let mut rng = Rng::of(seed ^ draw << 32, "environment");
        let scale = if draw + 1 == DRAWS { LARGE } else { 1.0 };
        let mut env: Environment = graph
            .inputs()
            .map(|(slot, value)| {
                let is_tokens = *slot == tokens;
                let draw =
                    |rng: &mut Rng| if is_tokens { rng.below(ROWS) as f64 } else { scale * rng.float() };
                (slot.clone(), (0..graph.ty(value).len()).map(|_| draw(&mut rng)).collect())
            })
            .collect();
        let before = run(&env);
        for at in 0..batch * time {
            let old = env[&tokens][at];
            for by in 1..ROWS {
                env.get_mut(&tokens).expect("tokens are an input")[at] = (old + by as f64) % ROWS as f64;
                let after = run(&env);
                let (row, t) = (at / time, at % time);
                let changed = before.iter().zip(&after).enumerate().filter(|(_, (a, b))| !same(**a, **b));
                let positions = changed.map(|(i, _)| [i / width / time, i / width % time]);
                let mut wrong = positions.filter(|[r, u]| *r != row || *u < t);
                if let Some(logit) = wrong.next() {
                    return Some(Leak { token: [row, t], logit });
                }
            }
            env.get_mut(&tokens).expect("tokens are an input")[at] = old;
        }
    }
    None
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

impl Totals {
    fn add(&mut self, seed: u64, verdict: &Verdict) {
        self.graphs += 1;
        match &verdict.proof {
            Ok(()) => {
                self.accepted += 1;
                self.accepted_tables += u64::from(verdict.has_tables);
                self.leaks.extend(verdict.leak.map(|_| seed));
            }
            Err(why) => {
                let op = why.trail.first().and_then(|mark| mark.op.split(' ').next()).unwrap_or("no op");
                let counts = self.refused.entry(op.to_string()).or_default();
                counts[0] += 1;
                counts[1] += u64::from(verdict.leak.is_none());
            }
        }
    }

    fn and(mut self, other: Totals) -> Totals {
        self.graphs += other.graphs;
        self.accepted += other.accepted;
        self.accepted_tables += other.accepted_tables;
        self.leaks.extend(other.leaks);
        for (op, counts) in other.refused {
            let own = self.refused.entry(op).or_default();
            *own = [own[0] + counts[0], own[1] + counts[1]];
        }
        self
    }

    /// Refused graphs: all, and those that were not seen to leak.
    pub fn refused_in_all(&self) -> [u64; 2] {
        self.refused.values().fold([0, 0], |sum, counts| [sum[0] + counts[0], sum[1] + counts[1]])
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Totals { graphs, accepted, accepted_tables, leaks, refused } = self;
        let [all, silent] = self.refused_in_all();
        writeln!(
            f,
            "{graphs} graphs: {accepted} accepted ({accepted_tables} with tables of positions), {all} refused"
        )?;
        writeln!(f, "{} accepted graphs leak: {leaks:?}", leaks.len())?;
        write!(f, "{silent} refused graphs were not seen to leak:")?;
        refused.iter().try_for_each(|(op, [all, silent])| write!(f, " {op} {silent} of {all},"))
    }
}
