//! One side of a comparison: a model file, or a finished run with the model of its artifact.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use indexmap::IndexMap;
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
        let text = fs::read_to_string(&report).with_context(|| {
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

fn steps(path: &Path) -> anyhow::Result<Vec<StepMetrics>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(i, line)| {
            serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), i + 1))
        })
        .collect()
}
