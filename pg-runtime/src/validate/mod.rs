//! Translation validation: what a run is about to compute, held to float64 before it begins.
//!
//! Each program of a run is compiled at a small shape, run on the run's own device on seeded inputs, and compared with
//! the interpreter on the graph that no pass has touched: every output, every gradient. So a fault of a pass, of a kernel
//! or of a device stops a run before step 0, whatever model it is. [`programs`] says which programs and shapes,
//! [`inputs`] on what, [`noise`] what is right, [`compare`] how far off it may be, [`check`] judges, [`coverage`] says
//! what the small programs do not stand for, [`blame`] which launch went wrong.
//!
//! It must never change what a run computes, nor let one begin on programs that differ.

mod check;
mod compare;
mod coverage;
mod inputs;
mod noise;
mod product;
mod programs;
mod report;

use std::fmt;

use pg_ir::interp::InterpError;
use pg_ir::layout::Layout;
use thiserror::Error;

use self::check::{Compiled, Verdict, judge, run_chain};
pub use self::coverage::Uncovered;
use self::noise::decisions;
pub use self::programs::{Chain, Subject, subjects};
pub use self::report::{Outcome, ProgramReport, ValidationReport};
use crate::executor::ExecError;
use crate::report::{Event, Observer};
use crate::session::{Session, SessionError};

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

/// What a program computes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The program, with its shape.
    pub program: String,
    /// The output that is furthest off.
    pub output: String,
    /// Outputs that are off.
    pub wrong: usize,
    /// Its largest error, and the bound on it.
    pub error: (f64, f64),
    /// What is there, and what should be.
    pub values: (f64, f64),
}

impl std::error::Error for Difference {}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Difference { program, output, wrong, error: (error, bound), values: (got, want) } = self;
        write!(
            f,
            "`{program}` computes a wrong number: {output} is {got:e} where float64 has {want:e}, off by {error:.1e}; \
             {bound:.1e} is rounding's"
        )?;
        if *wrong > 1 {
            write!(f, "; {} more outputs are off", wrong - 1)?;
        }
        Ok(())
    }
}

/// Validates programs of a run. `session` is the run's own, whose plans are compared with those that are run here.
pub fn validate(
    session: &mut Session,
    subjects: &[Subject],
    observer: &mut Observer<'_>,
) -> Result<ValidationReport, ValidateError> {
    let started = std::time::Instant::now();
    let total = subjects.iter().map(|s| s.programs().len() as u64).sum();
    observer(Event::Begin { stage: "validate".into(), total });
    let mut report = ValidationReport { outcome: Outcome::Passed, ..ValidationReport::default() };
    for subject in subjects {
        for chain in &subject.chains {
            validate_chain(session, subject, chain, &mut report)?;
            observer(Event::Progress(report.programs.len() as u64));
        }
    }
    report.seconds = started.elapsed().as_secs_f64();
    let programs = report.programs.len();
    observer(Event::End(format!(
        "{programs} programs agree with float64, and stand for {} of {} launches",
        report.covered, report.launches
    )));
    Ok(report)
}

fn validate_chain(
    real: &mut Session,
    subject: &Subject,
    chain: &Chain,
    report: &mut ValidationReport,
) -> Result<(), ValidateError> {
    let session = &subject.session;
    let compiled: Result<Vec<Compiled>, _> = chain.keys.iter().map(|&k| Compiled::new(session, k)).collect();
    let compiled = compiled?;
    let (found, inputs) = agree(session, &compiled)?;
    for ((compiled, verdicts), real_keys) in compiled.iter().zip(&found).zip(&chain.stands_for) {
        let mut of = summary(compiled, verdicts, inputs);
        for &key in real_keys {
            let plan = real.lowered(key)?;
            let layout: &Layout = &real.layout;
            let small = (&*compiled.plan, &*session.layout);
            let missing = coverage::uncovered((&plan, layout), small, session.device())?;
            of.launches += plan.launches.len();
            of.covered += plan.launches.len() - missing.len();
            report.uncovered.extend(missing);
        }
        report.launches += of.launches;
        report.covered += of.covered;
        report.programs.push(of);
    }
    Ok(())
}

/// Runs a chain until its programs agree with the reference, on other inputs only where a decision of the model lies on
/// an edge; the verdicts of each program, and the sets of inputs.
fn agree(session: &Session, chain: &[Compiled]) -> Result<(Vec<Vec<Verdict>>, u64), ValidateError> {
    let mut seed = 0;
    loop {
        let ran = run_chain(session, chain, seed)?;
        let mut all = Vec::new();
        let mut wrong = None;
        for (at, (compiled, ran)) in chain.iter().zip(&ran).enumerate() {
            let verdicts = judge(session, compiled, ran)?;
            if !verdicts.iter().all(Verdict::passed) {
                wrong = Some((at, verdicts));
                break;
            }
            all.push(verdicts);
        }
        seed += 1;
        let Some((at, verdicts)) = wrong else { return Ok((all, seed)) };
        let graph = &chain[at].reference;
        let digest = |noise| decisions(graph, &ran[at].env, (seed, noise));
        if seed == MOST_INPUTS || digest(0.0)? == digest(CLEAR)? {
            return Err(ValidateError::Differs(Box::new(difference(&chain[at], &verdicts))));
        }
    }
}

/// How close an output's error comes to its bound.
fn closeness(verdict: &Verdict) -> f64 {
    if verdict.measure.compared == 0 { 0.0 } else { verdict.measure.error / verdict.bound }
}

/// The output whose error comes closest to its bound, or is furthest beyond it.
fn worst(verdicts: &[Verdict]) -> Option<&Verdict> {
    verdicts.iter().max_by(|a, b| closeness(a).total_cmp(&closeness(b)))
}

fn difference(compiled: &Compiled, verdicts: &[Verdict]) -> Difference {
    let wrong = verdicts.iter().filter(|v| !v.passed()).count();
    let shape = compiled.key.shape().map_or(String::new(), |(batch, seq)| format!(" {batch} × {seq}"));
    let program = format!("{}{shape}", compiled.program.name);
    let Some(v) = worst(verdicts) else {
        return Difference { program, output: String::new(), wrong, error: (0.0, 0.0), values: (0.0, 0.0) };
    };
    Difference {
        program,
        output: v.part.words(),
        wrong,
        error: (v.measure.error, v.bound),
        values: (v.got, v.want),
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
