//! `pg kernels`: the generated kernels of a model, what each computes and costs, and their sources.

mod compiled;
mod diff;
mod dump;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use pg_runtime::session::Session;

use self::compiled::Compiled;
use self::report::Report;
use super::machine::{MachineArgs, absent};
use super::model::{PrecisionArgs, Variation, load};
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
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    /// Do not compile: leave out registers, spills, stack and occupancy.
    #[arg(long)]
    no_compile: bool,
    /// List every kernel, not only those with the largest shares.
    #[arg(long)]
    all: bool,
    /// Only kernels that this line of the model became, forward and backward.
    #[arg(long, value_name = "N", value_parser = super::run::count)]
    line: Option<usize>,
    /// Write, for each kernel, what it computes (.txt), its source (.cu or .wgsl) and, where it is compiled, its PTX
    /// (.ptx), instructions (.sass), loops (.loops.txt) and the assembler's report (.ptxas.txt) into a folder.
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
        ui.report_verbatim(&changes, || changes.text())?;
        return Ok(());
    }
    let Some(file) = &args.file else { bail!("a model file is missing") };
    let (machine, language) = args.machine.machine()?;
    let model = load(file, &args.variation.options(), ui)?;
    let session = Session::on(absent(machine.clone(), language), Arc::new(model), args.programs.options());
    let session = args.precision.of(session);
    let mut named = args.programs.named(&session);
    if let Some(name) = &args.programs.program {
        let key = find(&named, name)?;
        named.retain(|(_, k)| *k == key);
    }
    let mut report = Report::new(&session, &named, &args.programs, &machine)?;
    if let Some(line) = args.line {
        report.keep_line(file, line)?;
    }
    let all = args.all || args.line.is_some();
    if !args.no_compile {
        // A table shows the most expensive kernels: nobody should wait for the others.
        let wanted = report.shown(all || ui.is_json() || args.dump.is_some());
        report.compiled = Compiled::of(&machine, &wanted, ui)?;
    }
    if let Some(folder) = &args.dump {
        let written = dump::dump(&report, language, folder)?;
        ui.note(format_args!("wrote {written} kernels to {}", folder.display()));
    }
    ui.report(&report.public(), || report.text(all))?;
    Ok(())
}
