//! The `pg` command from outside, in a folder of its own.

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A folder that is removed at the end, and the command that works in it.
pub struct Scratch {
    folder: TempDir,
    pg: &'static str,
}

impl Scratch {
    /// An empty folder for the command at `pg`: a test's `env!("CARGO_BIN_EXE_pg")`.
    pub fn new(pg: &'static str) -> Scratch {
        Scratch { folder: tempfile::tempdir().expect("a temporary folder"), pg }
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command with its arguments, and a cache that nobody else has.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.pg);
        command.args(args).current_dir(self.folder.path()).env("PG_CACHE", self.path("cache"));
        command
    }

    /// Runs the command.
    pub fn pg(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("pg runs")
    }
}
