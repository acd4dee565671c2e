//! `pg export`: weights out of a run, an artifact or a seed, as safetensors or quantised into an artifact; a run's journal for
//! TensorBoard.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::Args;
use pg_ir::lang::model::Model;
use pg_ir::lang::{Options, Source};
use pg_runtime::artifact::write_atomically;
use pg_runtime::export::{self, Provenance};
use pg_runtime::init::initialise_all;
use pg_runtime::run::{FinishedRun, default_profile};
use pg_runtime::tensorboard;
use pg_runtime::weights::{self, Weights};
use serde::Serialize;

use super::format::grouped;
use super::model::{Variation, load};
use super::ui::Ui;

/// Arguments of `pg export`.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Where the weights come from: a run's folder (its averaged weights, unquantised), an artifact
    /// (dequantised), a .safetensors file, or a model file (initial weights).
    #[arg(value_name = "FROM")]
    from: PathBuf,
    /// Write float32 weights, which `pg run --init` reads.
    #[arg(long, value_name = "OUT", required_unless_present_any = ["artifact", "tensorboard"])]
    safetensors: Option<PathBuf>,
    /// Quantise as the model says and write an artifact.
    #[arg(long, value_name = "OUT")]
    artifact: Option<PathBuf>,
    /// Write what a run measured, step by step, and its scores as an event file for TensorBoard, into this folder.
    #[arg(long, value_name = "DIR")]
    tensorboard: Option<PathBuf>,
    /// The model of the weights, where it is not that of FROM: for another export of the same training.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    #[command(flatten)]
    variation: Variation,
    /// Seed of initial weights [default: the model's].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    params: usize,
    safetensors: Option<PathBuf>,
    artifact: Option<PathBuf>,
    artifact_bytes: Option<u64>,
    /// The event file.
    tensorboard: Option<PathBuf>,
}

/// Where weights come from.
enum Origin {
    Run(PathBuf),
    Model(PathBuf),
    Safetensors(PathBuf),
    Artifact(PathBuf),
}

impl Origin {
    fn of(path: &Path) -> Origin {
        let path = path.to_owned();
        match path.extension().and_then(|e| e.to_str()) {
            _ if path.is_dir() => Origin::Run(path),
            Some("rs") => Origin::Model(path),
            Some("safetensors") => Origin::Safetensors(path),
            _ => Origin::Artifact(path),
        }
    }
}

/// Writes what was asked for.
pub(crate) fn export(args: ExportArgs, ui: &Ui) -> anyhow::Result<()> {
    if args.safetensors.is_none() && args.artifact.is_none() {
        // Nobody asks for weights.
        let run = run_of(&args)?;
        let mut report = Report {
            model: run.report.model.clone(),
            params: run.report.trained_params,
            safetensors: None,
            artifact: None,
            artifact_bytes: None,
            tensorboard: None,
        };
        report.tensorboard = args.tensorboard.as_deref().map(|out| write_events(&run, out)).transpose()?;
        ui.report(&report, || report.text())?;
        return Ok(());
    }
    let options = options_of(&args, ui)?;
    let (model, weights) = weights_of(&args, &options, ui)?;
    let mut report = Report {
        tensorboard: args.tensorboard.as_deref().map(|out| write_events(&run_of(&args)?, out)).transpose()?,
        model: model.name.clone(),
        params: weights.values().map(Vec::len).sum(),
        safetensors: None,
        artifact: None,
        artifact_bytes: None,
    };
    if let Some(out) = &args.artifact {
        let own = matches!(Origin::of(&args.from), Origin::Model(_)).then_some(&args.from);
        let file = args.model.as_ref().or(own);
        let file =
            file.context("--artifact needs --model FILE: an artifact carries the text of its model")?;
        let seed = args.seed.unwrap_or(model.train.seed);
        let provenance = Provenance { source: Source::load(file)?, options, seed };
        report.artifact_bytes = Some(export::write(out, &model, &weights, &provenance)?.total_bytes);
        report.artifact = Some(out.clone());
    }
    if let Some(out) = &args.safetensors {
        weights::save(out, &model.params, &weights)?;
        report.safetensors = Some(out.clone());
    }
    ui.report(&report, || report.text())?;
    Ok(())
}

