//! What a run reports: the JSON object of `pg run --json`, and the events a run emits while it works.

mod events;
mod origin;

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::events::{Event, Observer};
pub use self::origin::{COMMIT, MachineReport, now};
use crate::data::Overlap;
use crate::run::JobOptions;
use crate::validate::ValidationReport;

/// The result of `pg run`. Field names are a public interface.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct RunReport {
    /// Version of this form, [`RunReport::SCHEMA`]; 0 in reports of an older pg.
    #[serde(default)]
    pub schema: u32,
    /// Name of the model.
    pub model: String,
    /// Parameters of the model as declared, at full size.
    pub params: usize,
    /// Parameters of what was trained (a profile may be smaller).
    pub trained_params: usize,
    /// `cpu`, …
    pub device: String,
    /// Profile in force.
    pub profile: String,
    /// Seed.
    pub seed: u64,
    /// Whether text and tokenizer are the built-in sample, whose reference points are known.
    #[serde(default)]
    pub sample: bool,
    /// Version of the program; empty in reports of an older pg.
    #[serde(default)]
    pub pg: String,
    /// The commit that the program was built from, [`COMMIT`]; `null` where that is not known.
    #[serde(default)]
    pub commit: Option<String>,
    /// What it ran on; `null` in reports of an older pg.
    #[serde(default)]
    pub machine: Option<MachineReport>,
    /// How training stored activations and operands: `f32`, `bf16`; `null` in reports of an older pg.
    #[serde(default)]
    pub precision: Option<String>,
    /// When the run began, by its record, and when its scores were there: UTC, as in `2026-11-30T20:57:20Z`. `null` in reports
    /// of an older pg.
    #[serde(default)]
    pub started: Option<String>,
    /// See `started`.
    #[serde(default)]
    pub ended: Option<String>,
    /// blake3 of the model's text and of those that it derives from; `null` in reports of an older pg.
    #[serde(default)]
    pub model_hash: Option<String>,
    /// What was asked for; `null` in reports of an older pg.
    #[serde(default)]
    pub job: Option<JobOptions>,
    /// blake3 of the file of initial weights; `null` without one.
    #[serde(default)]
    pub init_hash: Option<String>,
    /// What was trained on and scored; `null` in reports of an older pg.
    #[serde(default)]
    pub text: Option<TextReport>,
    /// Training figures.
    pub train: TrainReport,
    /// Scores in bits per byte.
    pub bpb: Scores,
    /// What test-time training did; `null` without it.
    #[serde(default)]
    pub ttt: Option<TttReport>,
    /// Whether the programs were held to float64 before the first step; `null` in reports of an older pg.
    #[serde(default)]
    pub validation: Option<ValidationReport>,
    /// Scores that were stopped because their time was over (`eval.seconds`), in words; they are `null` in `bpb`.
    #[serde(default)]
    pub out_of_time: Vec<String>,
    /// `bpb.quantized` − `bpb.ema`.
    pub quant_gap_bpb: Option<f64>,
    /// The artifact.
    pub artifact: ArtifactReport,
    /// Where the time went, part by part; empty in reports of an older pg.
    #[serde(default)]
    pub ledger: Vec<LedgerEntry>,
    /// Peak resident memory of the process, in bytes; 0 where the system does not say.
    pub peak_rss_bytes: u64,
    /// The bundle that kernels came from; `null` without one.
    #[serde(default)]
    pub bundle: Option<BundleReport>,
    /// Where metrics, artifact and report lie.
    pub run_dir: PathBuf,
}

impl RunReport {
    /// The version of the form that this pg writes. A field that is added leaves it as it is; one whose meaning changes, or that
    /// is gone, does not.
    pub const SCHEMA: u32 = 1;

    /// Reads a report, also one of an older pg.
    ///
    /// # Errors
    /// What is wrong with the text, or that a newer pg wrote it.
    pub fn from_json(text: &[u8]) -> Result<RunReport, String> {
        #[derive(Deserialize)]
        struct Form {
            #[serde(default)]
            schema: u32,
        }
        // First of all: of a newer form nothing else can be relied on.
        let Form { schema } = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        if schema > RunReport::SCHEMA {
            return Err(format!(
                "it is a report of version {schema}, and this pg reads up to version {}: use the pg that wrote it, or a newer one",
                RunReport::SCHEMA
            ));
        }
        serde_json::from_slice(text).map_err(|e| e.to_string())
    }

