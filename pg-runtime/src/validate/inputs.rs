//! Seeded inputs of a program: parameters and the rest of its state, tokens, scalars.
//!
//! They must carry signal everywhere. Initial values will not do: a projection that starts at zero hides whatever is
//! wrong before it. What is quantised lies near its grid's codes, so that rounding in float32 cannot move it to
//! another code. Like all random numbers they are keyed, by purpose, seed and name.

use std::collections::BTreeSet;

use pg_ir::graph::Graph;
use pg_ir::interp::Environment;
use pg_ir::lang::model::{Init, Model, Param};
use pg_ir::quant::Grid;
use pg_ir::slot::{Slot, Space};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;

use crate::init::generator;
use crate::session::{Session, SessionError};
use crate::state::State;

/// Largest distance from a code, in steps of the grid; from ½ on it is another code.
const FROM_CODE: f32 = 0.4;

/// Of so many positions about so many tokens are different: rows of a table are read, and summed into, more than once.
const REPEATED: usize = 4;

/// What a program is given beside its state.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    pub(super) data: Vec<(String, Vec<i32>)>,
    pub(super) scalars: Vec<(String, f32)>,
}

/// Numbers in −1 … 1.
struct Uniform(ChaCha8Rng);

impl Uniform {
    fn new(seed: u64, slot: &Slot) -> Uniform {
        Uniform(generator(seed, &format!("validate {}", slot.space), &slot.name))
    }

    fn next(&mut self) -> f32 {
        // 24 bits: exact in float32.
        (self.0.next_u32() >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

/// A state with room for what a program reads and writes, filled; what it only writes is not a number.
pub(super) fn state(session: &Session, graph: &Graph, seed: u64) -> Result<State, SessionError> {
    let read: BTreeSet<Space> = graph.inputs().map(|(slot, _)| slot.space).collect();
    let written = graph.outputs.iter().map(|o| o.slot.space);
    let spaces: BTreeSet<Space> = read.iter().copied().chain(written).filter(|s| s.is_state()).collect();
    let spaces: Vec<Space> = spaces.into_iter().collect();
    let mut state = session.state(&spaces)?;
    for &space in &spaces {
        for param in session.model.params.values() {
            let slot = Slot::new(space, &param.name);
            // What an optimiser keeps has only what it updates.
            let Ok(memory) = state.get_mut(&slot) else { continue };
            match read.contains(&space) {
                true => fill(&session.model, param, &slot, seed, memory),
                false => memory.fill(f32::NAN),
            }
        }
    }
    Ok(state)
}

/// Fills a parameter's stretch of a space.
fn fill(model: &Model, param: &Param, slot: &Slot, seed: u64, memory: &mut [f32]) {
    let mut uniform = Uniform::new(seed, slot);
    let (_, cols) = param.matrix();
    // Of a uniform number in −1 … 1 the standard deviation is 1/√3.
    let unit = (3.0 / cols as f32).sqrt();
    let (centre, spread) = match slot.space {
        Space::Param => match param.init {
            Init::Constant(c) if param.shape.len() > 1 => (c as f32, 0.5 * unit),
            Init::Constant(c) => (c as f32, 0.25),
            Init::Normal { std } if std > 0.0 => (0.0, std as f32 * 3f32.sqrt()),
            _ => (0.0, unit),
        },
        _ => (0.0, 0.1),
    };
    memory.iter_mut().for_each(|x| *x = centre + spread * uniform.next());
    match (slot.space, param.init) {
        (Space::Param, Init::FirstRow { first, rest }) => {
            for (i, x) in memory.iter_mut().enumerate() {
                *x = 0.25 * *x / unit + if i < cols { first } else { rest } as f32;
            }
        }
        (Space::Param, _) => {
            // Several phases may quantise it: the coarsest grid's codes are the furthest apart.
            let grids = (0..model.phases.len()).flat_map(|phase| model.quantised_in(phase));
            let coarsest = grids.filter(|(name, _)| *name == param.name).map(|g| g.1).min_by_key(|g| g.clip);
            if let Some(grid) = coarsest {
                memory.chunks_mut(cols).for_each(|row| near_codes(row, grid));
            }
        }
        (Space::Variance, _) => memory.iter_mut().for_each(|x| *x = x.abs() + 1e-4),
        _ => {}
    }
}

/// Moves a row's values to within [`FROM_CODE`] of a code.
fn near_codes(row: &mut [f32], grid: Grid) {
    let step = grid.row_scale(row);
    for x in row {
        let code = (*x / step).round();
        *x = (code + (*x / step - code) * (2.0 * FROM_CODE)) * step;
    }
}

/// Tokens and scalars of a program; another number gives other ones.
pub(super) fn given(model: &Model, graph: &Graph, seed: u64, number: usize) -> Given {
    let mut given = Given::default();
    for (slot, value) in graph.inputs() {
        let mut uniform = Uniform::new(seed, &Slot::new(slot.space, format!("{} {number}", slot.name)));
        match slot.space {
            Space::Data => {
                let (len, last) = (graph.ty(value).len(), model.vocab - 1);
                let mut any = || (uniform.0.next_u32() as usize) % model.vocab;
                // The ends of a table, too.
                let mut some: Vec<usize> = (0..len / REPEATED * (REPEATED - 1)).map(|_| any()).collect();
                some.extend([0, last]);
                let ids = (0..len).map(|_| some[uniform.0.next_u32() as usize % some.len()] as i32);
                given.data.push((slot.name.clone(), ids.collect()));
            }
            Space::Scalar => given.scalars.push((slot.name.clone(), scalar(model, &slot.name, &mut uniform))),
            _ => {}
        }
    }
    given
}

/// A run-time scalar: a factor that is not 1, or a rate so high that a step moves the weights by their own size.
fn scalar(model: &Model, name: &str, uniform: &mut Uniform) -> f32 {
    let factor = 0.625 + 0.25 * uniform.next();
    match name {
        "lr_scale" => {
            let highest = model.params.values().map(|param| param.optimiser.lr()).fold(0.0, f64::max);
            if highest > 0.0 { factor / highest as f32 } else { factor }
        }
        _ => factor,
    }
}

/// Everything that a program is about to read, in float64.
pub(super) fn environment(graph: &Graph, state: &State, given: &Given) -> Result<Environment, SessionError> {
    let mut env = Environment::new();
    for (slot, _) in graph.inputs() {
        let values: Vec<f64> = match slot.space {
            Space::Data => {
                let ids = given.data.iter().find(|(name, _)| *name == slot.name);
                ids.into_iter().flat_map(|(_, ids)| ids).map(|&id| f64::from(id)).collect()
            }
            Space::Scalar => {
                given.scalars.iter().filter(|(name, _)| *name == slot.name).map(|s| f64::from(s.1)).collect()
            }
            _ => state.get(slot)?.iter().map(|&x| f64::from(x)).collect(),
        };
        env.insert(slot.clone(), values);
    }
    Ok(env)
}
