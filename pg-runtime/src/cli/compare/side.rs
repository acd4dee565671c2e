//! One side of a comparison: a model file, or a finished run with the model of its artifact.

use std::path::Path;

use anyhow::{anyhow, bail};
use pg_ir::lang::Options;
use pg_ir::lang::model::Model;
use pg_ir::ty::DType;
use pg_runtime::export;
use pg_runtime::report::{RunReport, StepMetrics};
use pg_runtime::run;
use pg_runtime::sweep::Conditions;

use crate::cli::model;
use crate::cli::model_summary::ModelSummary;
use crate::cli::ui::Ui;

/// What is known of one side.
pub(super) struct Side {
    pub(super) model: Model,
    pub(super) facts: ModelSummary,
    /// The run, if this side is one.
    pub(super) run: Option<FinishedRun>,
}

/// A finished run.
pub(super) struct FinishedRun {
    pub(super) run: run::FinishedRun,
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
        let run = run::FinishedRun::open(path)?;
        let model = export::read(&path.join("artifact.pg"))?.model;
        Side::new(model, Some(FinishedRun { steps: run.steps()?, run }))
    }

    fn new(model: Model, run: Option<FinishedRun>) -> anyhow::Result<Side> {
        let facts = ModelSummary::of(&model).map_err(|e| anyhow!("{}: {e}", model.name))?;
        Ok(Side { model, facts, run })
    }

    /// The run's report.
    pub(super) fn report(&self) -> Option<&RunReport> {
        self.run.as_ref().map(|r| &r.run.report)
    }
}

/// What a run's scores are of.
pub(super) fn conditions(run: &run::FinishedRun) -> Conditions {
    // Older reports do not say how training stored; without a word of it, Hopper stores bf16, and all others float32.
    let default = if run.record.device.starts_with("cuda") { DType::BF16 } else { DType::F32 };
    Conditions::of_any_run(run, default)
}
