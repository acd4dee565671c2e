//! What scores are compared with, and whether they can be: only scores of the same text, device, precision and way to score.

use std::path::{Path, PathBuf};

use pg_ir::ty::DType;

use super::{Configuration, SweepError, SweepPlan};
use crate::device::Device;
use crate::report::{RunReport, TextReport};
use crate::run::{Checked, FinishedRun, RunError};

/// What a sweep's configurations are to be compared with.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Baseline {
    /// The first configuration.
    #[default]
    First,
    /// The one configuration that has these settings.
    Settings(Vec<(String, String)>),
    /// Finished runs of one configuration: their folders, or folders of such folders.
    Runs(Vec<PathBuf>),
}

/// A baseline that has been found.
#[derive(Clone, Debug)]
pub enum Reference {
    /// The configuration at this place of [`SweepPlan::configurations`].
    Configuration(usize),
    /// Other runs.
    Runs(Box<ReferenceRuns>),
}

/// Runs of another sweep, or of none, that differ in their seeds alone.
#[derive(Clone, Debug)]
pub struct ReferenceRuns {
    /// What they are, for a table.
    pub name: String,
    /// What their scores are of.
    pub conditions: Conditions,
    /// Their reports.
    pub reports: Vec<RunReport>,
}

/// What a score is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// The device, by its name.
    pub device: String,
    /// How training stored activations and operands.
    pub storage: DType,
    /// Which of a run's scores.
    pub score: &'static str,
    /// The scored text.
    pub text: TextReport,
}

impl Conditions {
    pub(super) fn of_checked(checked: &Checked, device: &Device) -> Conditions {
        let score = if checked.has_ttt { "test-time" } else { "sliding" };
        let device = device.name().to_string();
        Conditions { device, storage: checked.storage, score, text: checked.text.scored() }
    }

    /// Of a finished run; `default` is what its device stores where nothing else is asked for, for reports of an older pg.
    pub(super) fn of_run(run: &FinishedRun, default: DType) -> Result<Conditions, SweepError> {
        match run.report.bpb.last() {
            Some((score, _)) => Ok(Conditions { score, ..Conditions::of_any_run(run, default) }),
            None => Err(folder(&run.folder, "its report has no score of the artifact".into())),
        }
    }

    /// The same of a run that may have no score of its artifact, whose time was over.
    pub fn of_any_run(run: &FinishedRun, default: DType) -> Conditions {
        let reported = run.report.precision.as_ref().and_then(|name| name.parse().ok());
        Conditions {
            device: run.record.device.clone(),
            storage: reported.or(run.record.job.storage).unwrap_or(default),
            score: run.report.bpb.last().map_or("none", |(score, _)| score),
            text: run.record.text.scored(),
        }
    }

    /// Compares what the scores of `name` are of with what those of `other` are of.
    pub(super) fn compare(&self, name: &str, other: &Conditions, with: &str) -> Result<(), SweepError> {
        match self.difference(other) {
            Some(what) => Err(SweepError::Incomparable { a: name.into(), b: with.into(), what }),
            None => Ok(()),
        }
    }

    fn difference(&self, other: &Conditions) -> Option<String> {
        let score = differ("the last score", self.score, other.score);
        score.or_else(|| self.differences_of_each_score(other).into_iter().next())
    }

    /// Why no score of these conditions can be compared with the same score of others, in words; nothing where each can.
    pub fn differences_of_each_score(&self, other: &Conditions) -> Vec<String> {
        let mut all: Vec<String> = differ("the device", &self.device, &other.device).into_iter().collect();
        all.extend(differ("the precision", &self.storage.to_string(), &other.storage.to_string()));
        all.extend(self.text.differences(&other.text).into_iter().map(|what| format!("{what} differs")));
        all
    }
}

fn differ(what: &str, ours: &str, theirs: &str) -> Option<String> {
    (ours != theirs).then(|| format!("{what} of the one is {ours}, of the other {theirs}"))
}

impl Baseline {
    /// Finds the baseline.
    pub(super) fn resolve(&self, plan: &SweepPlan, device: &Device) -> Result<Reference, SweepError> {
        match self {
            Baseline::First => Ok(Reference::Configuration(0)),
            Baseline::Settings(settings) => {
                find(&plan.configurations(), settings).map(Reference::Configuration)
            }
            Baseline::Runs(folders) => runs(folders, device.machine().storage),
        }
    }
}

