//! The last timed step as a trace that Chrome (`chrome://tracing`) and Perfetto open: one event a launch, one
//! track a program.

use serde_json::{Value, json};

use super::Profile;

/// The trace as a JSON object of the Trace Event Format.
pub fn trace(profile: &Profile) -> Value {
    let mut tracks: Vec<&str> = Vec::new();
    let mut events = Vec::new();
    for launch in &profile.launches {
        let track = tracks.iter().position(|t| *t == launch.program).unwrap_or_else(|| {
            tracks.push(&launch.program);
            tracks.len() - 1
        });
        for (start, duration) in &launch.last {
            let micros = duration.as_secs_f64() * 1e6;
            events.push(json!({
                "name": format!("{} {}", launch.scope, launch.family),
                "cat": launch.family,
                "ph": "X",
                "pid": 1,
                "tid": track + 1,
                "ts": start.as_secs_f64() * 1e6,
                "dur": micros,
                "args": {
                    "launch": launch.index,
                    "computes": launch.note,
                    "GFLOP/s": launch.flops / micros * 1e-3,
                    "GB/s": launch.bytes / micros * 1e-3,
                },
            }));
        }
    }
    let named = |kind: &str, tid: usize, name: &str| json!({"name": kind, "ph": "M", "pid": 1, "tid": tid, "args": {"name": name}});
    events.push(named("process_name", 0, &format!("pg {}", profile.model)));
    events.extend(tracks.iter().enumerate().map(|(i, t)| named("thread_name", i + 1, t)));
    json!({ "traceEvents": events, "displayTimeUnit": "ms" })
}
