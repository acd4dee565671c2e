//! A model's programs, one after the other: reference, plans, executors, comparison.

use std::sync::Arc;
use std::time::Instant;

use pg_codegen::precision::store_as;
use pg_codegen::target::{CPU, Epilogues, H100, Target};
use pg_codegen::{Options, compile_for};
use pg_ir::interp::{Environment, Tensor};
use pg_ir::programs::{Program, Working};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;
use pg_runtime::executor::Inputs as Given;
use pg_runtime::session::{Key, Session, SessionError};
use pg_runtime::state::State;

use super::inputs::Inputs;
use super::reference::Reference;
use super::{Failure, Kind, Report, Settings, guarded};
use crate::compare::difference;
use crate::exec;

/// Lengths of rows that meet on a product's result: models are small here, so all of them.
const ANY: [usize; 24] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24];

/// Draws of weights until one keeps a model within float32.
const DRAWS: usize = 4;

pub(super) struct Checker<'a> {
    pub(super) session: Session,
    pub(super) shape: (usize, usize),
    pub(super) seed: u64,
    pub(super) settings: &'a Settings,
    pub(super) report: &'a mut Report,
}

/// One program, ready to be compared.
struct Case<'a> {
    program: &'a Program,
    inputs: &'a Inputs,
}

impl Checker<'_> {
    fn fail(&mut self, kind: Kind, place: &str, message: impl Into<String>) {
        self.report.failures.push(Failure { kind, place: place.into(), message: message.into() });
    }

    fn keys(&self) -> Vec<Key> {
        let (batch, seq) = self.shape;
        let model = &self.session.model;
        let mut keys = Vec::new();
        for phase in 0..model.phases.len() {
            let quantised = model.is_quantised(phase);
            let grad = |qat| Key::Grad { phase, batch, seq, qat, accumulate: false };
            keys.push(grad(quantised));
            if quantised && self.settings.all_programs {
                keys.push(grad(false));
            }
        }
        if self.settings.all_programs {
            keys.extend([Key::Score { batch, seq, qat: false }, Key::Update]);
            keys.extend(model.eval.ttt.is_some().then_some(Key::Adapt));
        }
        keys
    }

    pub(super) fn check(&mut self) {
        let inputs = self.inputs();
        for key in self.keys() {
            let start = Instant::now();
            let program = match guarded(|| self.session.program(key)) {
                Ok(Ok(program)) => program,
                Ok(Err(e)) => {
                    let refused = matches!(e, SessionError::Refused { .. } | SessionError::Model(_));
                    let kind = if refused { Kind::Refused } else { Kind::Error };
                    self.fail(kind, &format!("{key:?}"), e.to_string());
                    continue;
                }
                Err(words) => {
                    self.fail(Kind::Panic, &format!("{key:?}"), words);
                    continue;
                }
            };
            self.report.times.front += start.elapsed();
            self.report.coverage.graph(&program.graph);
            let next = match key {
                Key::Grad { phase, batch, seq, qat, .. } if self.settings.all_programs => {
                    self.session.program(Key::Grad { phase, batch, seq, qat, accumulate: true }).ok()
                }
                _ => None,
            };
            let case = Case { program: &program, inputs: &inputs };
            self.case(&case, next.as_ref(), DType::F32);
            if self.settings.bf16 && !matches!(key, Key::Score { .. }) {
                self.case(&case, next.as_ref(), DType::BF16);
            }
        }
    }

    /// Inputs under which a step's first program stays within float32, if there are any.
    fn inputs(&mut self) -> Inputs {
        let (batch, seq) = self.shape;
        let draw = |session: &Session, seed: u64, scale: f64| {
            Inputs::draw(&session.model, &session.layout, batch * seq, seed, scale)
        };
        let first = self.keys()[0];
        let Ok(Ok(program)) = guarded(|| self.session.program(first)) else {
            return draw(&self.session, self.seed, 1.0);
        };
        let mut scale = 1.0;
        for attempt in 0..DRAWS as u64 {
            let inputs = draw(&self.session, self.seed ^ (attempt << 56), scale);
            let fits = inputs.state(&self.session).ok().and_then(|state| {
                let env = inputs.environment(&program.graph, &state).ok()?;
                let values = pg_ir::interp::evaluate(&program.graph, &env).ok()?;
                Some(values.iter().flatten().all(|v| v.abs() <= super::reference::LARGEST))
            });
            if fits == Some(true) {
                return inputs;
            }
            scale *= 0.5;
        }
        draw(&self.session, self.seed, scale)
    }

    /// A program under one storage.
    fn case(&mut self, case: &Case<'_>, next: Option<&Program>, storage: DType) {
        let place = format!("{} in {storage}", case.program.name);
        match guarded(|| self.compare(case, next, storage)) {
            Ok(Ok(())) => {}
            Ok(Err(message)) => self.fail(Kind::Error, &place, message),
            Err(words) => self.fail(Kind::Panic, &place, words),
        }
    }

    fn compare(&mut self, case: &Case<'_>, next: Option<&Program>, storage: DType) -> Result<(), String> {
        let program = case.program;
        let start = Instant::now();
        let graph = store_as(&program.graph, storage).map_err(|e| e.to_string())?;
        self.report.times.compile += start.elapsed();
        let start = Instant::now();
        let state = case.inputs.state(&self.session).map_err(|e| e.to_string())?;
        let env = case.inputs.environment(&graph, &state)?;
        let mut reference = Reference::new(&graph, &env, self.seed)?;
        self.report.times.reference += start.elapsed();
        if !reference.is_finite() {
            self.report.not_finite += 1;
            return Ok(());
        }
        self.report.undecided += usize::from(reference.undecided > 0);
        for fuse in [false, true] {
            let how = if fuse { "fused" } else { "unfused" };
            let place = format!("{} in {storage}, {how}", program.name);
            let result = guarded(|| self.on_cpu(case, next, storage, fuse, &mut reference));
            match result {
                Ok(Ok(())) => {}
                Ok(Err(message)) => self.fail(Kind::Error, &place, message),
                Err(words) => self.fail(Kind::Panic, &place, words),
            }
        }
        if self.settings.hopper {
            let anywhere = Epilogues { rows: &ANY, of: DType::F32, chunk: 1 };
            let target = match storage {
                DType::BF16 => H100,
                _ => Target { epilogues: Some(anywhere), side_by_side: true, ..CPU },
            };
            let place = format!("{} in {storage}, as matrix units want it", program.name);
            match guarded(|| self.in_float64(program, &env, &target, &mut reference)) {
                Ok(Ok(())) => {}
                Ok(Err(message)) => self.fail(Kind::Error, &place, message),
                Err(words) => self.fail(Kind::Panic, &place, words),
            }
        }
        Ok(())
    }

    /// A plan in float64, element by element.
    fn in_float64(
        &mut self,
        program: &Program,
        env: &Environment,
        target: &Target,
        reference: &mut Reference<'_>,
    ) -> Result<(), String> {
        let start = Instant::now();
        let plan = compile_for(&program.name, &program.graph, &Options::default(), target);
        let plan = plan.map_err(|e| e.to_string())?;
        self.report.times.compile += start.elapsed();
        self.report.coverage.plan(&plan);
        let start = Instant::now();
        let mut full = env.clone();
        // What nobody wrote must not look like what was there.
        let written = program.graph.outputs.iter().map(|o| &o.slot).filter(|s| !env.contains_key(s));
        written.for_each(|s| drop(full.remove(s)));
        let found = exec::run(&plan, &full);
        self.report.times.exec += start.elapsed();
        let place = format!(
            "{} on {}",
            program.name,
            if target.name == "cpu" { "tiles in f32" } else { target.name }
        );
        for (slot, _) in reference.outputs() {
            let Some(found) = found.get(&slot).or_else(|| env.get(&slot)) else {
                self.fail(Kind::Error, &place, format!("{slot} was not written"));
                continue;
            };
            let found = found.clone();
            self.hold(&place, &slot, &found, reference);
        }
        Ok(())
    }

    /// Compares what was found with the reference, which looks again before anything is called wrong.
    fn hold(&mut self, place: &str, slot: &Slot, found: &[f64], reference: &mut Reference<'_>) {
        let Some(&value) = reference.outputs().get(slot) else { return };
        self.report.compared += 1;
        let (want, bound) = reference.value(value);
        if difference(found, want, bound).is_none() {
            return;
        }
        reference.look_again();
        let (want, bound) = reference.value(value);
        if let Some(d) = difference(found, want, bound) {
            let kind = if d.is_lost && slot.space == Space::Grad { Kind::Lost } else { Kind::Wrong };
            self.fail(kind, place, format!("{slot}: {d}"));
        }
    }

    /// A program, and the one that finds what it leaves, on the CPU's executor.
    fn on_cpu(
        &mut self,
        case: &Case<'_>,
        next: Option<&Program>,
        storage: DType,
        fuse: bool,
        reference: &mut Reference<'_>,
    ) -> Result<(), String> {
        let mut state = case.inputs.state(&self.session).map_err(|e| e.to_string())?;
        let how = if fuse { "fused" } else { "unfused" };
        let place = format!("{} in {storage}, {how}", case.program.name);
        let first = self.execute(case.program, storage, fuse, case.inputs, &mut state)?;
        for (slot, found) in &first {
            self.hold(&place, slot, found, reference);
        }
        let Some(next) = next else { return Ok(()) };
        let place = format!("{} in {storage}, {how}", next.name);
        let second = self.execute(next, storage, fuse, case.inputs, &mut state)?;
        for (slot, found) in &second {
            // What it adds is what the first one wrote.
            let old = first.iter().find(|(s, _)| s == slot && s.space == Space::Grad);
            let added: Tensor = match old {
                Some((_, old)) => found.iter().zip(old).map(|(new, old)| new - old).collect(),
                None => found.clone(),
            };
            let Some(&value) = reference.outputs().get(slot) else { continue };
            let largest = found.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            let (want, bound) = reference.value(value);
            self.report.compared += 1;
            if let Some(d) = difference(&added, want, bound + 1e-6 * largest) {
                self.fail(Kind::Wrong, &place, format!("{slot}, less what was there: {d}"));
            }
        }
        Ok(())
    }

    /// Runs one program on a state; what it wrote.
    fn execute(
        &mut self,
        program: &Program,
        storage: DType,
        fuse: bool,
        inputs: &Inputs,
        state: &mut State,
    ) -> Result<Vec<(Slot, Tensor)>, String> {
        let start = Instant::now();
        let options = Options { fuse, ..Options::default() }.of(program);
        let machine = Target { storage, ..self.session.device().machine() };
        let plan =
            compile_for(&program.name, &program.graph, &options, &machine).map_err(|e| e.to_string())?;
        self.report.coverage.plan(&plan);
        if program.working == Working::Leave {
            state.allocate_working(&plan).map_err(|e| e.to_string())?;
        }
        let executor = self.session.device().prepare(Arc::new(plan));
        let mut executor = executor.map_err(|e| e.to_string())?;
        self.report.times.compile += start.elapsed();
        let start = Instant::now();
        let (data, scalars) = (inputs.data(), inputs.scalars());
        executor.run(state, Given { data: &data, scalars: &scalars }, None).map_err(|e| e.to_string())?;
        let mut written = Vec::new();
        for output in &program.graph.outputs {
            let slot = &output.slot;
            let values = match slot.space {
                Space::Result => executor.result(&slot.name).ok_or_else(|| format!("there is no {slot}"))?,
                _ => state.get(slot).map_err(|e| e.to_string())?,
            };
            written.push((slot.clone(), values.iter().map(|&v| f64::from(v)).collect()));
        }
        self.report.times.run += start.elapsed();
        Ok(written)
    }
}
