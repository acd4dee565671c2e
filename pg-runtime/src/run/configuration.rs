//! The configuration that a run would have: every constant and setting, its value, and who gave it.

use pg_ir::config;
use serde::Serialize;

use super::model::{self, Loaded};
use super::prepare::train_plan;
use super::{RunError, RunOptions, requests};
use crate::report::Observer;

/// A run's configuration. Field names are a public interface.
#[derive(Clone, Debug, Serialize)]
pub struct Configuration {
    /// Name of the model.
    pub model: String,
    /// Profile in force.
    pub profile: Option<String>,
    /// The device.
    pub device: String,
    /// How training would store activations and operands.
    pub precision: String,
    /// Constants of the model's text, in its order.
    pub constants: Vec<ConfigurationValue>,
    /// Settings of its `train`, `eval` and `export` blocks.
    pub settings: Vec<ConfigurationValue>,
    /// The schedule's constants at the planned steps, in words.
    pub schedule: String,
}

/// A constant or a setting.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ConfigurationValue {
    /// Its name: `LAYERS`, `train.seq_len`.
    pub name: String,
    /// Its value, as a model file writes it.
    pub value: String,
    /// Who gave it: `default`, `model`, `profile NAME`, or the option of the command line that gave it: `--set`, `--seq-len`.
    pub from: String,
}

/// The configuration of a run with these options.
///
/// # Errors
/// If the model does not check under them.
pub fn configuration(options: &RunOptions, observer: &mut Observer<'_>) -> Result<Configuration, RunError> {
    let Loaded { source, profile, chosen, model, .. } = model::load(options, observer)?;
    let value = |(name, value): (&String, &String)| ConfigurationValue {
        from: config::origin(&source, &chosen, name).to_string(),
        name: name.clone(),
        value: value.clone(),
    };
    let plan = train_plan(options, &model)?;
    let constants = model.consts.iter().map(value).collect();
    let settings = config::settings(&model).iter().map(value).collect();
    let session = requests::session(options, model);
    Ok(Configuration {
        model: session.model.name.clone(),
        profile,
        device: options.device.name().to_string(),
        precision: session.storage().to_string(),
        constants,
        settings,
        schedule: plan.schedule(plan.budget.planned(0, 0.0)).to_string(),
    })
}
