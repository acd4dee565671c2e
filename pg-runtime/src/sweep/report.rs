//! What the runs of a sweep came to: means, spreads and tests, configuration by configuration.

use std::path::PathBuf;

use serde::Serialize;

use super::{
    CheckedSweep, Conditions, Configuration, Failure, PlannedRun, Reference, RunState, Sweep, SweepError,
};
use crate::report::{RunReport, Scores, TextReport};
use crate::run::FinishedRun;
use crate::statistics::{Summary, TTest, welch};

/// The result of `pg sweep`. Field names are a public interface.
#[derive(Clone, Debug, Serialize)]
pub struct SweepReport {
    /// The sweep's folder.
    pub sweep: PathBuf,
    /// Name of the model.
    pub model: String,
    /// Where it ran.
    pub device: String,
    /// How training stored activations and operands.
    pub precision: String,
    /// Which score is compared: `test-time`, `sliding` or `quantised`, the last that the model asks for.
    pub score: &'static str,
    /// The text that every score is of.
    pub text: TextReport,
    /// What is compared with.
    pub baseline: BaselineReport,
    /// Every configuration, in the plan's order.
    pub configurations: Vec<ConfigurationReport>,
    /// Runs that failed.
    pub failures: Vec<Failure>,
}

/// What the others are compared with.
#[derive(Clone, Debug, Serialize)]
pub struct BaselineReport {
    /// The configuration, or the folders of its runs.
    pub name: String,
    /// Its scores; `null` if none of its runs has finished.
    pub score: Option<Summary>,
}

/// Runs that differ in their seeds alone. Scores are in bits per byte.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigurationReport {
    /// Its settings, for a table.
    pub name: String,
    /// Its settings.
    pub settings: Vec<(String, String)>,
    /// Whether the others are compared with it.
    pub is_baseline: bool,
    /// The scores of its finished runs; `null` if there is none.
    pub score: Option<Summary>,
    /// Mean number of steps.
    pub steps: Option<f64>,
    /// Bytes of its largest artifact.
    pub artifact_bytes: Option<u64>,
    /// Its mean against the baseline's; `null` for the baseline, and where there is no test.
    pub against_baseline: Option<TTest>,
    /// Why there is none.
    pub no_test: Option<String>,
    /// Its runs, in the order of their seeds.
    pub runs: Vec<RunRow>,
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct RunRow {
    /// Its seed.
    pub seed: u64,
    /// Its folder.
    pub folder: PathBuf,
    /// Its scores; `null` where it has not finished.
    pub bpb: Option<Scores>,
    /// Steps.
    pub steps: Option<u64>,
    /// Bytes of its artifact.
    pub artifact_bytes: Option<u64>,
    /// Seconds of training.
    pub training_s: Option<f64>,
    /// Seconds of evaluation.
    pub evaluation_s: Option<f64>,
}

/// Compares the runs of a sweep that have finished.
///
/// # Errors
/// [`SweepError::Incomparable`] where scores are not of the same text, device and precision.
pub fn report(
    sweep: &Sweep,
    checked: &CheckedSweep,
    failures: Vec<Failure>,
) -> Result<SweepReport, SweepError> {
    let configurations = sweep.plan.configurations();
    let finished =
        configurations.iter().map(|c| finished(sweep, c, checked)).collect::<Result<Vec<_>, _>>()?;
    let (name, baseline) = match &checked.reference {
        Reference::Configuration(index) => {
            (configurations[*index].to_string(), scores(finished[*index].iter().map(|run| &run.report)))
        }
        Reference::Runs(runs) => (runs.name.clone(), scores(runs.reports.iter())),
    };
    let is_baseline = |index| matches!(checked.reference, Reference::Configuration(i) if i == index);
    let rows = configurations.into_iter().zip(finished).enumerate();
    let configurations = rows.map(|(index, (configuration, finished))| {
        let compared = (!is_baseline(index)).then_some(&baseline[..]);
        ConfigurationReport::new(sweep, configuration, &finished, compared)
    });
    let Conditions { device, storage, score, text } = checked.conditions.clone();
    Ok(SweepReport {
        sweep: sweep.folder.clone(),
        model: checked.model.clone(),
        device,
        precision: storage.to_string(),
        score,
        text,
        configurations: configurations.collect(),
        baseline: BaselineReport { name, score: Summary::of(&baseline) },
        failures,
    })
}

/// The finished runs of a configuration. Their scores are of what all others are of.
fn finished(
    sweep: &Sweep,
    configuration: &Configuration,
    checked: &CheckedSweep,
) -> Result<Vec<FinishedRun>, SweepError> {
    let mut runs = Vec::new();
    for &seed in &sweep.plan.seeds {
        let run = PlannedRun { configuration: configuration.clone(), seed };
        if let RunState::Finished(finished) = sweep.state(&run)? {
            let conditions = Conditions::of_run(&finished, checked.default_storage)?;
            checked.conditions.compare("the sweep as it was checked", &conditions, &run.to_string())?;
            runs.push(*finished);
        }
    }
    Ok(runs)
}

fn scores<'a>(reports: impl Iterator<Item = &'a RunReport>) -> Vec<f64> {
    reports.filter_map(|report| Some(report.bpb.last()?.1)).collect()
}

impl ConfigurationReport {
    /// `baseline` is what is compared with, if anything.
    fn new(
        sweep: &Sweep,
        configuration: Configuration,
        finished: &[FinishedRun],
        baseline: Option<&[f64]>,
    ) -> ConfigurationReport {
        let reports = || finished.iter().map(|run| &run.report);
        let own = scores(reports());
        let steps: Vec<f64> = reports().map(|report| report.train.steps as f64).collect();
        let test = baseline.map(|baseline| welch(&own, baseline));
        let row = |&seed: &u64| {
            let report = reports().find(|report| report.seed == seed);
            let run = PlannedRun { configuration: configuration.clone(), seed };
            RunRow {
                seed,
                folder: sweep.folder_of(&run),
                bpb: report.map(|r| r.bpb),
                steps: report.map(|r| r.train.steps),
                artifact_bytes: report.map(|r| r.artifact.artifact_bytes),
                training_s: report.map(RunReport::training_seconds),
                evaluation_s: report.map(RunReport::evaluation_seconds),
            }
        };
        ConfigurationReport {
            runs: sweep.plan.seeds.iter().map(row).collect(),
            name: configuration.to_string(),
            is_baseline: test.is_none(),
            score: Summary::of(&own),
            steps: Summary::of(&steps).map(|steps| steps.mean),
            artifact_bytes: reports().map(|report| report.artifact.artifact_bytes).max(),
            against_baseline: test.and_then(Result::ok),
            no_test: test.and_then(|test| test.err().map(|why| why.to_string())),
            settings: configuration.settings,
        }
    }
}
