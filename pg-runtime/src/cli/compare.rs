//! `pg compare`: two models or runs side by side, or groups of runs.

mod curves;
mod differences;
mod groups;
mod pair;
mod side;

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use super::ui::Ui;

/// Arguments of `pg compare`.
#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    /// Model files or run folders. Two are shown side by side; of more, each is a group of its own.
    #[arg(value_name = "A", required = true)]
    paths: Vec<PathBuf>,
    /// Groups of runs, as of the seeds of one configuration, each after a `--`. A path may be a folder of run folders, as
    /// `pg sweep` leaves them.
    #[arg(value_name = "B", last = true)]
    others: Vec<PathBuf>,
}

impl CompareArgs {
    /// The paths of each group; `None` for two sides.
    fn groups(&self) -> Option<Vec<Vec<PathBuf>>> {
        if self.others.is_empty() {
            let each = self.paths.iter().map(|path| vec![path.clone()]);
            return (self.paths.len() != 2).then(|| each.collect());
        }
        // clap takes the first `--`; what follows it is as it was written.
        let others = self.others.split(|path| path.as_os_str() == "--").map(<[PathBuf]>::to_vec);
        Some(std::iter::once(self.paths.clone()).chain(others).collect())
    }
}

/// Compares and reports.
pub(crate) fn compare(args: CompareArgs, ui: &Ui) -> anyhow::Result<()> {
    let Some(groups) = args.groups() else {
        let report = pair::Report::new(&args.paths[0], &args.paths[1], ui)?;
        ui.report(&report, || report.text())?;
        return Ok(());
    };
    ensure!(groups.iter().all(|group| !group.is_empty()), "a group between `--` is empty");
    let report = groups::Report::new(groups)?;
    ui.report(&report, || report.text())?;
    Ok(())
}
