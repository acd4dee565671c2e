//! The `pg` command from outside, in a folder of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The model that runs of a moment are of.
pub const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny.rs");

/// Arguments that make it small: settings first, then sizes. A width that its three heads divide, as 24, goes with them.
pub const SMALL: [&str; 12] = [
    "--set",
    "LAYERS=2",
    "--set",
    "HEADS=3",
    "--set",
    "KV_HEADS=1",
    "--set",
    "eval.stride=16",
    "--micro-batch-tokens",
    "128",
    "--seq-len",
    "32",
];

/// Of [`SMALL`], the settings.
pub const SMALL_SETTINGS: usize = 8;

/// Waits until a file is there, and so many lines are in it.
///
/// # Panics
/// If the process ends before, or within a minute nothing comes.
pub fn wait_for(path: &Path, lines: usize, child: &mut Child) {
    let start = Instant::now();
    let count = || std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    while count() < lines {
        let has_ended = child.try_wait().expect("the process is a child").is_some();
        assert!(!has_ended, "it ended before {}", path.display());
        assert!(start.elapsed() < Duration::from_secs(60), "{} does not come", path.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

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

    /// The command, whose output is for its caller to read once it has been started.
    pub fn piped(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the command.
    pub fn pg(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("pg runs")
    }
}
