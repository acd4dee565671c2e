//! `pg run`: the main job.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use pg_runtime::run::{
    ConfigurationValue, Earlier, Interrupt, Interval, JobOptions, Purpose, RunOptions, TextOptions,
    configuration, dry_run, run as run_model,
};
use pg_runtime::validate::cache_folder;

use super::devices::DeviceArgs;
use super::format::{counted, grouped, table};
use super::model::{PrecisionArgs, Variation};
use super::progress::Progress;
use super::ui::Ui;
use super::{UsageError, signals, summary};

/// What a run does: everything that its kernels depend on. What is not given is the model file's, or its
/// profile's, value.
#[derive(Args, Debug)]
pub(crate) struct JobArgs {
    /// Model file.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    variation: Variation,
    #[command(flatten)]
    budget: BudgetArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    text: TextArgs,
    /// Score the live weights every so many steps, plain, on all of the text that the run scores, into metrics.jsonl. What the run
    /// gives stays the same: the clock of the training stands still meanwhile, so a run of --seconds takes that much longer.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    val_every: Option<u64>,
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
    /// Replace what an earlier run left in that folder, once this one has finished.
    #[arg(long)]
    overwrite: bool,
    /// Check all that is checked before the first step, and stop there; no folder is made.
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    /// Print every constant and setting with its value and where that comes from, and stop there.
    #[arg(long, conflicts_with_all = ["dry_run", "resume"])]
    print_config: bool,
    #[command(flatten)]
    safety: SafetyArgs,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Runs that are stopped")]
struct SafetyArgs {
    /// Keep a checkpoint every so many steps, or seconds with an `s`. A run that is asked to stop (Ctrl-C) keeps one, too.
    #[arg(long, value_name = "N|Ts", value_parser = interval, default_value = "60s")]
    checkpoint_every: Interval,
    /// Continue the run in this folder from where it was stopped. It gives what it would have given.
    #[arg(long, value_name = "DIR", conflicts_with_all = JOB)]
    resume: Option<PathBuf>,
    /// Do the finished run in this folder again, elsewhere, and hold each step to what it gave then.
    #[arg(long, value_name = "DIR", conflicts_with_all = JOB, conflicts_with = "resume")]
    replay: Option<PathBuf>,
}

/// Arguments that a continued run takes from its record.
const JOB: [&str; 21] = [
    "file",
    "overrides",
    "profile",
    "steps",
    "seconds",
    "budget",
    "eval_seconds",
    "batch_tokens",
    "micro_batch_tokens",
    "seq_len",
    "warmdown_steps",
    "schedule",
    "precision",
    "data",
    "val",
    "tokenizer",
    "val_bytes",
    "init",
    "seed",
    "val_every",
    "no_full_size",
];

#[derive(Args, Debug)]
#[command(next_help_heading = "Budget and schedule")]
struct BudgetArgs {
    /// Train for this many steps.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Train for this long.
    #[arg(long, value_name = "S", value_parser = positive)]
    seconds: Option<f64>,
    /// Train for this many FLOPs, as `flops=1e18`: contractions and attention, forward and backward, as MFU counts them.
    #[arg(long, value_name = "flops=F", value_parser = flops, conflicts_with = "steps")]
    budget: Option<f64>,
    /// Seconds that the scores of the artifact may take together. A score that would take longer is stopped, and there is
    /// none; the artifact is whole without it.
    #[arg(long, value_name = "S", value_parser = positive)]
    eval_seconds: Option<f64>,
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
    /// The job, and the seed and initial weights that only `pg run` takes.
    ///
    /// # Errors
    /// [`UsageError`] without a model file, which only some arguments make needless.
    pub(crate) fn job(self, seed: Option<u64>, init: Option<PathBuf>) -> Result<JobOptions, UsageError> {
        let Some(model) = self.file else {
            return Err(UsageError(
                "a model file is missing: pg run FILE; `pg run --help` shows all arguments".into(),
            ));
        };
        Ok(JobOptions {
            model,
            overrides: self.variation.overrides,
            profile: self.variation.profile,
            steps: self.budget.steps,
            seconds: self.budget.seconds,
            flops: self.budget.budget,
            eval_seconds: self.budget.eval_seconds,
            batch_tokens: self.budget.batch_tokens,
            micro_batch_tokens: self.budget.micro_batch_tokens,
            seq_len: self.budget.seq_len,
            warmdown_steps: self.budget.warmdown_steps,
            seed,
            text: self.text.into(),
            init,
            unscaled_schedule: self.budget.schedule == ScheduleKind::Spec,
            storage: self.precision.storage(),
            val_every: self.val_every,
            skip_full_size: self.no_full_size,
            skip_validation: self.no_validate,
        })
    }
}

impl RunArgs {
    fn options(self, started: Instant) -> anyhow::Result<RunOptions> {
        let SafetyArgs { checkpoint_every, resume, replay } = self.safety;
        let earlier = match (resume, replay) {
            (Some(folder), _) => Some(Earlier::open(&folder, Purpose::Resume)?),
            (None, Some(folder)) => Some(Earlier::open(&folder, Purpose::Replay)?),
            (None, None) => None,
        };
        let job = match &earlier {
            Some(earlier) => earlier.record.job.clone(),
            None => self.job.job(self.seed, self.init)?,
        };
        Ok(RunOptions {
            job,
            device: self.device.open()?,
            out: self.out,
            overwrite: self.overwrite,
            earlier,
            checkpoint_every,
            interrupt: Interrupt::default(),
            cache: cache_folder(),
            started: Some(started),
        })
    }
}

/// Runs a model and reports.
pub(crate) fn run(args: RunArgs, ui: &Ui, started: Instant) -> anyhow::Result<()> {
    let (is_dry, is_printed) = (args.dry_run, args.print_config);
    let options = args.options(started)?;
    if is_printed {
        return print(&options, ui);
    }
    if is_dry {
        return rehearse(&options, ui);
    }
    signals::stop_on_request(&options.interrupt)?;
    let mut progress = Progress::new(ui);
    let report = run_model(&options, &mut |event| progress.event(event));
    progress.finish();
    let report = report?;
    ui.report(&report, || summary::text(&report, &options.job))?;
    Ok(())
}

/// Says with which constants and settings a run would work.
fn print(options: &RunOptions, ui: &Ui) -> anyhow::Result<()> {
    let mut progress = Progress::new(ui);
    let config = configuration(options, &mut |event| progress.event(event))?;
    let row = |v: &ConfigurationValue| vec![v.name.clone(), v.value.clone(), v.from.clone()];
    let rows = config.constants.iter().chain(&config.settings).map(row).collect();
    ui.report(&config, || {
        format!(
            "{}, {}, on {} in {}\n\n{}\n\nschedule at the planned steps: {}",
            config.model,
            config.profile.as_ref().map_or("no profile".into(), |profile| format!("profile {profile}")),
            config.device,
            config.precision,
            table(&["", "value", "from"], &[], rows),
            config.schedule
        )
    })?;
    Ok(())
}

/// Does all of a run that comes before its first step.
fn rehearse(options: &RunOptions, ui: &Ui) -> anyhow::Result<()> {
    let mut progress = Progress::new(ui);
    let checked = dry_run(options, &mut |event| progress.event(event));
    progress.finish();
    let checked = checked?;
    ui.report(&checked, || {
        format!(
            "{}: nothing is in the way of this run: {}; validated: {}; an artifact of about {} bytes. No step was done, and no folder made.",
            checked.model,
            counted(checked.programs as u64, "program"),
            checked.validation,
            grouped(checked.estimate_bytes)
        )
    })?;
    Ok(())
}

/// `100` steps or `60s`.
pub(crate) fn interval(text: &str) -> Result<Interval, String> {
    match text.strip_suffix('s') {
        Some(seconds) => positive(seconds).map(Interval::Seconds),
        None => count(text).map(|steps| Interval::Steps(steps as u64)),
    }
}

/// `flops=1e18`.
fn flops(text: &str) -> Result<f64, String> {
    let value = text.strip_prefix("flops=").ok_or("expected flops= and a number, such as flops=1e18")?;
    positive(value)
}

/// A number above 0, as an argument.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number".to_string())?;
    if value > 0.0 && value.is_finite() { Ok(value) } else { Err("expected a number above 0".into()) }
}

