//! A model's programs, one after the other: which of them, in which storage, through which plans.

use std::time::Instant;

use pg_codegen::stored;
use pg_ir::graph::Graph;
use pg_ir::programs::Program;
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;
use pg_runtime::device::DeviceName;
use pg_runtime::session::{Key, Session, SessionError};

use super::derivative::{self, Verdict};
use super::inputs::Inputs;
use super::reference::{LARGEST, Reference};
use super::{Kind, Report, Settings, guarded};
use crate::compare::difference;

/// Draws of weights until one keeps a model within float32.
const DRAWS: u64 = 4;

/// One seed in so many has the weights with which its training starts: zeros where a text says zeros.
const AS_TRAINING_STARTS: u64 = 8;

pub(super) struct Checker<'a> {
    pub(super) session: Session,
    pub(super) shape: (usize, usize),
    pub(super) seed: u64,
    pub(super) settings: &'a Settings,
    pub(super) report: &'a mut Report,
}

/// How much of a program is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Depth {
    /// Fused alone.
    Fused,
    /// Fused and unfused, and as tensor cores want it.
    Full,
}

/// One program in one storage.
pub(super) struct Case<'a> {
    pub(super) program: &'a Program,
    /// The program of a step's other micro-batches, which finds what this one leaves.
    pub(super) next: Option<&'a Program>,
    /// The program's graph as it is stored.
    pub(super) stored: &'a Graph,
    pub(super) storage: DType,
    pub(super) inputs: &'a Inputs,
    pub(super) depth: Depth,
}

