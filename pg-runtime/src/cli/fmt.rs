//! `pg fmt`: model files with uniform spaces and indentation.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use pg_ir::input::Kind;
use pg_ir::lang::format;
use pg_runtime::artifact::write_atomically;
use serde::Serialize;

use super::ui::Ui;
use super::{Outcome, message};

/// Arguments of `pg fmt`.
#[derive(Args, Debug)]
pub(crate) struct FmtArgs {
    /// Model files, or `-` for standard input, whose formatted text goes to standard output.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Change nothing: list the files that differ, and end with exit code 1 if any does.
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Serialize)]
struct File {
    file: PathBuf,
    /// Whether formatting changes it; `null` where it does not parse.
    differs: Option<bool>,
    /// `-` without `--check`: the formatted text.
    text: Option<String>,
    /// Why it is left as it is.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    files: Vec<File>,
}

/// Formats every file that parses; fails if one does not, or, with `--check`, if one differs.
pub(crate) fn fmt(args: FmtArgs, ui: &Ui) -> anyhow::Result<Outcome> {
    let mut files = Vec::new();
    for file in args.files {
        let (differs, text, error) = match one(&file, args.check) {
            Ok((differs, text)) => (Some(differs), text, None),
            Err(error) => (None, None, Some(message(&error))),
        };
        error.iter().for_each(|error| ui.error(error));
        files.push(File { file, differs, text, error });
    }
    let report = Report { files };
    ui.report(&report, || report.text(args.check))?;
    let fails = |f: &File| f.error.is_some() || (args.check && f.differs == Some(true));
    Ok(if report.files.iter().any(fails) { Outcome::Failure } else { Outcome::Success })
}

/// Formats a file, or only looks; whether it differs, and the text of what has no file.
fn one(file: &Path, check: bool) -> anyhow::Result<(bool, Option<String>)> {
    if file == Path::new("-") {
        let mut text = String::new();
        // What is longer is refused by its length.
        let most = Kind::MODEL.most() + 1;
        io::stdin().lock().take(most).read_to_string(&mut text).context("cannot read standard input")?;
        let formatted = format("-", &text)?;
        return Ok((formatted != text, (!check).then_some(formatted)));
    }
    let name = file.to_string_lossy();
    let text = Kind::MODEL.read_text(file).with_context(|| format!("cannot read {name}"))?;
    let formatted = format(&name, &text)?;
    let differs = formatted != text;
    if differs && !check {
        // A link stays one.
        let target = fs::canonicalize(file).with_context(|| format!("cannot find {name}"))?;
        let permissions = fs::metadata(&target).map(|m| m.permissions());
        write_atomically(&target, formatted.as_bytes()).with_context(|| format!("cannot write {name}"))?;
        if let Ok(permissions) = permissions {
            fs::set_permissions(&target, permissions).with_context(|| format!("cannot write {name}"))?;
        }
    }
    Ok((differs, None))
}

impl Report {
    fn text(&self, check: bool) -> String {
        let verb = if check { "differs" } else { "formatted" };
        let line = |f: &File| match &f.text {
            Some(text) => Some(text.clone()),
            None => (f.differs == Some(true)).then(|| format!("{verb}: {}\n", f.file.display())),
        };
        self.files.iter().filter_map(line).collect()
    }
}
