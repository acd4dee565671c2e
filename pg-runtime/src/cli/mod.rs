//! The command line: arguments, dispatch, exit codes. One file a command.
//!
//! Exit codes: 0 success, 1 bad input, 2 usage, 130 a run or sweep that was asked to stop. With `--json`, standard output
//! carries exactly one JSON object; everything else goes to standard error.

mod audit;
#[cfg(feature = "cube")]
mod build;
mod check;
mod command;
mod compare;
mod completions;
mod data;
mod devices;
mod doctor;
mod eval;
mod export;
mod fmt;
mod format;
mod help;
mod ir;
#[cfg_attr(not(feature = "cube"), path = "kernels_absent.rs")]
mod kernels;
#[cfg(feature = "cube")]
mod machine;
mod model;
mod model_summary;
mod new;
mod ops;
mod plan;
mod profile;
mod programs;
mod progress;
mod run;
mod runs;
mod signals;
mod submit;
mod summary;
mod sweep;
mod table;
mod timing;
mod tokenize;
mod ui;
mod validation;

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use clap::{CommandFactory, Parser, Subcommand};
use pg_runtime::run::RunError;
use pg_runtime::sweep::SweepError;
use serde_json::json;

use self::ui::{Color, Ui};

/// Declare a small language model, compile it, train it under hard budgets, and score its artifact.
///
/// Start with `pg run models/int4mlp_12l.rs`: it needs no data, no GPU and no network.
#[derive(Parser, Debug)]
#[command(name = "pg", version, propagate_version = true, arg_required_else_help = true)]
#[command(disable_help_subcommand = true)]
struct Cli {
    /// Print exactly one JSON object on standard output, all else on standard error.
    #[arg(long, global = true)]
    json: bool,
    /// Print results only: no progress, no notes.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// When to use colours (NO_COLOR is honoured).
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    color: Color,
    /// Show tables at their full width. Without it they fit the terminal, or COLUMNS where it is set: text is wrapped, and
    /// the least important columns are left out. What goes into a file or a pipe is always at full width, unless COLUMNS is set.
    #[arg(long, global = true)]
    wide: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Do the whole job: check, compile, train, quantise, write the artifact, read it back, score it.
    Run(run::RunArgs),
    /// Run every combination of seeds and values, and compare their scores.
    ///
    /// Takes the arguments of `pg run`, but for its seed. Every configuration is checked before the first run: its model and
    /// the size of its artifact, its text, every program with its proofs and against float64. Runs are done one after
    /// another, each by a process of its own: one that fails is listed at the end, and the others go on. None times the
    /// full-size model. Ctrl-C stops the run after its step. The same command again, or --resume, skips what has finished and continues what was stopped; it may
    /// have more seeds and values than before. Scores are compared by Welch's t-test. Exit code 1 if a run failed.
    Sweep(sweep::SweepArgs),
    /// Do one run of a sweep.
    #[command(hide = true)]
    SweepRun(sweep::WorkerArgs),
    /// List runs: state, model, steps, last score, size, date; and give them tags and notes.
    Runs(runs::RunsArgs),
    /// Check models: parameters, artifact size, FLOPs, and every error at its place.
    Check(check::CheckArgs),
    /// Check what a reviewer of a score checks by hand, recomputed from the artifact and the text.
    Audit(audit::AuditArgs),
    /// Write the folder of a parameter-golf submission from runs of three seeds, each audited.
    ///
    /// No folder is written of fewer than three runs, of one that has not finished, of runs that differ in more than their
    /// seeds, or of one whose audit fails or whose artifact and code have more than 16,000,000 bytes. What the challenge
    /// alone would not accept needs --draft, and is listed in README.md and submission.json: a score of other text than
    /// --val, or of a part of it; a profile that trains a smaller model; another device than CUDA; more than 600 s of
    /// training or of evaluation; initial weights from a file.
    ///
    /// The folder has README.md, submission.json, the model's file with those that it derives from, and of each run a log,
    /// the artifact, and what `pg run --replay` needs. It has no train_gpt.py, which the challenge runs; README.md says so.
    Submit(submit::SubmitArgs),
    /// Score an artifact.
    Eval(eval::EvalArgs),
    /// Write weights as safetensors, or quantise them into an artifact; or a run's steps for TensorBoard.
    Export(export::ExportArgs),
    /// Print the compiled programs of a model.
    Ir(ir::IrArgs),
    /// Print the generated kernels of a model for a target, or write them to files.
    Kernels(kernels::KernelsArgs),
    /// Compile every kernel of a run ahead of time, for a machine that need not be here.
    #[cfg(feature = "cube")]
    Build(build::BuildArgs),
    /// List the devices that programs can run on, and what is missing for the others.
    Devices,
    /// Say what is missing here for building, for running on a GPU and for the tests, and what to do about it.
    Doctor(doctor::DoctorArgs),
    /// Time every launch of a training step: what is slow, and against which roof.
    Profile(profile::ProfileArgs),
    /// Print what is launched: what each launch computes, what it costs, and why it ends where it does.
    Plan(plan::PlanArgs),
    /// Print the reference of ops and of the functions that a model file can call, or one of them.
    Ops(ops::OpsArgs),
    /// Format model files: what is between the braces of `model! { … }`, and nothing else of a file.
    Fmt(fmt::FmtArgs),
    /// Start a model file that derives from another.
    New(new::NewArgs),
    /// Compare two models or runs: what differs, sizes, scores, curves at equal tokens and time; or groups of runs.
    ///
    /// `pg compare A B` shows all that differs between two: constants, settings, functions, parameters, and of runs their data,
    /// schedules and conditions. `pg compare A1 A2 -- B1 B2` compares groups, as of seeds: of each score the mean, its standard
    /// deviation and 95 % confidence interval, and the p-value of Welch's t-test against the first group. Scores of other text,
    /// devices or precisions are not compared, and that is said.
    Compare(compare::CompareArgs),
    /// Look at token shards.
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Say what a command does, or explain the model language: `pg help` lists its topics.
    Help(help::HelpArgs),
    /// Print what makes a shell complete commands and arguments.
    Completions(completions::CompletionsArgs),
    /// Print the manual page, in roff: `pg man | man -l -`.
    Man,
}