    /// Seconds of training, by the ledger; of a run that was stopped, with what its earlier processes took up to the checkpoint.
    pub fn training_seconds(&self) -> f64 {
        self.seconds_of(&["train"])
    }

    /// Seconds of scoring the artifact, in every way that the model asks for.
    pub fn evaluation_seconds(&self) -> f64 {
        self.seconds_of(&["score the artifact", "score by", "score with"])
    }

    fn seconds_of(&self, parts: &[&str]) -> f64 {
        let of_parts = |entry: &&LedgerEntry| parts.iter().any(|part| entry.part.starts_with(part));
        self.ledger.iter().filter(of_parts).map(|entry| entry.seconds).sum()
    }
}

/// Time of a part of a run.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct LedgerEntry {
    /// `prepare`, `train`, …
    pub part: String,
    /// Seconds, by a monotonic clock.
    pub seconds: f64,
}

/// A phase of training that began.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct PhaseReport {
    /// Its name in the model file.
    pub name: String,
    /// Its first step, from 0; `null` for a phase that never began.
    pub first_step: Option<u64>,
}

/// The text of a run or an evaluation.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct TextReport {
    /// Training shards; `null` where nothing is trained.
    pub train: Option<DatasetReport>,
    /// Validation shards, all of them.
    pub val: DatasetReport,
    /// Where the bytes of tokens come from; `null` for the tokenizer.
    pub val_bytes: Option<DatasetReport>,
    /// blake3 of the tokenizer's file.
    pub tokenizer: String,
    /// Targets that are scored, from the first on.
    pub targets: u64,
    /// Targets that there are, in whole sequences.
    pub available_targets: u64,
    /// Targets that the sliding window scores a second time (`eval.rescore_tail`).
    pub scored_again: u64,
    /// Bytes of text behind the scored targets.
    pub bytes: u64,
    /// Windows of the scored text that the training text holds, too; `null` where nothing is trained.
    pub overlap: Option<Overlap>,
}

impl TextReport {
    /// The first thing that differs from another report of a text, in words.
    pub fn difference(&self, other: &TextReport) -> Option<&'static str> {
        self.differences(other).into_iter().next()
    }

    /// Everything that differs from another report of a text, in words.
    pub fn differences(&self, other: &TextReport) -> Vec<&'static str> {
        let train = |text: &TextReport| text.train.as_ref().map(|data| data.hash.clone());
        let differs = [
            ("the training text", train(self) != train(other)),
            ("the validation text", self.val.hash != other.val.hash),
            ("the tokenizer", self.tokenizer != other.tokenizer),
            ("the byte counts", self.val_bytes != other.val_bytes),
            ("the number of scored targets", self.targets != other.targets),
            ("the number of bytes behind the targets", self.bytes != other.bytes),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
    }

    /// What is said of the scored text alone.
    pub fn scored(&self) -> TextReport {
        TextReport { train: None, overlap: None, ..self.clone() }
    }

    /// Nats per token of a score in bits per byte of this text.
    pub fn nats_per_token(&self, bits_per_byte: f64) -> f64 {
        bits_per_byte * std::f64::consts::LN_2 * self.bytes as f64 / self.targets as f64
    }
}

/// Shards, as one stream of tokens.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct DatasetReport {
    /// The pattern that they match, or the embedded text's name.
    pub name: String,
    /// Tokens.
    pub tokens: u64,
    /// blake3 of the tokens.
    pub hash: String,
}

/// What a bundle of kernels did for a run.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct BundleReport {
    /// Its folder.
    pub folder: PathBuf,
    /// Kernels that it holds.
    pub kernels: usize,
    /// Kernels that were compiled all the same: 0, if the bundle does what it is for. `null` if CubeCL's cache
    /// cannot be read any more.
    pub compiled: Option<usize>,
}

impl fmt::Display for BundleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bundle {}: {} kernels, ", self.folder.display(), self.kernels)?;
        match self.compiled {
            Some(0) => write!(f, "none was compiled"),
            Some(n) => write!(f, "and {n} were compiled during the run"),
            None => write!(f, "and CubeCL's cache cannot be read any more"),
        }
    }
}

