//! What a sweep runs: every combination of seeds and values, each with its place in the sweep's folder.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pg_ir::lang::{Diagnostics, Source};
use serde::{Deserialize, Serialize};

use super::SweepError;
use crate::run::{Interval, JobOptions, RunRecord};

/// The most runs of a sweep.
const MAX_RUNS: usize = 10_000;
/// The longest name of a configuration's folder, in bytes.
const MAX_FOLDER: usize = 120;
/// The setting that `--seeds` stands for.
const SEED: &str = "train.seed";

/// `sweep.json`: all that a sweep was asked for.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SweepPlan {
    /// Version of the program.
    pub pg: String,
    /// The device, by its name.
    pub device: String,
    /// `--tuning`.
    pub tuning: Option<PathBuf>,
    /// `--bundle`.
    pub bundle: Option<PathBuf>,
    /// `--checkpoint-every`, of each run.
    pub checkpoint_every: Interval,
    /// What the runs have in common. It has no seed.
    pub job: JobOptions,
    /// The model's texts, as a run's record holds them: every run is of these.
    pub sources: BTreeMap<String, String>,
    /// `--seeds`.
    pub seeds: Vec<u64>,
    /// `--grid`.
    pub grid: Vec<Axis>,
}

/// A constant or setting, and the values that it takes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Axis {
    /// Its name.
    pub name: String,
    /// Its values, as the model language writes them.
    pub values: Vec<String>,
}

/// A point of the grid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// A value of each axis, in the order of the axes.
    pub settings: Vec<(String, String)>,
}

/// A run of a sweep.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedRun {
    /// Its settings.
    pub configuration: Configuration,
    /// Its seed.
    pub seed: u64,
}

impl SweepPlan {
    /// The texts of a model file, for [`Self::sources`].
    ///
    /// # Errors
    /// If the file cannot be read or does not parse.
    pub fn sources_of(model: &Path) -> Result<BTreeMap<String, String>, Diagnostics> {
        Ok(RunRecord::sources_of(&Source::load(model)?))
    }

    /// Every point of the grid; the last axis varies fastest.
    pub fn configurations(&self) -> Vec<Configuration> {
        let mut all = vec![Configuration { settings: Vec::new() }];
        for axis in &self.grid {
            let with = |c: &Configuration, value: &String| {
                let mut settings = c.settings.clone();
                settings.push((axis.name.clone(), value.clone()));
                Configuration { settings }
            };
            all = all.iter().flat_map(|c| axis.values.iter().map(move |value| with(c, value))).collect();
        }
        all
    }

    /// Every run, configuration by configuration.
    pub fn runs(&self) -> Vec<PlannedRun> {
        let of = |configuration: Configuration| {
            let run = move |&seed: &u64| PlannedRun { configuration: configuration.clone(), seed };
            self.seeds.iter().map(run).collect::<Vec<_>>()
        };
        self.configurations().into_iter().flat_map(of).collect()
    }

    /// The job of a run.
    pub fn job_of(&self, run: &PlannedRun) -> JobOptions {
        let mut job = JobOptions { seed: Some(run.seed), ..self.job.clone() };
        job.overrides.extend(run.configuration.settings.iter().cloned());
        job
    }

    /// Checks that no run is asked for twice, and that nothing is set in two ways.
    ///
    /// # Errors
    /// [`SweepError::Plan`].
    pub fn check(&self) -> Result<(), SweepError> {
        let refuse = |what: String| Err(SweepError::Plan(what));
        if let Some(seed) = repeated(&self.seeds) {
            return refuse(format!("--seeds names {seed} twice"));
        }
        if self.seeds.is_empty() {
            return refuse("--seeds names none: a sweep has a run for each seed".into());
        }
        let names: Vec<&str> = self.grid.iter().map(|axis| axis.name.as_str()).collect();
        if let Some(name) = repeated(&names) {
            return refuse(format!("--grid names `{name}` twice: give all of its values at once"));
        }
        for Axis { name, values } in &self.grid {
            if let Some(value) = repeated(values) {
                return refuse(format!("--grid gives `{name}` the value {value} twice"));
            }
            if self.job.overrides.iter().any(|(set, _)| set == name) {
                return refuse(format!("`{name}` is in both --grid and --set: leave one of them out"));
            }
        }
        let set = self.job.overrides.iter().map(|(name, _)| name.as_str());
        if set.chain(names).any(|name| name == SEED) {
            return refuse(format!("`{SEED}` is what --seeds sets: leave it out of --set and --grid"));
        }
        let sizes = self.grid.iter().map(|axis| axis.values.len());
        let runs = sizes.fold(self.seeds.len(), usize::saturating_mul);
        if runs > MAX_RUNS {
            return refuse(format!("these are {runs} runs; a sweep has at most {MAX_RUNS}"));
        }
        Ok(())
    }

    /// What differs from another plan so that both cannot be of one folder, in words. More seeds and more values are no
    /// difference, fewer are.
    pub(super) fn difference(&self, old: &SweepPlan) -> Option<String> {
        let record = |plan: &SweepPlan| (plan.tuning.clone(), plan.bundle.clone());
        if self.pg != old.pg {
            return Some(format!("it is of pg {}, not {}", old.pg, self.pg));
        }
        if self.device != old.device || record(self) != record(old) {
            return Some(format!("it is on {} with other --device, --tuning or --bundle", old.device));
        }
        if let Some(what) = old.job.difference(&self.job) {
            return Some(what);
        }
        if self.sources != old.sources {
            return Some("its model text is another: the file has changed since".into());
        }
        let ours = self.runs();
        let missing = old.runs().into_iter().find(|run| !ours.contains(run))?;
        Some(format!("it has a run that this one lacks: {missing}"))
    }
}

