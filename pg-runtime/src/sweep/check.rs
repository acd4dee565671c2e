//! What would fail after hours is found before the first run: every configuration is checked as its run would be.

use std::path::Path;

use pg_ir::ty::DType;

use super::baseline::{Baseline, Conditions, Reference};
use super::{Configuration, PlannedRun, SweepError, SweepPlan};
use crate::device::Device;
use crate::report::{Event, Observer};
use crate::run::{self, Checked, RunError, RunOptions};

/// A sweep whose every configuration can be run and compared.
#[derive(Clone, Debug)]
pub struct CheckedSweep {
    /// What its scores are compared with.
    pub reference: Reference,
    /// What its scores are of.
    pub conditions: Conditions,
    /// Name of the model.
    pub model: String,
    /// How the device stores activations and operands where nothing else is asked for.
    pub default_storage: DType,
}

/// Checks every configuration of a sweep on its device, that each value has an effect, that all are scored alike, and that
/// the baseline is one that they can be compared with. `cache` is where validations are remembered.
///
/// # Errors
/// [`SweepError`], naming every configuration that would fail.
pub fn check(
    plan: &SweepPlan,
    baseline: &Baseline,
    device: &Device,
    cache: Option<&Path>,
    observer: &mut Observer<'_>,
) -> Result<CheckedSweep, SweepError> {
    plan.check()?;
    let reference = baseline.resolve(plan, device)?;
    let configurations = plan.configurations();
    let mut refused = Vec::new();
    let mut first: Option<(String, Conditions, String)> = None;
    for configuration in &configurations {
        observer(Event::Note(format!("checks {configuration}")));
        let checked = match check_one(plan, configuration, device, cache, observer) {
            Ok(checked) => checked,
            Err(error) => {
                refused.push((configuration.to_string(), error));
                continue;
            }
        };
        has_effect(configuration, &checked)?;
        let conditions = Conditions::of_checked(&checked, device);
        match &first {
            None => first = Some((configuration.to_string(), conditions, checked.model)),
            Some((name, first, _)) => first.compare(name, &conditions, &configuration.to_string())?,
        }
    }
    let (name, conditions, model) = match first {
        Some(first) if refused.is_empty() => first,
        _ => return Err(SweepError::Configurations(refused)),
    };
    if let Reference::Runs(runs) = &reference {
        conditions.compare(&name, &runs.conditions, &runs.name)?;
    }
    let default_storage = device.machine().storage;
    Ok(CheckedSweep { reference, conditions, model, default_storage })
}

fn check_one(
    plan: &SweepPlan,
    configuration: &Configuration,
    device: &Device,
    cache: Option<&Path>,
    observer: &mut Observer<'_>,
) -> Result<Checked, RunError> {
    let seed = plan.seeds.first().copied().unwrap_or_default();
    let job = plan.job_of(&PlannedRun { configuration: configuration.clone(), seed });
    let cache = cache.map(Path::to_owned);
    let options = RunOptions { job, device: device.clone(), cache, ..RunOptions::default() };
    run::check(&options, observer)
}

/// A value that an argument overrides would make runs that are all the same.
fn has_effect(configuration: &Configuration, checked: &Checked) -> Result<(), SweepError> {
    for (name, value) in &configuration.settings {
        let in_force = checked.overrides.iter().rev().find(|(set, _)| set == name);
        if let Some((_, other)) = in_force.filter(|(_, in_force)| in_force != value) {
            let what = format!("`{name}` has no effect in --grid: another argument sets it to {other}");
            return Err(SweepError::Plan(what));
        }
    }
    Ok(())
}
