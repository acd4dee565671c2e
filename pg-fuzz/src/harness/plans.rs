//! One program through a plan: compiled, run by an executor or in float64, and compared.

use std::sync::Arc;
use std::time::Instant;

use pg_codegen::machine::{CPU, Epilogues, H100, Machine};
use pg_codegen::{Options, compile_for, stored};
use pg_ir::graph::Graph;
use pg_ir::interp::{Environment, Tensor};
use pg_ir::programs::{Program, WeightCache};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;
use pg_runtime::executor::Inputs as Given;
use pg_runtime::state::State;

use super::Kind;
use super::inputs::Inputs;
use super::programs::{Case, Checker};
use super::reference::Reference;
use crate::compare::difference;
use crate::exec;

/// Lengths of rows that meet on a product's result: models are small here, so all of them.
const ANY: [usize; 24] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24];

/// What a program wrote.
type Written = Vec<(Slot, Tensor)>;

impl Checker<'_> {
    /// The device's machine, storing in a type.
    pub(super) fn machine(&self, storage: DType) -> Machine {
        Machine { storage, ..self.session.device().machine().clone() }
    }

    /// The plan of a target with tensor cores in float64, element by element.
    pub(super) fn in_float64(
        &mut self,
        case: &Case<'_>,
        env: &Environment,
        place: &str,
        reference: &mut Reference<'_>,
    ) -> Result<(), String> {
        let start = Instant::now();
        let anywhere = Epilogues { rows: &ANY, of: DType::F32, chunk: 1 };
        let target = match case.storage {
            // Heads are narrow here; every second seed has tiles that take them.
            DType::BF16 if self.seed.is_multiple_of(2) => {
                Machine { epilogues: Some(Epilogues { of: DType::BF16, ..anywhere }), ..H100 }
            }
            DType::BF16 => H100,
            _ => Machine { epilogues: Some(anywhere), fuse_horizontally: true, concatenate_k: true, ..CPU },
        };
        let name = &case.program.name;
        let plan = compile_for(name, &case.program.graph, &Options::default().of(case.program), &target);
        let plan = plan.map_err(|e| e.to_string())?;
        self.report.times.compile += start.elapsed();
        self.report.coverage.plan(&plan);
        let start = Instant::now();
        let found = exec::run(&plan, env);
        self.report.times.exec += start.elapsed();
        // Where sums of dots are rounded as one, results are rounded elsewhere than by the executor; in float32 it is the
        // same reference.
        if case.storage == DType::BF16 {
            let rounded = stored(&case.program.graph, &target).map_err(|e| e.to_string())?;
            if rounded != *case.stored {
                let mut own = Reference::new(&rounded, env, self.seed)?;
                self.hold_all(case, env, place, &found, &mut own);
                return Ok(());
            }
        }
        self.hold_all(case, env, place, &found, reference);
        Ok(())
    }

    fn hold_all(
        &mut self,
        case: &Case<'_>,
        env: &Environment,
        place: &str,
        found: &Environment,
        reference: &mut Reference<'_>,
    ) {
        for output in &case.program.graph.outputs {
            match found.get(&output.slot).or_else(|| env.get(&output.slot)) {
                Some(found) => self.hold(place, &output.slot, found, reference),
                None => self.fail(Kind::Error, place, format!("{} was not written", output.slot)),
            }
        }
    }

    /// A program, and the one that finds what it leaves, on the device's executor.
    pub(super) fn on_device(
        &mut self,
        case: &Case<'_>,
        fuse: bool,
        place: &str,
        reference: &mut Reference<'_>,
    ) -> Result<(), String> {
        let mut state = case.inputs.state(&self.session).map_err(|e| e.to_string())?;
        // The fused plan as users get it; rounding the graph again for the other would take as long as compiling it.
        let graph = if fuse { &case.program.graph } else { case.stored };
        let storage = if fuse { case.storage } else { DType::F32 };
        let first = self.execute(case.program, graph, storage, fuse, case.inputs, &mut state)?;
        for (slot, found) in &first {
            self.hold(place, slot, found, reference);
        }
        // Cached weights are left by the fused plan.
        if let (Some(next), true) = (case.next, fuse) {
            let before = case.inputs.environment(&next.graph, &state)?;
            let second = self.execute(next, &next.graph, storage, fuse, case.inputs, &mut state)?;
            let place = format!("{} in {storage}", next.name);
            self.accumulated(next, &first, &second, (&place, storage), before, reference)?;
        }
        Ok(())
    }

    /// Gradients that were added to what the first program wrote. The reference is the first program's; where a
    /// graph's roundings differ, its own.
    fn accumulated(
        &mut self,
        next: &Program,
        first: &Written,
        second: &Written,
        (place, storage): (&str, DType),
        before: Environment,
        reference: &mut Reference<'_>,
    ) -> Result<(), String> {
        let mut suspects = Vec::new();
        for (slot, found) in second {
            let Some(value) = reference.output(slot) else { continue };
            let old = first.iter().find(|(s, _)| s == slot && s.space == Space::Grad);
            let added: Tensor = match old {
                Some((_, old)) => found.iter().zip(old).map(|(new, old)| new - old).collect(),
                None => found.clone(),
            };
            let largest = found.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
            let (want, bound) = reference.value(value);
            self.report.compared += 1;
            if difference(&added, want, bound + 1e-6 * largest).is_some() {
                suspects.push((slot, found));
            }
        }
        if suspects.is_empty() {
            return Ok(());
        }
        let graph = stored(&next.graph, &self.machine(storage)).map_err(|e| e.to_string())?;
        let mut own = Reference::new(&graph, &before, self.seed)?;
        reference.look_again();
        for (slot, found) in suspects {
            // What the first program gave may have been off by anything.
            match reference.is_ill_conditioned(slot, 0.0) {
                true => self.report.ill_conditioned += 1,
                false => self.hold(place, slot, found, &mut own),
            }
        }
        Ok(())
    }

    /// Runs one program on a state; what it wrote.
    pub(super) fn execute(
        &mut self,
        program: &Program,
        graph: &Graph,
        storage: DType,
        fuse: bool,
        inputs: &Inputs,
        state: &mut State,
    ) -> Result<Written, String> {
        let start = Instant::now();
        let options = Options { fuse, ..Options::default() }.of(program);
        let machine = self.machine(storage);
        let plan = compile_for(&program.name, graph, &options, &machine).map_err(|e| e.to_string())?;
        self.report.coverage.plan(&plan);
        if program.weight_cache == WeightCache::Write {
            state.allocate_cached_weights(&plan).map_err(|e| e.to_string())?;
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
