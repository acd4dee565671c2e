//! `pg kernels`: the generated kernels of a model, what each computes and costs, and their sources.

mod diff;
mod dump;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use clap::Args;
use pg_codegen::cube::Target;
use pg_codegen::target;
use pg_runtime::session::Session;

use self::report::Report;
use super::devices::read_tuning;
use super::model::{Variation, load};
use super::programs::{ProgramArgs, find};
use super::ui::Ui;

/// Arguments of `pg kernels`.
#[derive(Args, Debug)]
pub(crate) struct KernelsArgs {
    /// Model file.
    #[arg(value_name = "FILE", required_unless_present = "diff")]
    file: Option<PathBuf>,
    #[command(flatten)]
    variation: Variation,
    #[command(flatten)]
    programs: ProgramArgs,
    /// Machine to generate for: vulkan-cpu, h100 or h200.
    #[arg(long, value_name = "NAME", default_value = "h100")]
    target: String,
    /// Tile sizes, vector widths and split factors on top of the checked-in ones.
    #[arg(long, value_name = "FILE")]
    tuning: Option<PathBuf>,
    /// List every kernel, not only those with the largest shares.
    #[arg(long)]
    all: bool,
    /// Only kernels that this line of the model became, forward and backward.
    #[arg(long, value_name = "N", value_parser = super::run::count)]
    line: Option<usize>,
    /// Write, for each kernel, what it computes (.txt) and its source (.cu or .wgsl) into a folder.
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Compare two such folders.
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["file", "dump", "line"])]
    diff: Option<Vec<PathBuf>>,
}

/// Generates kernels and reports.
pub(crate) fn kernels(args: KernelsArgs, ui: &Ui) -> anyhow::Result<()> {
    if let Some([a, b]) = args.diff.as_deref() {
        let changes = diff::diff(a, b)?;
        ui.report(&changes, || changes.text())?;
        return Ok(());
    }
    let Some(file) = &args.file else { bail!("a model file is missing") };
    let machine = target::named(&args.target).map_err(|message| anyhow!(message))?;
    let Some((mut limits, language)) = Target::of(&machine) else {
        bail!(
            "for {} no kernels are generated: its executor runs plans as they are (see `pg plan`)",
            machine.name
        );
    };
    if let Some(path) = &args.tuning {
        let tuned = limits.tuning.with(&read_tuning(path)?, machine.name);
        limits.tuning = tuned.map_err(|what| anyhow!("{}, {what}", path.display()))?;
    }
    let model = load(file, &args.variation.options(), ui)?;
    let session = Session::new(Arc::new(model), args.programs.options());
    let mut named = args.programs.named(&session);
    if let Some(name) = &args.programs.program {
        let key = find(&named, name)?;
        named.retain(|(_, k)| *k == key);
    }
    let mut report = Report::new(&session, &named, &args.programs, (&machine, &limits))?;
    if let Some(line) = args.line {
        report.keep_line(file, line)?;
    }
    if let Some(folder) = &args.dump {
        let written = dump::dump(&report, language, folder)?;
        ui.note(format_args!("wrote {written} kernels to {}", folder.display()));
    }
    let all = args.all || args.line.is_some();
    ui.report(&report.public(), || report.text(all))?;
    Ok(())
}
