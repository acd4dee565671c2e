//! Faults planted in good plans, and found: every kind of wrong plan that the verifier is there for.
//!
//! A kind of plant lists the places of a plan where it applies; each is planted in a copy, which the verifier must
//! refuse, by a rule of the family that the kind is for. Some plants may change nothing, as when independent launches
//! change places: those that pass are run, and must give the same bits as the good plan.

mod memory;
mod order;
mod places;
mod products;
mod regions;
mod sources;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pg_codegen::plan::Computed;
use pg_codegen::plan::witness::{Lowered, Roles};
use pg_codegen::verify::{Check, all_findings, verify};
use pg_ir::interp::Environment;
use pg_ir::slot::Space;
use pg_testing::plans::environment;

/// Places of one plan at which a kind is planted: the rest is skipped, evenly.
const MOST: usize = 4;

/// What a plant does to a plan, with what to call it.
type Edit = (String, Box<dyn Fn(&mut Lowered)>);

/// A kind of fault.
struct Plant {
    name: &'static str,
    /// The rules of which one must find it.
    checks: &'static [Check],
    /// Whether a plant may change nothing that a run can see.
    may_be_equal: bool,
    /// Where in a plan it applies.
    edits: fn(&Lowered) -> Vec<Edit>,
}

impl Plant {
    const fn new(name: &'static str, checks: &'static [Check], edits: fn(&Lowered) -> Vec<Edit>) -> Plant {
        Plant { name, checks, may_be_equal: false, edits }
    }

    /// A kind of which some plants change nothing.
    const fn or_equal(
        name: &'static str,
        checks: &'static [Check],
        edits: fn(&Lowered) -> Vec<Edit>,
    ) -> Plant {
        Plant { name, checks, may_be_equal: true, edits }
    }
}

/// All kinds.
fn kinds() -> impl Iterator<Item = &'static Plant> {
    order::PLANTS.iter().chain(memory::PLANTS).chain(regions::PLANTS).chain(products::PLANTS)
}

/// Of one kind: how many were planted, found by rules of its own family, and equal.
#[derive(Default, Clone, Copy)]
struct Count {
    planted: usize,
    by_its_own: usize,
    equal: usize,
}

/// Plants every kind in plans.
fn plant(plans: Vec<(String, Lowered)>) -> BTreeMap<&'static str, Count> {
    let mut counts: BTreeMap<&'static str, Count> = BTreeMap::new();
    for (name, good) in &plans {
        if let Err(e) = verify(good) {
            panic!("{name}: a good plan is refused: {e}\n{}", good.plan);
        }
        let mut outcome: Option<Outcome> = None;
        for kind in kinds() {
            let edits = (kind.edits)(good);
            let step = edits.len().div_ceil(MOST).max(1);
            for (place, edit) in edits.iter().step_by(step) {
                let mut bad = good.clone();
                edit(&mut bad);
                if bad == *good {
                    // A scatter of one row, cut into single rows.
                    continue;
                }
                if bad.plan.computed == good.plan.computed {
                    bad.plan.computed = computed(&bad);
                }
                let count = counts.entry(kind.name).or_default();
                count.planted += 1;
                let found = all_findings(&bad);
                if found.iter().any(|f| kind.checks.contains(&f.check)) {
                    count.by_its_own += 1;
                }
                if found.is_empty() {
                    let what = format!("{name}: {}, {place}", kind.name);
                    assert!(kind.may_be_equal, "{what}: not found\n{}", bad.plan);
                    let outcome = outcome.get_or_insert_with(|| Outcome::new(good));
                    assert!(outcome.is_of(&bad), "{what}: not found, and it matters\n{}", bad.plan);
                    count.equal += 1;
                } else {
                    assert!(verify(&bad).is_err());
                }
            }
        }
    }
    counts
}

/// What a plan says that its launches leave in buffers, as it would say it if the plant had been there from the start.
fn computed(bad: &Lowered) -> Vec<Computed> {
    let of = |(launch, roles): (usize, &Roles)| {
        let args = bad.plan.launches.get(launch).map_or(&[][..], |l| &l.args);
        let written = args.iter().zip(&roles.writes);
        let written =
            written.filter_map(|(&buffer, value)| Some(Computed { launch, buffer, value: (*value)? }));
        written.collect::<Vec<_>>()
    };
    bad.roles.iter().enumerate().flat_map(of).collect()
}

