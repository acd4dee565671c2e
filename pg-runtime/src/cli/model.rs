//! Arguments that say which model is meant, and how it is loaded.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use pg_ir::lang::model::Model;
use pg_ir::lang::{Diagnostics, Options, Override, Severity, Source, elaborate};
use pg_ir::ty::DType;
use pg_runtime::session::Session;

use super::ui::Ui;

/// What changes a model from outside its file.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Variation {
    /// Override a constant or a setting, as in `LAYERS=6`, `VE_LAYERS=[4,5]`, `train.seed=7`.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    pub(crate) overrides: Vec<(String, String)>,
    /// Use a profile of the file (its overrides).
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,
}

impl Variation {
    pub(crate) fn options(&self) -> Options {
        let overrides = self.overrides.iter().cloned().map(Override::from).collect();
        Options { overrides, profile: self.profile.clone() }
    }
}

/// How training stores what it computes.
#[derive(Args, Clone, Debug)]
pub(crate) struct PrecisionArgs {
    /// How training stores activations and the operands of matrix products. Sums are float32 either way, and so are
    /// parameters, gradients and optimiser state. Scores are stored so where there are tensor cores, elsewhere as f32
    /// [default: bf16 where tensor cores take it, else f32].
    #[arg(long, value_enum, value_name = "TYPE")]
    precision: Option<Precision>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Precision {
    /// As computed.
    F32,
    /// Rounded: half the memory traffic, and products on tensor cores that take nothing else.
    Bf16,
}

impl PrecisionArgs {
    /// As asked for; `None` leaves it to the device.
    pub(crate) fn storage(&self) -> Option<DType> {
        self.precision.map(|p| match p {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        })
    }

    /// The session, storing as asked for.
    pub(crate) fn of(&self, session: Session) -> Session {
        match self.storage() {
            Some(storage) => session.storing(storage),
            None => session,
        }
    }
}

/// A model file, varied.
#[derive(Args, Clone, Debug)]
pub(crate) struct ModelArgs {
    /// Model file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) variation: Variation,
}

impl ModelArgs {
    /// Reads and checks the model; what is doubtful about it is said.
    pub(crate) fn load(&self, ui: &Ui) -> Result<Model, Diagnostics> {
        load(&self.file, &self.variation.options(), ui)
    }
}

/// Reads and checks a model; what is doubtful about it is said.
pub(crate) fn load(file: &Path, options: &Options, ui: &Ui) -> Result<Model, Diagnostics> {
    let model = elaborate(&Source::load(file)?, options)?;
    for finding in model.notes.list.iter().filter(|d| d.severity == Severity::Warning) {
        ui.warning(&model.notes.render(finding));
    }
    Ok(model)
}

/// `NAME=VALUE`.
pub(crate) fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() => {
            Ok((name.trim().to_string(), value.trim().to_string()))
        }
        _ => Err("expected NAME=VALUE, as in LAYERS=6".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_have_two_sides() {
        assert_eq!(assignment("A = [1, 2]"), Ok(("A".into(), "[1, 2]".into())));
        assert!(assignment("A").is_err() && assignment("=1").is_err() && assignment("A=").is_err());
    }
}