/// A value that occurs twice.
fn repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    values.iter().enumerate().find(|(i, value)| values[..*i].contains(value)).map(|(_, value)| value)
}

impl PlannedRun {
    /// Its folder inside the sweep's: `DIM=24/seed-1`.
    pub fn folder(&self) -> PathBuf {
        self.configuration.folder().join(format!("seed-{}", self.seed))
    }
}

impl Configuration {
    /// Its folder inside the sweep's: its settings, where a folder can be called so, and else what tells it from others.
    pub fn folder(&self) -> PathBuf {
        if self.settings.is_empty() {
            return PathBuf::new();
        }
        let name = self.to_string();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "=,._+-".contains(c);
        if name.len() <= MAX_FOLDER && name.chars().all(is_plain) {
            return name.into();
        }
        let plain = name.chars().map(|c| if is_plain(c) { c } else { '_' }).take(MAX_FOLDER);
        let hash = blake3::hash(name.as_bytes()).to_hex();
        format!("{}-{}", plain.collect::<String>(), &hash[..8]).into()
    }
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.settings.is_empty() {
            return write!(f, "as given");
        }
        for (i, (name, value)) in self.settings.iter().enumerate() {
            write!(f, "{}{name}={value}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for PlannedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, seed {}", self.configuration, self.seed)
    }
}

/// `NAME=V1,V2`; commas inside brackets and quotes belong to a value.
impl FromStr for Axis {
    type Err = String;

    fn from_str(text: &str) -> Result<Axis, String> {
        let expected =
            || "expected NAME=VALUE,VALUE,…, as in LAYERS=6,8 or VE_LAYERS=[4,5],[5,6]".to_string();
        let (name, values) = text.split_once('=').ok_or_else(expected)?;
        let (mut depth, mut is_quoted) = (0i32, false);
        let is_separator = |c: char| {
            match c {
                '"' => is_quoted = !is_quoted,
                '[' | '(' | '{' if !is_quoted => depth += 1,
                ']' | ')' | '}' if !is_quoted => depth -= 1,
                _ => {}
            }
            c == ',' && depth == 0 && !is_quoted
        };
        let values: Vec<String> = values.split(is_separator).map(|value| value.trim().to_string()).collect();
        let name = name.trim().to_string();
        if name.is_empty() || values.iter().any(String::is_empty) {
            return Err(expected());
        }
        Ok(Axis { name, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(grid: &[&str]) -> SweepPlan {
        SweepPlan {
            pg: "1".into(),
            device: "cpu".into(),
            tuning: None,
            bundle: None,
            checkpoint_every: Interval::default(),
            job: JobOptions { overrides: vec![("A".into(), "1".into())], ..JobOptions::default() },
            sources: BTreeMap::new(),
            seeds: vec![3, 1],
            grid: grid.iter().map(|axis| axis.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn values_may_hold_commas() {
        let axis: Axis = "L = [4,5], [5, (6, 7)],\"a,b\"".parse().unwrap();
        assert_eq!(
            (axis.name.as_str(), axis.values),
            ("L", ["[4,5]", "[5, (6, 7)]", "\"a,b\""].map(String::from).into())
        );
        for wrong in ["L", "L=", "=1", "L=1,", "L=1,,2"] {
            assert!(wrong.parse::<Axis>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_combination_has_a_folder_of_its_own() {
        let plan = plan(&["L=[4,5],[45]", "D=1,2"]);
        plan.check().unwrap();
        let runs = plan.runs();
        assert_eq!(runs.len(), 8);
        assert_eq!(runs[1].to_string(), "L=[4,5],D=1, seed 1");
        let folders: std::collections::BTreeSet<PathBuf> = runs.iter().map(PlannedRun::folder).collect();
        assert_eq!(folders.len(), 8, "{folders:?}");
        let job = plan.job_of(&runs[0]);
        let set = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(job.overrides, [set("A", "1"), set("L", "[4,5]"), set("D", "1")]);
        assert_eq!(job.seed, Some(3));
        let slashes = Configuration { settings: vec![set("X", "../../etc")] }.folder();
        assert_eq!(slashes.components().count(), 1, "{slashes:?}");
    }

    #[test]
    fn what_is_set_twice_is_refused() {
        let refused = |plan: SweepPlan| plan.check().unwrap_err().to_string();
        assert!(refused(plan(&["A=1,2"])).contains("in both --grid and --set"));
        assert!(refused(plan(&["B=1", "B=2"])).contains("names `B` twice"));
        assert!(refused(plan(&["B=1,1"])).contains("the value 1 twice"));
        assert!(refused(plan(&["train.seed=1,2"])).contains("--seeds"));
        assert!(refused(SweepPlan { seeds: vec![1, 2, 1], ..plan(&[]) }).contains("names 1 twice"));
        let many: Vec<String> = (0..200).map(|i| i.to_string()).collect();
        let axes = ["B", "C"].map(|name| format!("{name}={}", many.join(",")));
        assert!(refused(plan(&[&axes[0], &axes[1]])).contains("80000 runs"));
    }

    #[test]
    fn a_plan_may_grow() {
        let (old, more) = (plan(&["B=1,2"]), plan(&["B=1,2,3"]));
        assert_eq!(more.difference(&old), None);
        assert!(old.difference(&more).unwrap().contains("B=3, seed 3"));
        let longer = SweepPlan { job: JobOptions { steps: Some(9), ..old.job.clone() }, ..old.clone() };
        assert_eq!(longer.difference(&old).as_deref(), Some("its `steps` is null, not 9"));
    }
}