/// A whole number above 0, as an argument.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    // `786_432` and `786,432` are how people write such numbers.
    let plain: String = text.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    plain.parse().ok().filter(|&n| n > 0).ok_or_else(|| "expected a whole number above 0".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use pg_ir::ty::DType;

    use super::*;

    #[derive(Parser)]
    struct Pg {
        #[command(flatten)]
        run: RunArgs,
    }

    #[test]
    fn a_jobs_arguments_give_the_job() {
        let set = |name: &str, value: &str| (name.to_string(), value.to_string());
        let job = JobOptions {
            model: "m.rs".into(),
            overrides: vec![set("A", "[4, 5]"), set("B", "x y")],
            profile: Some("quick".into()),
            steps: Some(7),
            seconds: Some(0.1),
            flops: None,
            eval_seconds: Some(2.5),
            batch_tokens: Some(64),
            micro_batch_tokens: Some(32),
            seq_len: Some(16),
            warmdown_steps: Some(0),
            seed: Some(u64::MAX),
            text: TextOptions {
                data: Some("a*.bin".into()),
                val: Some("b.bin".into()),
                tokenizer: Some("t.model".into()),
                val_bytes: Some("c.bin".into()),
            },
            init: Some("w.safetensors".into()),
            unscaled_schedule: true,
            storage: Some(DType::BF16),
            val_every: Some(3),
            skip_full_size: true,
            skip_validation: true,
        };
        let flops = JobOptions { steps: None, flops: Some(1.25e18), ..job.clone() };
        for job in [job, flops, JobOptions { model: "m.rs".into(), ..JobOptions::default() }] {
            let words = ["pg", "m.rs"].map(String::from).into_iter().chain(job.arguments());
            let RunArgs { job: parsed, seed, init, .. } = Pg::parse_from(words).run;
            assert_eq!(parsed.job(seed, init).unwrap(), job);
        }
    }
}
