//! Numbers for every input of a model's programs: tokens, and state in which no parameter is zero, so that no
//! gradient is zero for a trivial reason.

use std::collections::HashMap;

use pg_ir::graph::Graph;
use pg_ir::interp::Environment;
use pg_ir::lang::layout::Layout;
use pg_ir::lang::model::Model;
use pg_ir::programs::bias_scalar;
use pg_ir::slot::{Slot, Space};
use pg_runtime::session::{Session, SessionError};
use pg_runtime::state::State;

use crate::rng::Rng;

/// What a call supplies, and what state holds before it.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    pub(crate) tokens: Vec<i32>,
    pub(crate) targets: Vec<i32>,
    pub(crate) scalars: Vec<(String, f32)>,
    /// Banks by space, and parameters by name.
    pub(crate) state: HashMap<Slot, Vec<f32>>,
}

/// What lives between calls, but for cached weights, which programs leave for each other.
fn spaces() -> impl Iterator<Item = Space> {
    Space::all().filter(|space| space.is_state() && *space != Space::CachedWeight)
}

impl Inputs {
    /// Drawn for a model. `scale` shrinks weights where they would take a model beyond float32.
    pub(crate) fn draw(model: &Model, layout: &Layout, tokens: usize, seed: u64, scale: f64) -> Inputs {
        let mut rng = Rng::of(seed, "tokens");
        let mut ids = || (0..tokens).map(|_| rng.below(model.vocab) as i32).collect();
        let (tokens, targets) = (ids(), ids());
        let mut state = HashMap::new();
        for bank in &layout.banks {
            for space in spaces().filter(|space| *space != Space::Param) {
                let slot = Slot::new(space, bank.name.clone());
                let mut rng = Rng::of(seed, &slot.to_string());
                let is_positive = slot.space == Space::Variance;
                let mut value = || match rng.float() {
                    v if is_positive => 0.01 + 0.1 * v.abs(),
                    v => 0.5 * v,
                };
                let values = (0..bank.ty().len()).map(|_| value() as f32).collect();
                state.insert(slot, values);
            }
        }
        for param in model.params.values() {
            let mut rng = Rng::of(seed, &param.name);
            let (rows, cols) = param.matrix();
            // A row's product with a vector of ones is about one.
            let std = if rows > 1 { (3.0 / cols as f64).sqrt() } else { 1.2 };
            let mut value = || {
                let v = rng.float();
                // Nothing next to zero.
                std * scale * if v.abs() < 0.01 { v + 0.02_f64.copysign(v) } else { v }
            };
            let values = (0..param.len()).map(|_| value() as f32).collect();
            state.insert(Slot::new(Space::Param, param.name.clone()), values);
        }
        let mut scalars: Vec<(String, f32)> = [
            ("inv_accum", 0.5),
            ("lr_scale", 0.7),
            ("momentum", 0.9),
            ("ema_decay", model.train.ema_decay as f32),
            ("ema_rest", 1.0 - model.train.ema_decay as f32),
            ("ttt_lr", 0.01),
        ]
        .map(|(n, v)| (n.to_string(), v))
        .to_vec();
        for bank in &layout.banks {
            for beta in bank.optimiser.bias_corrected() {
                scalars.push((bias_scalar(beta), (1.0 - beta.powi(3)) as f32));
            }
        }
        Inputs { tokens, targets, scalars, state }
    }

    /// The weights with which the model's training starts.
    pub(crate) fn start(&mut self, session: &Session, seed: u64) {
        for (name, values) in session.initial_weights(seed).expect("generated models are small") {
            self.state.insert(Slot::new(Space::Param, name), values);
        }
    }

    /// A state that holds them.
    pub(crate) fn state(&self, session: &Session) -> Result<State, SessionError> {
        let mut state = session.state(&spaces().collect::<Vec<_>>())?;
        let banks: Vec<Slot> = state.banks().map(|(slot, _)| slot).collect();
        let params = self.state.keys().filter(|s| s.space == Space::Param).cloned();
        for slot in banks.into_iter().filter(|s| s.space != Space::Param).chain(params) {
            if let Some(values) = self.state.get(&slot) {
                state.get_mut(&slot)?.copy_from_slice(values);
            }
        }
        Ok(state)
    }

    /// What a graph reads, from here and from state.
    pub(crate) fn environment(&self, graph: &Graph, state: &State) -> Result<Environment, String> {
        let mut env = Environment::new();
        for (slot, _) in graph.inputs() {
            let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let ids = |v: &[i32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let values = match slot.space {
                Space::Data if slot.name == "tokens" => ids(&self.tokens),
                Space::Data => ids(&self.targets),
                Space::Scalar => {
                    let found = self.scalars.iter().find(|(n, _)| *n == slot.name);
                    vec![f64::from(found.ok_or_else(|| format!("nobody gives {slot}"))?.1)]
                }
                _ => wide(state.get(slot).map_err(|e| e.to_string())?),
            };
            env.insert(slot.clone(), values);
        }
        Ok(env)
    }

    /// As executors take them.
    pub(crate) fn data(&self) -> [(&str, &[i32]); 2] {
        [("tokens", &self.tokens), ("targets", &self.targets)]
    }

    /// As executors take them.
    pub(crate) fn scalars(&self) -> Vec<(&str, f32)> {
        self.scalars.iter().map(|(n, v)| (n.as_str(), *v)).collect()
    }
}
