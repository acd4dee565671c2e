//! `pg runs`: the runs in a folder, and what their user says of them.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::{Args, Subcommand, ValueEnum};
use pg_runtime::run::{ListedRun, Notes, RunStatus, list};
use serde::Serialize;

use super::UsageError;
use super::format::{counted, grouped, megabytes, table_without};
use super::model::assignment;
use super::ui::Ui;

/// Arguments of `pg runs`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct RunsArgs {
    #[command(subcommand)]
    command: Option<RunsCommand>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Folder of runs, or of folders of runs, such as a sweep's [default: runs].
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Only runs of this model, profile, state, device, seed or tag, or whose name matches a pattern, as in `name=tiny-*`;
    /// several must all hold.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    filter: Vec<(String, String)>,
    /// What to sort by; what a run does not have comes last.
    #[arg(long, value_enum, default_value_t = Key::Date)]
    sort: Key,
    /// The other way round.
    #[arg(long)]
    reverse: bool,
}

#[derive(Subcommand, Debug)]
enum RunsCommand {
    /// Give a run tags, for `--filter tag=TAG`.
    Tag {
        /// Its folder.
        #[arg(value_name = "RUN")]
        run: PathBuf,
        /// The tags.
        #[arg(value_name = "TAG", required = true)]
        tags: Vec<String>,
        /// Take them away.
        #[arg(long)]
        remove: bool,
    },
    /// Say something of a run; an empty text takes away what was said.
    Note {
        /// Its folder.
        #[arg(value_name = "RUN")]
        run: PathBuf,
        /// What to say.
        #[arg(value_name = "TEXT")]
        text: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Key {
    /// When it ended or, before that, began.
    Date,
    Name,
    Model,
    Profile,
    Steps,
    /// The last score: lower is better.
    Score,
    Size,
    State,
}

#[derive(Debug, Serialize)]
struct Report {
    folder: PathBuf,
    runs: Vec<ListedRun>,
}

/// Lists runs, or notes something of one.
pub(crate) fn runs(args: RunsArgs, ui: &Ui) -> anyhow::Result<()> {
    match args.command {
        None => show(args.list, ui),
        Some(RunsCommand::Tag { run, tags, remove }) => change(&run, ui, |notes| {
            notes.tags.retain(|tag| !tags.contains(tag));
            if !remove {
                notes.tags.extend(tags);
            }
            notes.tags.sort();
            notes.tags.dedup();
        }),
        Some(RunsCommand::Note { run, text }) => {
            change(&run, ui, |notes| notes.note = Some(text).filter(|text| !text.trim().is_empty()))
        }
    }
}

fn change(run: &Path, ui: &Ui, change: impl FnOnce(&mut Notes)) -> anyhow::Result<()> {
    let mut notes = Notes::read(run)?;
    change(&mut notes);
    notes.write(run)?;
    ui.report(&notes, || {
        let tags = if notes.tags.is_empty() { "no tags".into() } else { notes.tags.join(", ") };
        let note = notes.note.as_ref().map_or(String::new(), |note| format!("; {note}"));
        format!("{}: {tags}{note}", run.display())
    })?;
    Ok(())
}

fn show(args: ListArgs, ui: &Ui) -> anyhow::Result<()> {
    let folder = args.folder.clone().unwrap_or("runs".into());
    let filters = args.filter.iter().map(Filter::new).collect::<Result<Vec<_>, _>>()?;
    // Before the first run, the default folder is not there.
    let mut runs = if args.folder.is_none() && !folder.exists() { Vec::new() } else { list(&folder)? };
    ensure!(folder.is_dir() || args.folder.is_none(), "{}: expected a folder of runs", folder.display());
    runs.retain(|run| filters.iter().all(|filter| filter.holds(run)));
    runs.sort_by(|a, b| args.sort.compare(a, b));
    if args.reverse {
        runs.reverse();
    }
    let report = Report { folder, runs };
    ui.report(&report, || report.text())?;
    Ok(())
}

/// A condition on runs.
enum Filter {
    Is(fn(&ListedRun) -> Option<String>, String),
    Tag(String),
    Name(glob::Pattern),
}

impl Filter {
    fn new((key, value): &(String, String)) -> Result<Filter, UsageError> {
        let is = |get: fn(&ListedRun) -> Option<String>| Ok(Filter::Is(get, value.clone()));
        match key.as_str() {
            "model" => is(|run| run.model.clone()),
            "profile" => is(|run| run.profile.clone()),
            "state" => is(|run| Some(run.state.to_string())),
            "device" => is(|run| run.device.clone()),
            "seed" => is(|run| run.seed.map(|seed| seed.to_string())),
            "tag" => Ok(Filter::Tag(value.clone())),
            "name" => glob::Pattern::new(value)
                .map(Filter::Name)
                .map_err(|error| UsageError(format!("--filter name={value}: {error}"))),
            _ => Err(UsageError(format!(
                "--filter {key}={value}: expected model, profile, state, device, seed, tag or name, found `{key}`"
            ))),
        }
    }

    fn holds(&self, run: &ListedRun) -> bool {
        match self {
            Filter::Is(get, value) => get(run).as_ref() == Some(value),
            Filter::Tag(tag) => run.tags.contains(tag),
            Filter::Name(pattern) => pattern.matches(&run.name),
        }
    }
}

impl Key {
    fn compare(self, a: &ListedRun, b: &ListedRun) -> Ordering {
        let by_key = match self {
            Key::Date => missing_last(date(a), date(b), str::cmp),
            Key::Name => Ordering::Equal,
            Key::Model => missing_last(a.model.as_deref(), b.model.as_deref(), str::cmp),
            Key::Profile => missing_last(a.profile.as_deref(), b.profile.as_deref(), str::cmp),
            Key::Steps => missing_last(a.steps.as_ref(), b.steps.as_ref(), u64::cmp),
            Key::Score => missing_last(score(a).as_ref(), score(b).as_ref(), |a, b| a.1.total_cmp(&b.1)),
            Key::Size => missing_last(a.artifact_bytes.as_ref(), b.artifact_bytes.as_ref(), u64::cmp),
            Key::State => a.state.to_string().cmp(&b.state.to_string()),
        };
        by_key.then_with(|| a.name.cmp(&b.name))
    }
}

fn missing_last<T: ?Sized>(a: Option<&T>, b: Option<&T>, compare: impl Fn(&T, &T) -> Ordering) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => compare(a, b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

fn date(run: &ListedRun) -> Option<&str> {
    run.ended.as_deref().or(run.started.as_deref())
}

fn score(run: &ListedRun) -> Option<(&'static str, f64)> {
    run.bpb.as_ref()?.last()
}

impl Report {
    fn text(&self) -> String {
        if self.runs.is_empty() {
            return format!("no runs in {}", self.folder.display());
        }
        let dash = || "–".to_string();
        let row = |run: &ListedRun| {
            let said = [run.tags.join(" "), run.note.clone().unwrap_or_default()];
            let said: Vec<&str> = said.iter().map(String::as_str).filter(|said| !said.is_empty()).collect();
            vec![
                run.name.clone(),
                run.state.to_string(),
                run.model.clone().unwrap_or_else(dash),
                run.profile.clone().unwrap_or_else(dash),
                run.steps.map_or_else(dash, grouped),
                score(run).map_or_else(dash, |(_, bpb)| format!("{bpb:.4}")),
                score(run).map_or_else(String::new, |(name, _)| name.into()),
                run.artifact_bytes.map_or_else(dash, megabytes),
                date(run).map_or_else(dash, |date| date.replace('T', " ").chars().take(16).collect()),
                run.problem.clone().unwrap_or_else(|| said.join(": ")),
            ]
        };
        let headings = [
            "run",
            "state",
            "model",
            "profile",
            "steps",
            "bits per byte",
            "score",
            "artifact",
            "date (UTC)",
            "",
        ];
        let broken = self.runs.iter().filter(|run| run.state == RunStatus::Broken).count();
        let mut text =
            table_without(&headings, &[4, 5, 7], &[6, 3, 7, 8], self.runs.iter().map(row).collect());
        if broken > 0 {
            text += &format!("\n\n{} cannot be read", counted(broken as u64, "folder"));
        }
        text
    }
}
