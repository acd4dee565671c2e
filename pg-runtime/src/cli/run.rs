//! `pg run`: the main job.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use pg_runtime::device::Device;
use pg_runtime::run::{RunOptions, TextOptions, run as run_model};
use pg_runtime::validate::cache_folder;

use super::devices::DeviceArgs;
use super::model::{ModelArgs, PrecisionArgs};
use super::progress::Progress;
use super::summary;
use super::ui::Ui;

/// What a run does: everything that its kernels depend on. What is not given is the model file's, or its
/// profile's, value.
#[derive(Args, Debug)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    budget: BudgetArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Do not time steps of the full-size model where a profile trains a smaller one.
    #[arg(long)]
    no_full_size: bool,
    /// Do not hold the programs to float64 before the first step; the report says so. What passes is remembered in the
    /// user's cache folder, or in the one that PG_CACHE names, and is not validated again.
    #[arg(long)]
    no_validate: bool,
}

/// Arguments of `pg run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Seed of the initial weights.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Start from these weights instead of random ones (`pg export --safetensors` writes such a file).
    #[arg(long, value_name = "FILE.safetensors")]
    init: Option<PathBuf>,
    /// Folder for metrics, weights, artifact and report [default: runs/MODEL-N].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Budget and schedule")]
struct BudgetArgs {
    /// Train for this many steps.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Train for this long.
    #[arg(long, value_name = "S", value_parser = positive)]
    seconds: Option<f64>,
    /// Tokens of a step.
    #[arg(long, value_name = "N", value_parser = count)]
    batch_tokens: Option<usize>,
    /// Tokens of one forward and backward.
    #[arg(long, value_name = "N", value_parser = count)]
    micro_batch_tokens: Option<usize>,
    /// Tokens of a sequence, in training and evaluation.
    #[arg(long, value_name = "N", value_parser = count)]
    seq_len: Option<usize>,
    /// Steps over which the learning rate falls to zero at the end; 0 for a constant rate.
    #[arg(long, value_name = "N")]
    warmdown_steps: Option<u64>,
    /// Scale warmdown, momentum warm-up and weight averaging to the planned steps, or use the file's
    /// constants as they are.
    #[arg(long, value_enum, default_value_t = ScheduleKind::Scaled)]
    schedule: ScheduleKind,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Text (the built-in sample without these)")]
struct TextArgs {
    /// Training shards, a quoted pattern such as 'data/fineweb_train_*.bin'.
    #[arg(long, value_name = "GLOB")]
    data: Option<String>,
    /// Validation shards.
    #[arg(long, value_name = "GLOB")]
    val: Option<String>,
    /// The SentencePiece model of the shards.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Shards of the bytes of text behind each token of the validation shards, where the tokenizer does not know them.
    #[arg(long, value_name = "GLOB", requires = "val")]
    val_bytes: Option<String>,
}

impl From<TextArgs> for TextOptions {
    fn from(args: TextArgs) -> TextOptions {
        let TextArgs { data, val, tokenizer, val_bytes } = args;
        TextOptions { data, val, tokenizer, val_bytes }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum ScheduleKind {
    /// Constants scaled to the planned steps; equal to `spec` at full length.
    Scaled,
    /// The file's constants.
    Spec,
}

impl JobArgs {
    /// The job on a device.
    pub(crate) fn options(self, device: Device) -> RunOptions {
        RunOptions {
            storage: self.precision.storage(),
            device,
            model: self.model.file,
            overrides: self.model.variation.overrides,
            profile: self.model.variation.profile,
            steps: self.budget.steps,
            seconds: self.budget.seconds,
            batch_tokens: self.budget.batch_tokens,
            micro_batch_tokens: self.budget.micro_batch_tokens,
            seq_len: self.budget.seq_len,
            warmdown_steps: self.budget.warmdown_steps,
            text: self.text.into(),
            unscaled_schedule: self.budget.schedule == ScheduleKind::Spec,
            skip_full_size: self.no_full_size,
            skip_validation: self.no_validate,
            cache: cache_folder(),
            ..RunOptions::default()
        }
    }
}

/// Runs a model and reports.
pub(crate) fn run(args: RunArgs, ui: &Ui, started: Instant) -> anyhow::Result<()> {
    let options = args.job.options(args.device.open()?);
    let options =
        RunOptions { seed: args.seed, init: args.init, out: args.out, started: Some(started), ..options };
    let mut progress = Progress::new(ui);
    let report = run_model(&options, &mut |event| progress.event(event));
    progress.finish();
    let report = report?;
    ui.report(&report, || summary::text(&report, &options))?;
    Ok(())
}

fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number".to_string())?;
    if value > 0.0 && value.is_finite() { Ok(value) } else { Err("expected a number above 0".into()) }
}

/// A whole number above 0, as an argument.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    // `786_432` and `786,432` are how people write such numbers.
    let plain: String = text.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    plain.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number above 0".into())
}
