//! What a run leaves, to compare it with another's.

use std::path::Path;

use serde_json::Value;

/// What must be the same of two runs of one job, to the last bit.
#[derive(PartialEq)]
pub struct Results {
    /// Loss and gradient norm of each step.
    pub steps: Vec<(f64, f64)>,
    /// `weights.safetensors`.
    pub weights: Vec<u8>,
    /// `artifact.pg`.
    pub artifact: Vec<u8>,
    /// Every score of the report.
    pub scores: Value,
}

impl Results {
    /// The results in a run's folder.
    ///
    /// # Errors
    /// The file that is missing or is not what a run writes.
    pub fn of(run: &Path) -> Result<Results, String> {
        let read = |name: &str| {
            let path = run.join(name);
            std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
        };
        let parse = |name: &str, text: &[u8]| {
            serde_json::from_slice::<Value>(text).map_err(|e| format!("{name}: {e}"))
        };
        let report = parse("report.json", &read("report.json")?)?;
        let mut steps = Vec::new();
        for line in read("metrics.jsonl")?.split_inclusive(|byte| *byte == b'\n') {
            let line = parse("metrics.jsonl", line)?;
            // A score of the live weights, which is no part of what a run gives.
            if line.get("after_steps").is_some() {
                continue;
            }
            let number = |name: &str| line[name].as_f64().ok_or_else(|| format!("metrics.jsonl: no {name}"));
            steps.push((number("loss")?, number("grad_norm")?));
        }
        let (weights, artifact) = (read("weights.safetensors")?, read("artifact.pg")?);
        Ok(Results { steps, weights, artifact, scores: report["bpb"].clone() })
    }
}