/// What a plan computes, on inputs of two kinds, so that no accident of one makes a plant look harmless.
struct Outcome(Vec<(Environment, Environment)>);

impl Outcome {
    fn new(good: &Lowered) -> Outcome {
        let env = environment(&good.graph);
        let mut other = env.clone();
        for (slot, values) in other.iter_mut().filter(|(slot, _)| slot.space != Space::Data) {
            let turn = slot.name.len() as f64;
            let changed = |(i, x): (usize, &mut f64)| *x = 1.25 * *x + 0.1 * (i as f64 + turn).sin();
            values.iter_mut().enumerate().for_each(changed);
        }
        Outcome([env, other].map(|env| (env.clone(), pg_fuzz::exec::run(&good.plan, &env))).into())
    }

    /// Whether a plan computes the same bits.
    fn is_of(&self, bad: &Lowered) -> bool {
        self.0.iter().all(|(env, expected)| {
            let found = catch_unwind(AssertUnwindSafe(|| pg_fuzz::exec::run(&bad.plan, env)));
            let Ok(found) = found else { return false };
            bad.graph.outputs.iter().all(|output| {
                let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
                match (expected.get(&output.slot), found.get(&output.slot)) {
                    (Some(want), Some(have)) => want.len() == have.len() && want.iter().zip(have).all(same),
                    (want, have) => want.is_none() && have.is_none(),
                }
            })
        })
    }
}

fn report(counts: &BTreeMap<&'static str, Count>) {
    for (name, count) in counts {
        let Count { planted, by_its_own, equal } = count;
        println!("{name:<28} {planted:>5} planted, {by_its_own:>5} found by its own rules, {equal:>4} equal");
    }
}

#[test]
fn plants_in_models_are_found() {
    let counts = plant(sources::models());
    report(&counts);
    for kind in kinds() {
        let count = counts.get(kind.name).copied().unwrap_or_default();
        assert!(
            count.by_its_own > 0,
            "{}: {} planted, none found by its own rules",
            kind.name,
            count.planted
        );
    }
    let planted: usize = counts.values().map(|c| c.planted).sum();
    assert!(counts.len() >= 50 && planted > 2000, "{} kinds, {planted} plants", counts.len());
}

#[test]
fn plants_in_random_plans_are_found() {
    report(&plant(sources::random()));
}

/// A plan that fails says where: the program, the launch, what it computes, and lines of the model.
#[test]
fn a_finding_names_program_launch_and_lines() {
    let (_, good) = sources::models().swap_remove(0);
    let mut bad = good.clone();
    let at = bad.plan.launches.iter().position(|l| l.args.len() > 2).unwrap();
    let note = bad.plan.launches[at].note();
    bad.plan.launches[at].args.pop();
    let message = verify(&bad).unwrap_err().to_string();
    for part in ["program `grad.first`", &format!("launch #{at}"), &note, "arguments, it has", "tiny.rs:"] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// Launches that wait for each other are emitted by no order; what was left out is missed.
#[test]
fn launches_lost_in_a_cycle_are_missed() {
    let (name, good) = sources::models().swap_remove(0);
    let reads = |i: usize| good.roles[i].reads.iter().flatten();
    let writes = |i: usize| good.roles[i].writes.iter().flatten();
    let n = good.plan.launches.len();
    let mut tried = 0;
    for first in (0..n).step_by(3) {
        // The launch, one that waits for it, and everything that waits for either, as a topological sort would lose them.
        let mut lost: Vec<usize> = vec![first];
        for i in first + 1..n {
            if lost.iter().any(|&j| writes(j).any(|v| reads(i).any(|r| r == v))) {
                lost.push(i);
            }
        }
        if lost.len() < 2 {
            continue;
        }
        let mut bad = good.clone();
        for &i in lost.iter().rev() {
            bad.plan.launches.remove(i);
            bad.roles.remove(i);
        }
        bad.plan.computed = computed(&bad);
        let found = all_findings(&bad);
        let says = |check| found.iter().any(|f| f.check == check);
        assert!(says(Check::Contents), "{name}: without {lost:?}: {found:?}");
        tried += 1;
    }
    assert!(tried > 5, "{tried}");
}