/// The place of the one configuration that has some settings.
fn find(configurations: &[Configuration], settings: &[(String, String)]) -> Result<usize, SweepError> {
    let refuse = |what: String| Err(SweepError::Plan(what));
    for (name, value) in settings {
        let of_axis =
            |c: &Configuration| c.settings.iter().find(|(axis, _)| axis == name).map(|(_, v)| v.clone());
        let mut values: Vec<String> = configurations.iter().filter_map(of_axis).collect();
        values.dedup();
        if values.is_empty() {
            return refuse(format!("--baseline {name}={value}: no --grid is of `{name}`"));
        }
        if !values.contains(value) {
            let values = values.join(", ");
            return refuse(format!("--baseline {name}={value}: the values of `{name}` are {values}"));
        }
    }
    let has_all = |c: &Configuration| settings.iter().all(|setting| c.settings.contains(setting));
    let found: Vec<usize> = (0..configurations.len()).filter(|&i| has_all(&configurations[i])).collect();
    match found[..] {
        [one] => Ok(one),
        [] => refuse("--baseline names one setting with two values".into()),
        [first, second, ..] => refuse(format!(
            "--baseline names {} configurations, among them {} and {}: say more of its settings",
            found.len(),
            configurations[first],
            configurations[second]
        )),
    }
}

/// Finished runs of one configuration.
fn runs(folders: &[PathBuf], default: DType) -> Result<Reference, SweepError> {
    let mut found = Vec::new();
    for path in folders {
        let runs = finished_runs(path)?;
        if runs.is_empty() {
            return Err(folder(path, "no finished run is in it, nor in folders in it".into()));
        }
        found.extend(runs);
    }
    let names: Vec<String> = folders.iter().map(|path| path.display().to_string()).collect();
    let name = names.join(", ");
    let Some((first, others)) = found.split_first() else {
        return Err(SweepError::Plan("--baseline-dir names no folder".into()));
    };
    let conditions = Conditions::of_run(first, default)?;
    let mut seeds = vec![first.report.seed];
    for run in others {
        let show = |run: &FinishedRun| run.folder.display().to_string();
        conditions.compare(&show(first), &Conditions::of_run(run, default)?, &show(run))?;
        if let Some(what) = run.record.difference_besides_seed(&first.record) {
            let what = format!("a baseline is of one configuration, and {what} as in {}", show(first));
            return Err(folder(&run.folder, what));
        }
        if seeds.contains(&run.report.seed) {
            let what = format!("the baseline has two runs of seed {}", run.report.seed);
            return Err(folder(&run.folder, what));
        }
        seeds.push(run.report.seed);
    }
    let reports = found.into_iter().map(|run| run.report).collect();
    Ok(Reference::Runs(Box::new(ReferenceRuns { name, conditions, reports })))
}

/// A sweep's runs are two folders down.
const MAX_DEPTH: usize = 2;

/// The finished run in a folder, or those in the folders in it, as a sweep leaves them, by name; none where there are none.
///
/// # Errors
/// A run that cannot be read.
pub fn finished_runs(path: &Path) -> Result<Vec<FinishedRun>, SweepError> {
    let mut found = Vec::new();
    collect(path, 0, &mut found)?;
    Ok(found)
}

fn collect(path: &Path, depth: usize, found: &mut Vec<FinishedRun>) -> Result<(), SweepError> {
    if FinishedRun::is_in(path) {
        found.push(FinishedRun::open(path)?);
        return Ok(());
    }
    if depth == MAX_DEPTH {
        return Ok(());
    }
    let error = |error| SweepError::Run(RunError::Io { path: path.to_owned(), error });
    let entries = std::fs::read_dir(path).map_err(error)?;
    let mut folders =
        entries.map(|entry| entry.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(error)?;
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders.iter().try_for_each(|path| collect(path, depth + 1, found))
}

fn folder(path: &Path, what: String) -> SweepError {
    SweepError::Folder { folder: path.to_owned(), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_baseline_is_one_configuration() {
        let set = |name: &str, value: &str| (name.to_string(), value.to_string());
        let all: Vec<Configuration> = [("1", "x"), ("1", "y"), ("2", "x"), ("2", "y")]
            .map(|(a, b)| Configuration { settings: vec![set("A", a), set("B", b)] })
            .into();
        assert_eq!(find(&all, &[set("B", "y"), set("A", "2")]).unwrap(), 3);
        let refused = |settings: &[(String, String)]| find(&all, settings).unwrap_err().to_string();
        assert!(refused(&[set("A", "1")]).contains("2 configurations, among them A=1,B=x and A=1,B=y"));
        assert!(refused(&[set("C", "1")]).contains("no --grid is of `C`"));
        assert!(refused(&[set("A", "3")]).contains("the values of `A` are 1, 2"));
        assert!(refused(&[set("A", "1"), set("A", "2")]).contains("two values"));
    }
}
