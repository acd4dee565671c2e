//! How long compiling took, pass by pass, for `--timing`.

use std::time::Duration;

use pg_codegen::pipeline::{Pass, Timing};
use serde::Serialize;

use super::format::table;

/// What a pass took over all programs.
#[derive(Debug, Serialize)]
pub(super) struct PassTime {
    pass: &'static str,
    milliseconds: f64,
}

/// Every pass in order, after tracing and differentiation.
pub(super) fn pass_times(traced: Duration, passes: &Timing) -> Vec<PassTime> {
    let time = |pass, t: Duration| PassTime { pass, milliseconds: 1e3 * t.as_secs_f64() };
    let passes = Pass::ALL.map(|pass| time(pass.name(), passes.of(pass)));
    [time("trace and autodiff", traced)].into_iter().chain(passes).collect()
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
