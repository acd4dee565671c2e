//! Translation validation: what a run is about to compute, held to float64 before it begins.
//!
//! Each program of a run is compiled at a small shape, run on the run's own device on seeded inputs, and compared with
//! the interpreter on the graph that no pass has touched: every output, every gradient. So a fault of a pass, of a kernel
//! or of a device stops a run before step 0, whatever model it is. [`programs`] says which programs and shapes,
//! [`inputs`] on what, [`noise`] what is right, [`compare`] how far off it may be, [`check`] judges, [`coverage`] says
//! what the small programs do not stand for, [`mod@blame`] which launch went wrong.
//!
//! It must never change what a run computes, nor let one begin on programs that differ.

mod blame;
mod cache;
mod check;
mod compare;
mod coverage;
mod difference;
mod inputs;
mod jobs;
mod noise;
mod product;
mod programs;
mod report;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pg_codegen::plan::Plan;
use pg_ir::interp::InterpError;
use pg_ir::lang::Options;
use thiserror::Error;

use self::blame::blame;
use self::cache::Identity;
pub use self::cache::cache_folder;
use self::check::{Compiled, Verdict, run_chain, scorer};
pub use self::coverage::Uncovered;
pub use self::difference::{Blame, Difference};
use self::jobs::each;
use self::noise::decisions;
pub use self::programs::{Chain, Subject, subjects};
pub use self::report::{Outcome, ProgramReport, ValidationReport};
use crate::executor::ExecError;
use crate::report::{Event, Observer};
use crate::session::{Key, Session, SessionError};

/// Sets of inputs that a program may be tried on, if decisions of the model lie within rounding of an edge.
const MOST_INPUTS: u64 = 3;

/// Noise in which a decision must stand to be called clear, in roundings.
const CLEAR: f64 = 64.0;