/// What went well enough to report but must not end with exit code 0.
enum Outcome {
    Success,
    /// Everything was said already, as by `pg check` on a model that does not check.
    Failure,
}

/// A mistake in the arguments that clap does not find: it ends with exit code 2, as all mistakes in arguments do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

pub(crate) fn main(started: Instant) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    let ui = Ui::new(cli.json, cli.quiet, cli.color, cli.wide);
    match dispatch(cli.command, &ui, started) {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::Failure) => ExitCode::FAILURE,
        // Whoever read our output has seen enough, as in `pg ops | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // `{:#}` puts the causes behind colons; the library's errors are whole sentences without them.
            let text = message(&error);
            ui.error(&text);
            if cli.json {
                // Standard output may be what failed; the exit code says so anyway.
                let _ = ui.report(&json!({ "error": text }), String::new);
            }
            match error.is::<UsageError>() {
                true => ExitCode::from(USAGE),
                false if is_stopped(&error) => ExitCode::from(signals::STOPPED),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// The exit code of a mistake in the arguments.
const USAGE: u8 = 2;

/// Help, a version, or a mistake in the arguments; of a mistake, whoever asked for JSON gets the object that they wait for.
fn not_parsed(error: &clap::Error) -> ExitCode {
    // Standard output may be closed.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let mut arguments = std::env::args_os().skip(1).take_while(|argument| argument != "--");
    if arguments.any(|argument| argument == "--json") {
        let text = error.render().to_string();
        let text = text.trim().trim_start_matches("error: ");
        let ui = Ui::new(true, true, Color::Never, true);
        let _ = ui.report(&json!({ "error": text }), String::new);
    }
    ExitCode::from(USAGE)
}

fn dispatch(command: Command, ui: &Ui, started: Instant) -> anyhow::Result<Outcome> {
    match command {
        Command::Run(args) => run::run(args, ui, started)?,
        Command::Sweep(args) => return sweep::sweep(args, ui),
        Command::SweepRun(args) => sweep::run_one(args, ui, started)?,
        Command::Runs(args) => runs::runs(args, ui)?,
        Command::Check(args) => return check::check(args, ui),
        Command::Audit(args) => return audit::audit(args, ui),
        Command::Submit(args) => submit::submit(args, ui)?,
        Command::Eval(args) => eval::eval(args, ui)?,
        Command::Export(args) => export::export(args, ui)?,
        Command::Ir(args) => ir::ir(args, ui)?,
        Command::Kernels(args) => kernels::kernels(args, ui)?,
        #[cfg(feature = "cube")]
        Command::Build(args) => build::build(args, ui)?,
        Command::Devices => devices::devices(ui)?,
        Command::Doctor(args) => return doctor::doctor(args, ui),
        Command::Profile(args) => profile::profile(args, ui)?,
        Command::Plan(args) => plan::plan(args, ui)?,
        Command::Ops(args) => ops::ops(args, ui)?,
        Command::Fmt(args) => return fmt::fmt(args, ui),
        Command::New(args) => new::new(args, ui)?,
        Command::Compare(args) => compare::compare(args, ui)?,
        Command::Data(command) => data::data(command, ui)?,
        Command::Help(args) => help::help(args, ui)?,
        Command::Completions(args) => completions::completions(&args, &mut Cli::command())?,
        Command::Man => completions::man(Cli::command())?,
    }
    Ok(Outcome::Success)
}

/// An error and its causes, each once: most errors name theirs in their own words.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text += &format!(": {cause}");
        }
    }
    text
}

fn is_stopped(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(RunError::Stopped { .. }))
        || matches!(error.downcast_ref(), Some(SweepError::Stopped { .. }))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_errors = error.chain().filter_map(|e| e.downcast_ref::<io::Error>());
    io_errors.into_iter().any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let error = io::Error::other("full");
        let named = pg_runtime::data::DataError::Io { path: "x".into(), error };
        assert_eq!(message(&anyhow::Error::from(named).context("cannot read")), "cannot read: x: full");
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
