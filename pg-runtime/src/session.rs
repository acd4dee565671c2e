//! A session: one model's programs, compiled ahead, and a way to run them on a state.
//!
//! Every program is verified before it is compiled: graph invariants, that each quantised parameter is
//! read through its quantiser, and that no score can depend on a later token.

mod error;
mod key;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

#[cfg(feature = "cube")]
use pg_codegen::kernels::Generations;
use pg_codegen::machine::Machine;
use pg_codegen::plan::Plan;
use pg_codegen::{Options, compile_for};
use pg_ir::lang::layout::Layout;
use pg_ir::lang::model::Model;
use pg_ir::programs::{self, Program};
use pg_ir::refusal::Refusal;
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;
use pg_ir::verify;

use crate::device::Device;
use crate::executor::{Executor, Inputs, Observe};
#[cfg(feature = "cube")]
use crate::gpu::{CubeExecError, offline, recipe};
use crate::init::initialise_all;
use crate::state::{Segment, State, StateError};
use crate::weights::Weights;

pub use self::error::SessionError;
pub use self::key::Key;

/// A program that has run.
pub struct Ran<'a>(&'a dyn Executor);

impl<'a> Ran<'a> {
    /// What the program gave under a name.
    ///
    /// # Panics
    /// If it gives no such result: a bug of the caller, which knows the program.
    pub fn result(&self, name: &str) -> &'a [f32] {
        self.0.result(name).unwrap_or_else(|| panic!("internal error: the program has no result `{name}`"))
    }
}

/// Bound on the tokens of one scoring batch: enough rows for the matmuls, little enough memory.
const SCORE_TOKENS: usize = 8192;

/// The programs of a model.
pub struct Session {
    /// The model.
    pub model: Arc<Model>,
    /// Where its parameters lie.
    pub layout: Arc<Layout>,
    /// Seconds spent compiling so far.
    pub compile_seconds: f64,
    options: Options,
    /// How training's programs store activations and operands.
    storage: DType,
    device: Device,
    /// Plans of programs that may not be prepared yet.
    plans: HashMap<Key, Arc<Plan>>,
    programs: HashMap<Key, Box<dyn Executor>>,
}

impl Session {
    /// A session without programs yet, on the CPU.
    pub fn new(model: Arc<Model>, options: Options) -> Session {
        Session::on(Device::cpu(), model, options)
    }

    /// A session without programs yet, on a device.
    pub fn on(device: Device, model: Arc<Model>, options: Options) -> Session {
        let layout = Arc::new(Layout::new(&model));
        Session {
            model,
            layout,
            compile_seconds: 0.0,
            options,
            storage: device.machine().storage,
            device,
            plans: HashMap::new(),
            programs: HashMap::new(),
        }
    }

    /// A session of the same model on the same device, without programs yet.
    pub fn fork(&self) -> Session {
        let forked = Session::on(self.device.clone(), self.model.clone(), self.options.clone());
        forked.storing(self.storage)
    }

    /// The same session, whose programs store activations and operands as `storage`, not as the device likes best,
    /// and still compute in float32. Scoring programs follow only where tensor cores want it.
    pub fn storing(self, storage: DType) -> Session {
        Session { storage, ..self }
    }

    /// Where its programs run.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How its training programs store activations and operands.
    pub fn storage(&self) -> DType {
        self.storage
    }

    /// Checks that the device's bundle, if it has one, holds every kernel that programs will ask for.
    pub fn check_bundle(
        &self,
        #[cfg_attr(not(feature = "cube"), expect(unused, reason = "no bundle is ever open"))] keys: &[Key],
    ) -> Result<(), SessionError> {
        #[cfg(feature = "cube")]
        if let Some(ahead) = self.device.ahead() {
            ahead.bundle().check(&recipe(&[(self, keys)])?)?;
        }
        Ok(())
    }

    /// In words, where the programs prepared so far ran.
    pub fn placement(&self) -> String {
        let sum = |count: fn(&dyn Executor) -> usize| self.programs.values().map(|p| count(p.as_ref())).sum();
        let (launches, on_host): (usize, usize) =
            (sum(|p| p.plan().launches.len()), sum(|p| p.host_launches()));
        let (name, what) = (self.device.name(), self.device.description());
        let programs = self.programs.len();
        format!(
            "{name} ({what}): {launches} launches of {programs} programs, {on_host} of them on the host instead"
        )
    }

    /// Sequences of one scoring batch at a window length.
    pub fn score_batch(&self, seq: usize) -> usize {
        (SCORE_TOKENS / seq).max(1)
    }