/// The run that FROM is.
fn run_of(args: &ExportArgs) -> anyhow::Result<FinishedRun> {
    match Origin::of(&args.from) {
        Origin::Run(folder) => Ok(FinishedRun::open(&folder)?),
        _ => bail!("--tensorboard is of a run: {} is no folder of one", args.from.display()),
    }
}

/// Writes a run's event file; the file.
fn write_events(run: &FinishedRun, folder: &Path) -> anyhow::Result<PathBuf> {
    let started = run.report.started.as_ref().and_then(|time| time.parse::<jiff::Timestamp>().ok());
    let started = started.unwrap_or_default().as_second();
    let text = tensorboard::event_file(&run.report, &run.steps()?, started as f64);
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // TensorBoard knows its files by this name; a run that is exported again replaces its own.
    let path = folder.join(format!("events.out.tfevents.{started:010}.pg"));
    write_atomically(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The model file in question, if any, elaborates under these: the profile is chosen as `pg run` does.
fn options_of(args: &ExportArgs, ui: &Ui) -> anyhow::Result<Options> {
    let origin = Origin::of(&args.from);
    if args.seed.is_some() && !matches!(origin, Origin::Model(_)) {
        bail!("--seed is of initial weights: these come from {}", args.from.display());
    }
    let file = match (&args.model, &origin) {
        (Some(file), _) | (None, Origin::Model(file)) => file,
        (None, Origin::Safetensors(_)) => return Ok(args.variation.options()),
        (None, Origin::Run(_) | Origin::Artifact(_)) => {
            if args.variation.profile.is_some() || !args.variation.overrides.is_empty() {
                bail!("--set and --profile vary a model file: give it with --model FILE");
            }
            return Ok(Options::default());
        }
    };
    let mut options = args.variation.options();
    if options.profile.is_none() {
        options.profile = default_profile(&Source::load(file)?, &options.overrides)?;
        if let Some(name) = &options.profile {
            ui.note(format_args!(
                "profile `{name}`, as `pg run` would; `--profile full` is the file as it stands"
            ));
        }
    }
    Ok(options)
}

fn weights_of(args: &ExportArgs, options: &Options, ui: &Ui) -> anyhow::Result<(Model, Weights)> {
    let named = args.model.as_ref().map(|file| load(file, options, ui)).transpose()?;
    let (model, weights) = match Origin::of(&args.from) {
        Origin::Model(file) => {
            let model = named.map_or_else(|| load(&file, options, ui), Ok)?;
            let weights = initialise_all(&model.params, args.seed.unwrap_or(model.train.seed))?;
            (model, weights)
        }
        Origin::Safetensors(file) => {
            let model = named.context("--model FILE must say which model these weights are of")?;
            let profile =
                options.profile.as_deref().map_or("no profile".into(), |p| format!("profile `{p}`"));
            let weights = weights::load(&file, &model.params)
                .map_err(|e| anyhow!("{e}\nthe model is under {profile}; `--profile` chooses another"))?;
            (model, weights)
        }
        Origin::Artifact(file) => {
            let loaded = export::read(&file)?;
            (named.unwrap_or(loaded.model), loaded.weights)
        }
        Origin::Run(folder) => {
            let own = || export::read(&folder.join("artifact.pg")).map(|loaded| loaded.model);
            let model = named.map_or_else(own, Ok)?;
            let weights = weights::load(&folder.join("weights.safetensors"), &model.params)?;
            (model, weights)
        }
    };
    // An artifact's weights may be exported under another model only if it scores with the same parameters.
    for param in model.stored_params() {
        let have = weights.get(&param.name).map(Vec::len);
        if have != Some(param.len()) {
            let from = args.from.display();
            bail!(
                "{from} does not hold the weights of {}: `{}` is missing or has another size",
                model.name,
                param.name
            );
        }
    }
    Ok((model, weights))
}

impl Report {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        if let (Some(path), Some(bytes)) = (&self.artifact, self.artifact_bytes) {
            lines.push(format!("wrote {}: {} bytes", path.display(), grouped(bytes)));
        }
        if let Some(path) = &self.safetensors {
            lines.push(format!(
                "wrote {}: {} parameters of {}",
                path.display(),
                grouped(self.params as u64),
                self.model
            ));
        }
        if let Some(path) = &self.tensorboard {
            lines.push(format!("wrote {}: the steps and scores of {}", path.display(), self.model));
        }
        lines.join("\n")
    }
}