impl Checker<'_> {
    pub(super) fn fail(&mut self, kind: Kind, place: &str, message: impl Into<String>) {
        self.report.fail(kind, place, message);
    }

    /// Runs a part of the search, whose errors and panics are findings.
    pub(super) fn part(&mut self, place: &str, f: impl FnOnce(&mut Self) -> Result<(), String>) {
        match guarded(|| f(self)) {
            Ok(Ok(())) => {}
            Ok(Err(message)) => self.fail(Kind::Error, place, message),
            Err(words) => self.fail(Kind::Panic, place, words),
        }
    }

    pub(super) fn keys(&self) -> Vec<(Key, Depth)> {
        let (batch, seq) = self.shape;
        let model = &self.session.model;
        let mut keys = Vec::new();
        for phase in 0..model.phases.len() {
            let quantised = model.is_quantised(phase);
            let grad = |qat| Key::Grad { phase, batch, seq, qat, accumulate: false };
            keys.push((grad(quantised), if phase == 0 { Depth::Full } else { Depth::Fused }));
            if quantised {
                keys.push((grad(false), Depth::Fused));
            }
        }
        if self.settings.all_programs {
            keys.extend([(Key::Score { batch, seq, qat: false }, Depth::Full), (Key::Update, Depth::Full)]);
            keys.extend(model.eval.ttt.is_some().then_some((Key::Adapt, Depth::Fused)));
        } else {
            keys.truncate(1);
        }
        keys
    }

    fn program(&mut self, key: Key) -> Option<Program> {
        let start = Instant::now();
        let place = format!("{key:?}");
        let found = match guarded(|| self.session.program(key)) {
            Ok(Ok(program)) => Some(program),
            Ok(Err(e)) => {
                let refused = matches!(e, SessionError::Model(_));
                self.fail(if refused { Kind::Refused } else { Kind::Error }, &place, e.to_string());
                None
            }
            Err(words) => {
                self.fail(Kind::Panic, &place, words);
                None
            }
        };
        self.report.times.front += start.elapsed();
        found
    }

    pub(super) fn check(&mut self) {
        let mut inputs = None;
        for (key, depth) in self.keys() {
            let Some(program) = self.program(key) else { continue };
            self.report.coverage.graph(&program.graph);
            let next = match key {
                Key::Grad { phase, batch, seq, qat, .. } if depth == Depth::Full => {
                    self.program(Key::Grad { phase, batch, seq, qat, accumulate: true })
                }
                _ => None,
            };
            let inputs = inputs.get_or_insert_with(|| self.inputs(&program));
            // Scores are float32 wherever there are no tensor cores.
            let is_stored = self.settings.bf16 && !matches!(key, Key::Score { .. });
            for storage in [Some(DType::F32), is_stored.then_some(DType::BF16)].into_iter().flatten() {
                let place = format!("{} in {storage}", program.name);
                self.part(&place, |this| {
                    let start = Instant::now();
                    let stored = stored(&program.graph, &this.machine(storage)).map_err(|e| e.to_string())?;
                    this.report.times.compile += start.elapsed();
                    let (program, next, stored) = (&program, next.as_ref(), &stored);
                    this.case(&Case { program, next, stored, storage, inputs, depth })
                });
            }
        }
    }

    /// Inputs under which a program stays within float32, if there are any.
    pub(super) fn inputs(&mut self, program: &Program) -> Inputs {
        let (batch, seq) = self.shape;
        let start = Instant::now();
        let draw = |session: &Session, attempt: u64| {
            let scale = 0.5_f64.powi(attempt as i32);
            let seed = self.seed ^ (attempt << 56);
            Inputs::draw(&session.model, &session.layout, batch * seq, seed, scale)
        };
        let mut inputs = draw(&self.session, 0);
        if self.seed % AS_TRAINING_STARTS == 1 {
            inputs.start(&self.session, self.seed);
        }
        for attempt in 1..DRAWS {
            let fits = inputs.state(&self.session).ok().and_then(|state| {
                let env = inputs.environment(&program.graph, &state).ok()?;
                let values = pg_ir::interp::evaluate(&program.graph, &env).ok()?;
                Some(values.iter().flatten().all(|v| v.abs() <= LARGEST))
            });
            if fits == Some(true) {
                break;
            }
            inputs = draw(&self.session, attempt);
        }
        self.report.times.reference += start.elapsed();
        inputs
    }

    /// A program under one storage.
    fn case(&mut self, case: &Case<'_>) -> Result<(), String> {
        let start = Instant::now();
        let state = case.inputs.state(&self.session).map_err(|e| e.to_string())?;
        let env = case.inputs.environment(case.stored, &state)?;
        let mut reference = Reference::new(case.stored, &env, self.seed)?;
        self.report.times.reference += start.elapsed();
        if !reference.is_finite() {
            self.report.not_finite += 1;
            return Ok(());
        }
        // Rounding to bfloat16 has no slope.
        if case.storage == DType::F32 && case.stored.outputs.iter().any(|o| o.slot.space == Space::Grad) {
            let start = Instant::now();
            match derivative::check(case.stored, &env, &reference, self.seed) {
                Verdict::Right => self.report.compared += 1,
                Verdict::Kink => self.report.kinks += 1,
                Verdict::Wrong(message) => self.fail(Kind::Wrong, &case.program.name, message),
            }
            self.report.times.reference += start.elapsed();
        }
        let undecided = usize::from(reference.undecided > 0);
        match case.storage {
            DType::F32 => self.report.undecided += undecided,
            _ => self.report.undecided_bf16 += undecided,
        }
        let name = format!("{} in {}", case.program.name, case.storage);
        for fuse in [false, true] {
            let is_cpu = self.session.device().name() == DeviceName::Cpu;
            if fuse || (is_cpu && case.depth == Depth::Full) {
                let place = format!("{name}, {}", if fuse { "fused" } else { "unfused" });
                self.part(&place, |this| this.on_device(case, fuse, &place, &mut reference));
            }
        }
        if self.settings.hopper && case.depth == Depth::Full {
            let place = format!("{name}, as tensor cores want it");
            self.part(&place, |this| this.in_float64(case, &env, &place, &mut reference));
        }
        Ok(())
    }

    /// Compares what was found with the reference, which looks again before anything is called wrong.
    pub(super) fn hold(&mut self, place: &str, slot: &Slot, found: &[f64], reference: &mut Reference<'_>) {
        let Some(value) = reference.output(slot) else { return };
        self.report.compared += 1;
        let (want, bound) = reference.value(value);
        if difference(found, want, bound).is_none() {
            return;
        }
        reference.look_again();
        let (want, bound) = reference.value(value);
        let Some(d) = difference(found, want, bound) else { return };
        if reference.is_ill_conditioned(slot, d.error()) {
            self.report.ill_conditioned += 1;
            return;
        }
        let kind = if d.is_lost && slot.space == Space::Grad { Kind::Lost } else { Kind::Wrong };
        self.fail(kind, place, format!("{slot}: {d}"));
    }
}
