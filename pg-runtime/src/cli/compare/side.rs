//! One side of a comparison: a model file, or a finished run with the model of its artifact.

use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use indexmap::IndexMap;
use pg_ir::input::{self, Kind};
use pg_ir::lang::Options;
use pg_ir::lang::model::Model;
use pg_runtime::export;
use pg_runtime::report::{RunReport, StepMetrics};

use crate::cli::model;
use crate::cli::model_summary::ModelSummary;
use crate::cli::ui::Ui;

/// What is known of one side.
pub(super) struct Side {
    pub(super) constants: IndexMap<String, String>,
    pub(super) facts: ModelSummary,
    /// The run, if this side is one.
    pub(super) run: Option<FinishedRun>,
}

/// A finished run.
pub(super) struct FinishedRun {
    pub(super) report: RunReport,
    pub(super) steps: Vec<StepMetrics>,
}

impl Side {
    /// Reads a model file or a run's folder.
    pub(super) fn load(path: &Path, ui: &Ui) -> anyhow::Result<Side> {
        if !path.is_dir() {
            if path.extension().is_none_or(|e| e != "rs") {
                bail!("{}: expected a model file (.rs) or the folder of a run", path.display());
            }
            return Side::new(model::load(path, &Options::default(), ui)?, None);
        }
        let report = path.join("report.json");
        let text = Kind::JSON.read_text(&report).with_context(|| {
            format!("{} is not the folder of a finished run: {}", path.display(), report.display())
        })?;
        let report = serde_json::from_str(&text).with_context(|| format!("{}", report.display()))?;
        let run = FinishedRun { report, steps: steps(&path.join("metrics.jsonl"))? };
        Side::new(export::read(&path.join("artifact.pg"))?.model, Some(run))
    }

    fn new(model: Model, run: Option<FinishedRun>) -> anyhow::Result<Side> {
        let facts = ModelSummary::of(&model).map_err(|e| anyhow!("{}: {e}", model.name))?;
        Ok(Side { constants: model.consts, facts, run })
    }

    /// The run's report.
    pub(super) fn report(&self) -> Option<&RunReport> {
        self.run.as_ref().map(|r| &r.report)
    }
}

/// Most steps that are compared: fifty times those of the challenge's longest runs.
const MAX_STEPS: usize = 1 << 20;

fn steps(path: &Path) -> anyhow::Result<Vec<StepMetrics>> {
    let (file, _) = input::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut reader = BufReader::new(file);
    let (mut steps, mut line) = (Vec::new(), Vec::new());
    for number in 1.. {
        let here = || format!("{}, line {number}", path.display());
        line.clear();
        if !input::read_line(&mut reader, StepMetrics::MAX_LINE, &mut line).with_context(here)? {
            break;
        }
        if steps.len() == MAX_STEPS {
            bail!("{}: more than {MAX_STEPS} steps: is it the metrics of one run?", here());
        }
        if !line.trim_ascii().is_empty() {
            steps.push(serde_json::from_slice(&line).with_context(here)?);
        }
    }
    Ok(steps)
}
