//! Compiling with the clock at hand, and how long it took, pass by pass, for `--timing`.

use std::time::{Duration, Instant};

use pg_codegen::Options;
use pg_codegen::machine::Machine;
use pg_codegen::pipeline::{Pass, Timing, compile_timed};
use pg_codegen::plan::Plan;
use pg_ir::programs::Program;
use pg_runtime::session::{Key, Session};
use serde::Serialize;

use super::format::table;

/// What compiling some programs has taken so far.
#[derive(Default)]
pub(super) struct Clock {
    traced: Duration,
    passes: Timing,
}

impl Clock {
    /// A program, and its plan for a machine.
    pub(super) fn compile(
        &mut self,
        session: &Session,
        key: Key,
        options: &Options,
        machine: &Machine,
    ) -> anyhow::Result<(Program, Plan)> {
        let start = Instant::now();
        let program = session.program(key)?;
        self.traced += start.elapsed();
        let (plan, passes) = compile_timed(&program.name, &program.graph, &options.of(&program), machine)?;
        self.passes.add(&passes);
        Ok((program, plan))
    }

    /// Every pass in order, after tracing and differentiation.
    pub(super) fn times(&self) -> Vec<PassTime> {
        let time = |pass, t: Duration| PassTime { pass, milliseconds: 1e3 * t.as_secs_f64() };
        let passes = Pass::ALL.map(|pass| time(pass.name(), self.passes.of(pass)));
        [time("trace and autodiff", self.traced)].into_iter().chain(passes).collect()
    }
}

/// What a pass took over all programs.
#[derive(Debug, Serialize)]
pub(super) struct PassTime {
    pass: &'static str,
    milliseconds: f64,
}

/// Them as a table, with their sum.
pub(super) fn text(times: &[PassTime]) -> String {
    let all: f64 = times.iter().map(|t| t.milliseconds).sum();
    let row = |pass: &str, ms: f64| {
        vec![pass.to_string(), format!("{ms:.1}"), format!("{:.0} %", 100.0 * ms / all)]
    };
    let rows = times.iter().map(|t| row(t.pass, t.milliseconds)).chain([row("all", all)]);
    table(&["pass", "ms", "share"], &[1, 2], rows.collect())
}