/// Why a run's programs are not validated.
#[derive(Debug, Error)]
pub enum ValidateError {
    /// A program cannot be compiled or run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The reference cannot be computed.
    #[error("the reference: {0}")]
    Reference(#[from] InterpError),
    /// A program computes something else than its graph says.
    #[error(transparent)]
    Differs(Box<Difference>),
}

impl From<ExecError> for ValidateError {
    fn from(error: ExecError) -> ValidateError {
        SessionError::from(error).into()
    }
}

/// Validates programs that a run will ask for, unless that has been done: the same programs of the same text, by this pg
/// on this device; `cache` is the folder where it says so. `options` made the session's model of its text.
///
/// # Errors
/// If a program cannot be compiled or run, or computes something else than its graph says.
pub fn validate(
    session: &mut Session,
    programs: &[Key],
    options: &Options,
    cache: Option<&Path>,
    observer: &mut Observer<'_>,
) -> Result<ValidationReport, ValidateError> {
    let started = Instant::now();
    let subjects = subjects(session, programs);
    for subject in &subjects {
        subject.session.check_bundle(&subject.programs())?;
    }
    let identity = Identity::new(session, programs, &subjects, options);
    if let Some(known) = cache.and_then(|folder| identity.find(folder)) {
        observer(Event::Note(format!("validated: {known}")));
        return Ok(ValidationReport { seconds: started.elapsed().as_secs_f64(), ..known });
    }
    let report = validate_now(session, &subjects, observer)?;
    if let Some(Err(why)) = cache.map(|folder| identity.keep(folder, &report)) {
        observer(Event::Note(format!("the next run will validate again: {why}")));
    }
    Ok(report)
}

/// Validates. `session` is the run's own, whose plans are compared with those that are run here.
fn validate_now(
    session: &mut Session,
    subjects: &[Subject],
    observer: &mut Observer<'_>,
) -> Result<ValidationReport, ValidateError> {
    let started = Instant::now();
    let chains: Vec<(&Subject, &Chain)> =
        subjects.iter().flat_map(|s| s.chains.iter().map(move |c| (s, c))).collect();
    let real: Vec<Key> = chains.iter().flat_map(|(_, c)| c.stands_for.iter().flatten().copied()).collect();
    let total = (chains.len() + real.len()) as u64;
    observer(Event::Begin { stage: "validate".into(), total });
    // Plans of the run itself are wanted to compare with, and then by the run.
    let lower =
        real.iter().filter(|key| !session.is_lowered(**key)).map(|&key| Job::Lower(session.fork(), key));
    let jobs =
        chains.iter().map(|(s, c)| Job::Validate(s.session.fork(), (*c).clone())).chain(lower).collect();
    // One device compiles for one program at a time.
    let threads = if session.device().runs_plans_as_they_are() { rayon::current_num_threads() } else { 1 };
    let mut ended = 0;
    let done = each(jobs, threads, Job::run, || {
        ended += 1;
        observer(Event::Progress(ended));
    });
    let mut validated = Vec::new();
    for done in done {
        match done? {
            Done::Lowered(key, plan, seconds) => session.keep(key, plan, seconds),
            Done::Validated(programs) => validated.push(programs),
        }
    }
    let mut report = ValidationReport { outcome: Outcome::Passed, ..ValidationReport::default() };
    for ((subject, chain), programs) in chains.into_iter().zip(validated) {
        for ((mut of, plan), real) in programs.into_iter().zip(&chain.stands_for) {
            cover(session, subject, &plan, real, (&mut of, &mut report.uncovered))?;
            report.launches += of.launches;
            report.covered += of.covered;
            report.programs.push(of);
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    let (programs, covered, launches) = (report.programs.len(), report.covered, report.launches);
    observer(Event::End(format!(
        "{programs} programs agree with float64; they cover {covered} of {launches} launches"
    )));
    Ok(report)
}

/// Something to do that waits for nothing else.
enum Job {
    Validate(Session, Chain),
    Lower(Session, Key),
}

/// What came of it.
enum Done {
    Validated(Vec<(ProgramReport, Arc<Plan>)>),
    Lowered(Key, Arc<Plan>, f64),
}

impl Job {
    fn run(self) -> Result<Done, ValidateError> {
        match self {
            Job::Lower(session, key) => {
                let started = Instant::now();
                let plan = Arc::new(session.lower(key)?);
                Ok(Done::Lowered(key, plan, started.elapsed().as_secs_f64()))
            }
            Job::Validate(session, chain) => {
                let compiled: Result<Vec<Compiled>, _> =
                    chain.keys.iter().map(|&key| Compiled::new(&session, key)).collect();
                let compiled = compiled?;
                let (verdicts, inputs) = agree(&session, &compiled)?;
                let summaries =
                    compiled.iter().zip(&verdicts).map(|(c, v)| (summary(c, v, inputs), c.plan.clone()));
                Ok(Done::Validated(summaries.collect()))
            }
        }
    }
}

/// Runs a chain until its programs agree with the reference, on other inputs only where a decision of the model lies on
/// an edge; the verdicts of each program, and the sets of inputs.
fn agree(session: &Session, chain: &[Compiled]) -> Result<(Vec<Vec<Verdict>>, u64), ValidateError> {
    let mut seed = 0;
    loop {
        let ran = run_chain(session, chain, seed, None)?;
        let mut all = Vec::new();
        let mut wrong = None;
        for (at, (compiled, ran)) in chain.iter().zip(&ran).enumerate() {
            let verdicts = scorer(session, compiled, ran)?;
            if !verdicts.iter().all(Verdict::passed) {
                wrong = Some((at, verdicts));
                break;
            }
            all.push(verdicts);
        }
        let Some((at, verdicts)) = wrong else { return Ok((all, seed + 1)) };
        let graph = &chain[at].reference;
        let digest = |noise| decisions(graph, &ran[at].env, (seed, noise));
        let undecided = digest(0.0)? != digest(CLEAR)?;
        if seed + 1 == MOST_INPUTS || !undecided {
            let blame = blame(session, &chain[..=at], &ran[..=at], seed)?;
            let difference = difference(&chain[at], &verdicts, undecided, blame);
            return Err(ValidateError::Differs(Box::new(difference)));
        }
        seed += 1;
    }
}

/// Counts the launches of the run's programs that a validated one stands for.
fn cover(
    session: &mut Session,
    subject: &Subject,
    plan: &Plan,
    real: &[Key],
    (of, uncovered): (&mut ProgramReport, &mut Vec<Uncovered>),
) -> Result<(), ValidateError> {
    for &key in real {
        let real = session.lowered(key)?;
        let small = (plan, &*subject.session.layout);
        let missing = coverage::uncovered((&real, &session.layout), small, session.device())?;
        of.launches += real.launches.len();
        of.covered += real.launches.len() - missing.len();
        uncovered.extend(missing);
    }
    Ok(())
}

/// How close an output's error comes to its bound.
fn closeness(verdict: &Verdict) -> f64 {
    if verdict.measure.compared == 0 { 0.0 } else { verdict.measure.error / verdict.bound }
}

/// The output whose error comes closest to its bound, or is furthest beyond it.
fn worst(verdicts: &[Verdict]) -> Option<&Verdict> {
    // Of several the first, which is the first of the program's outputs.
    verdicts.iter().rev().max_by(|a, b| closeness(a).total_cmp(&closeness(b)))
}

fn difference(compiled: &Compiled, verdicts: &[Verdict], undecided: bool, blame: Blame) -> Difference {
    let shape = compiled.key.shape().map_or(String::new(), |(batch, seq)| format!(" {batch} × {seq}"));
    let worst = worst(verdicts);
    let number = |of: fn(&Verdict) -> f64| worst.map_or(f64::NAN, of);
    Difference {
        program: format!("{}{shape}", compiled.program.name),
        output: worst.map_or(String::new(), |v| v.part.words()),
        wrong: verdicts.iter().filter(|v| !v.passed()).count(),
        error: number(|v| v.measure.error),
        bound: number(|v| v.bound),
        got: number(|v| v.got),
        want: number(|v| v.want),
        unfused: worst.and_then(|v| v.unfused),
        undecided,
        blame,
    }
}

fn summary(compiled: &Compiled, verdicts: &[Verdict], inputs: u64) -> ProgramReport {
    let relative = |x: f64, v: &Verdict| if v.measure.scale > 0.0 { x / v.measure.scale } else { 0.0 };
    let worst = worst(verdicts);
    let is_compared = |v: &&Verdict| v.measure.compared > 0;
    ProgramReport {
        program: compiled.program.name.clone(),
        shape: compiled.key.shape(),
        outputs: verdicts.iter().filter(is_compared).count(),
        not_compared: verdicts.iter().filter(|v| !is_compared(v)).map(|v| v.part.words()).collect(),
        worst: worst.map_or(String::new(), |v| v.part.words()),
        error: worst.map_or(0.0, |v| relative(v.measure.error, v)),
        bound: worst.map_or(0.0, |v| relative(v.bound, v)),
        inputs,
        launches: 0,
        covered: 0,
    }
}