/// Training figures of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct TrainReport {
    /// Optimiser steps.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Median milliseconds of a step.
    pub ms_per_step: f64,
    /// Seconds from process start to the end of the first step.
    pub first_step_s: f64,
    /// Seconds spent compiling programs.
    pub compile_s: f64,
    /// Loss of the first step, nats per token.
    pub loss_first: f64,
    /// Loss of the last step, nats per token.
    pub loss_last: f64,
    /// The model's phases, in order; empty in reports of an older pg.
    #[serde(default)]
    pub phases: Vec<PhaseReport>,
    /// Scores of the weights while they were trained; empty without `--val-every`.
    #[serde(default)]
    pub live_scores: Vec<LiveScore>,
}

/// A score of weights that are being trained, and a line of `metrics.jsonl` of its own: plain, of the live weights, of all
/// the text that the run scores.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
pub struct LiveScore {
    /// Steps done.
    pub after_steps: u64,
    /// Bits per byte.
    pub bpb: f64,
    /// Milliseconds that scoring took. They are no training time.
    pub ms: f64,
}

/// Bits per byte on the validation text. `null` in JSON where a score was not asked for.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Scores {
    /// Before training.
    pub initial: Option<f64>,
    /// The last weights, unquantised, plain evaluation.
    pub live: Option<f64>,
    /// The averaged weights, unquantised, plain evaluation.
    pub ema: Option<f64>,
    /// The artifact read back, plain evaluation.
    pub quantized: Option<f64>,
    /// The artifact read back, sliding window.
    pub sliding: Option<f64>,
    /// The artifact read back, sliding window with score-first test-time training.
    pub ttt: Option<f64>,
}

impl Scores {
    /// Every score by its name, in the order in which a run makes them.
    pub fn named(&self) -> [(&'static str, Option<f64>); 6] {
        let Scores { initial, live, ema, quantized, sliding, ttt } = *self;
        [
            ("initial", initial),
            ("live", live),
            ("averaged", ema),
            ("quantised", quantized),
            ("sliding", sliding),
            ("test-time", ttt),
        ]
    }

    /// The score that a run is judged by, and its name: of the artifact, in the last way that the model asks for.
    pub fn last(&self) -> Option<(&'static str, f64)> {
        let scores = [("test-time", self.ttt), ("sliding", self.sliding), ("quantised", self.quantized)];
        scores.into_iter().find_map(|(name, score)| Some((name, score?)))
    }
}

/// What an evaluation with test-time training did.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct TttReport {
    /// Chunks scored.
    pub chunks_scored: usize,
    /// Chunks trained on after they had been scored: those with an update.
    pub chunks_trained: usize,
    /// Optimiser steps.
    pub updates: usize,
}

/// Sizes of a written artifact. The second total is what the cap holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct ArtifactReport {
    /// The file.
    pub path: PathBuf,
    /// blake3 of the file; empty in reports of an older pg.
    #[serde(default)]
    pub hash: String,
    /// Bytes of the file.
    pub artifact_bytes: u64,
    /// Bytes of model text and of the library text that it uses.
    pub code_bytes: u64,
    /// `artifact_bytes` + `code_bytes`.
    pub total_bytes: u64,
    /// `total_bytes` and everything else that evaluation needs: the program itself.
    pub with_evaluator_bytes: u64,
    /// Size that was predicted for the file before training.
    pub estimate_bytes: u64,
    /// Bound on `total_bytes`.
    pub cap_bytes: u64,
}

/// A step's line of `metrics.jsonl`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
pub struct StepMetrics {
    /// Step, from 0.
    pub step: u64,
    /// Mean loss of the step's micro-batches, nats per token.
    pub loss: f64,
    /// Factor on the base learning rates.
    pub lr_scale: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Wall-clock milliseconds of the step.
    pub ms: f64,
    /// Seconds that the steps before it took: with the step, this decides its learning rate and phase.
    #[serde(default)]
    pub elapsed_s: f64,
    /// Phase in force, from 0.
    #[serde(default)]
    pub phase: usize,
}

impl StepMetrics {
    /// Longest line of `metrics.jsonl`, in bytes; one has about 200.
    pub const MAX_LINE: usize = 1 << 16;
}

/// A number in groups of three digits: `29,355,620`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 step`, `2,000 steps`.
pub fn counted(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(n), if n == 1 { "" } else { "s" })
}