    /// The verified graph of a program.
    pub fn program(&self, key: Key) -> Result<Program, SessionError> {
        let model = &self.model;
        let last = model.phases.len() - 1;
        let program = match key {
            Key::Grad { phase, batch, seq, qat, accumulate } => {
                programs::grad(model, phase, (batch, seq), qat, accumulate).map_err(SessionError::Model)?
            }
            Key::ScoreGrad { batch, seq, qat, accumulate } => {
                programs::score_grad(model, (batch, seq), qat, accumulate).map_err(SessionError::Model)?
            }
            Key::Update => programs::update(&self.layout, &model.train),
            Key::Score { batch, seq, qat } => {
                programs::score(model, last, (batch, seq), qat).map_err(SessionError::Model)?
            }
            Key::Logits { batch, seq, qat } => {
                programs::logits(model, last, (batch, seq), qat).map_err(SessionError::Model)?
            }
            Key::Adapt => {
                let ttt = model.eval.ttt.as_ref().ok_or(SessionError::NoTtt)?;
                programs::adapt(model, &self.layout, ttt)
            }
        };
        self.prove(key, &program)
            .map_err(|refusal| SessionError::Model(model.refused(&program.name, key.shape(), &refusal)))?;
        Ok(program)
    }

    fn prove(&self, key: Key, program: &Program) -> Result<(), Refusal> {
        let (phase, qat) = match key {
            Key::Grad { phase, qat, .. } => (phase, qat),
            Key::ScoreGrad { qat, .. } | Key::Score { qat, .. } | Key::Logits { qat, .. } => {
                verify::stored(&self.model, program)?;
                (self.model.phases.len() - 1, qat)
            }
            Key::Update | Key::Adapt => return verify::verify(&program.graph),
        };
        verify::prove(&self.model, phase, qat, program)
    }

    /// The plan of a program, as [`Self::prepare`] gives it to the device.
    pub fn lower(&self, key: Key) -> Result<Plan, SessionError> {
        self.lower_with(key, &self.options)
    }

    /// [`Self::lower`] with other options.
    pub fn lower_with(&self, key: Key, options: &Options) -> Result<Plan, SessionError> {
        let program = self.program(key)?;
        Ok(compile_for(&program.name, &program.graph, &options.of(&program), &self.machine_of(key))?)
    }

    /// The machine that a program is compiled for: the device, storing as the session does.
    pub fn machine_of(&self, key: Key) -> Machine {
        Machine { storage: self.storage_of(key), ..self.device.machine().clone() }
    }

    /// How a program stores activations and operands. Scores are float32, so that they can be compared, but where
    /// the device's tensor cores take nothing but bfloat16: there float32 would not end within an evaluation's time.
    fn storage_of(&self, key: Key) -> DType {
        match key {
            Key::Grad { .. } | Key::ScoreGrad { .. } | Key::Update | Key::Adapt => self.storage,
            Key::Score { .. } | Key::Logits { .. } => match self.device.machine().storage {
                DType::BF16 => self.storage,
                _ => DType::F32,
            },
        }
    }

    /// A program's plan, and the launches that an executor on the session's device makes of it: none where the
    /// device runs plans as they are.
    #[cfg(feature = "cube")]
    pub fn generate(&self, key: Key) -> Result<(Plan, Generations), SessionError> {
        let plan = self.lower(key)?;
        if self.device.runs_plans_as_they_are() {
            return Ok((plan, Generations::default()));
        }
        let made = offline(&plan, &self.layout, self.device.machine());
        let made = made.map_err(|e| crate::executor::ExecError::from(CubeExecError::launch(&plan, e)))?;
        Ok((plan, made))
    }

    /// Compiles a program, if that has not been done.
    pub fn prepare(&mut self, key: Key) -> Result<(), SessionError> {
        if self.programs.contains_key(&key) {
            return Ok(());
        }
        let plan = self.lowered(key)?;
        let start = Instant::now();
        let executor = self.device.prepare(plan)?;
        self.plans.remove(&key);
        self.programs.insert(key, executor);
        self.compile_seconds += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// The plan of a program, which is kept until the program is prepared. The device hears nothing of it.
    pub fn lowered(&mut self, key: Key) -> Result<Arc<Plan>, SessionError> {
        if let Some(plan) = self.programs.get(&key).map(|p| p.plan()).or_else(|| self.plans.get(&key)) {
            return Ok(plan.clone());
        }
        let start = Instant::now();
        let plan = Arc::new(self.lower(key)?);
        self.keep(key, plan.clone(), start.elapsed().as_secs_f64());
        Ok(plan)
    }

    /// Whether [`Self::lowered`] has nothing left to do.
    pub(crate) fn is_lowered(&self, key: Key) -> bool {
        self.programs.contains_key(&key) || self.plans.contains_key(&key)
    }

    /// Takes in a program's plan that a [fork](Self::fork) has lowered, in so many seconds.
    pub(crate) fn keep(&mut self, key: Key, plan: Arc<Plan>, seconds: f64) {
        self.plans.insert(key, plan);
        self.compile_seconds += seconds;
    }

    /// Forgets a program and its memory.
    pub fn forget(&mut self, unwanted: impl Fn(&Key) -> bool) {
        self.programs.retain(|key, _| !unwanted(key));
    }

    /// Runs a program, compiling it first if need be. The results can be read until its next run.
    pub fn run(
        &mut self,
        key: Key,
        state: &mut State,
        data: &[(&str, &[i32])],
        scalars: &[(&str, f32)],
    ) -> Result<Ran<'_>, SessionError> {
        self.run_observed(key, state, Inputs { data, scalars }, None)
    }

