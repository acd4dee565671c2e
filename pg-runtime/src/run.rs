//! The main job: a model file becomes a scored artifact.

use std::path::PathBuf;

/// What `pg run` was asked for. `None` leaves the model file's (or its profile's) value.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// The model file.
    pub model: PathBuf,
    /// `--set NAME=VALUE`.
    pub overrides: Vec<(String, String)>,
    /// `--profile`; `None` picks by machine: `quick` on a CPU if the model has it.
    pub profile: Option<String>,
    /// `--steps`.
    pub steps: Option<u64>,
    /// `--seconds`.
    pub seconds: Option<f64>,
    /// `--batch-tokens`.
    pub batch_tokens: Option<usize>,
    /// `--micro-batch-tokens`.
    pub micro_batch_tokens: Option<usize>,
    /// `--seq-len`.
    pub seq_len: Option<usize>,
    /// `--warmdown-steps`.
    pub warmdown_steps: Option<u64>,
    /// `--seed`.
    pub seed: Option<u64>,
    /// `--data GLOB`; the sample corpus otherwise.
    pub data: Option<String>,
    /// `--val GLOB`.
    pub val: Option<String>,
    /// `--tokenizer FILE`.
    pub tokenizer: Option<PathBuf>,
    /// `--init FILE.safetensors`.
    pub init: Option<PathBuf>,
    /// `--out DIR`; `runs/MODEL-N` otherwise.
    pub out: Option<PathBuf>,
    /// `--schedule spec`: use the file's constants unscaled.
    pub unscaled_schedule: bool,
    /// Skip the full-size check and timing (`--no-full-size`).
    pub skip_full_size: bool,
}