    /// [`Self::run`], calling `observe` after each launch.
    pub fn run_timed(
        &mut self,
        key: Key,
        state: &mut State,
        data: &[(&str, &[i32])],
        scalars: &[(&str, f32)],
        observe: &mut Observe<'_>,
    ) -> Result<Ran<'_>, SessionError> {
        self.run_observed(key, state, Inputs { data, scalars }, Some(observe))
    }

    fn run_observed(
        &mut self,
        key: Key,
        state: &mut State,
        inputs: Inputs<'_>,
        observe: Option<&mut Observe<'_>>,
    ) -> Result<Ran<'_>, SessionError> {
        self.prepare(key)?;
        let executor = self.programs.get_mut(&key).expect("prepared just now");
        let begun = match key {
            Key::Grad { phase, qat, .. } => Some((Some(phase), qat)),
            Key::ScoreGrad { qat, .. } => Some((None, qat)),
            Key::Update | Key::Adapt => None,
            Key::Score { .. } | Key::Logits { .. } => state.begun,
        };
        match key {
            Key::Grad { accumulate: true, .. } | Key::ScoreGrad { accumulate: true, .. }
                if state.begun != begun =>
            {
                return Err(SessionError::NotBegun(executor.plan().program.clone()));
            }
            Key::Grad { accumulate: false, .. } | Key::ScoreGrad { accumulate: false, .. } => {
                state.allocate_cached_weights(executor.plan())?
            }
            _ => {}
        }
        // A run that fails has begun nothing.
        state.begun = None;
        executor.run(state, inputs, observe)?;
        state.begun = begun;
        Ok(Ran(&**executor))
    }

    /// The plan of a program, compiled if need be.
    pub fn plan(&mut self, key: Key) -> Result<&Arc<Plan>, SessionError> {
        self.prepare(key)?;
        Ok(self.programs[&key].plan())
    }

    /// A state with room for `spaces` of every bank that keeps them.
    pub fn state(&self, spaces: &[Space]) -> Result<State, SessionError> {
        let aliases = self.model.params.keys().map(|name| {
            let (bank, offset, len) = self.layout.resolve(name).expect("every parameter is laid out");
            (name.clone(), Segment { bank: bank.to_string(), offset, len })
        });
        let mut state = State::new(aliases);
        for bank in &self.layout.banks {
            for &space in spaces.iter().filter(|space| bank.keeps(**space)) {
                state.allocate(space, &bank.name, bank.ty().len())?;
            }
        }
        Ok(state)
    }

    /// A state that holds `weights` and what scoring needs.
    pub fn state_with(&self, weights: &Weights, spaces: &[Space]) -> Result<State, SessionError> {
        let mut state = self.state(spaces)?;
        self.write_weights(&mut state, Space::Param, weights)?;
        Ok(state)
    }

    /// Initial weights of the model for a seed; an error where memory cannot hold them.
    pub fn initial_weights(&self, seed: u64) -> Result<Weights, SessionError> {
        Ok(initialise_all(&self.model.params, seed).map_err(StateError::from)?)
    }

    /// Writes parameters by name into a space.
    pub fn write_weights(
        &self,
        state: &mut State,
        space: Space,
        weights: &Weights,
    ) -> Result<(), SessionError> {
        for (name, values) in weights {
            state.get_mut(&Slot::new(space, name))?.copy_from_slice(values);
        }
        Ok(())
    }

    /// Reads every parameter by name from a space.
    pub fn read_weights(&self, state: &State, space: Space) -> Result<Weights, SessionError> {
        let read = |name: &String| Ok((name.clone(), state.get(&Slot::new(space, name))?.to_vec()));
        self.model.params.keys().map(read).collect()
    }
}
