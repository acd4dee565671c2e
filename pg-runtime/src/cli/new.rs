//! `pg new`: a model file that is another one, but …, or a whole one to begin with.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use pg_ir::lang::model::Model;
use pg_ir::lang::{Options, Source, elaborate, read_base};
use serde::Serialize;

use super::command::command;
use super::ui::Ui;

/// Arguments of `pg new`.
#[derive(Args, Debug)]
pub(crate) struct NewArgs {
    /// Name of the new model. Its file is NAME.rs, beside the one that it derives from; of one that derives from none, in
    /// the folder `models`, or here where there is none.
    #[arg(value_name = "NAME")]
    name: String,
    /// Model file to derive from [default: none: a small model, whole, to change as you like].
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    path: PathBuf,
    /// `null` of a model that derives from none.
    from: Option<PathBuf>,
}

/// The model that those begin as that derive from none.
const FIRST: &str = include_str!("../../sample/tiny.rs");
/// Its name.
const FIRST_NAME: &str = "tiny";

/// Writes the file, unless one is there.
pub(crate) fn new(args: NewArgs, ui: &Ui) -> anyhow::Result<()> {
    let NewArgs { name, from } = args;
    if !is_name(&name) {
        bail!(
            "`{name}` is not a model name: use lower-case letters, digits and `_`, beginning with a letter"
        );
    }
    let (path, text) = match &from {
        Some(from) => derived(&name, from)?,
        None => whole(&name),
    };
    // Never write what `pg` itself could not read.
    elaborate(&Source::parse(&path.to_string_lossy(), &text, &read_base)?, &Options::default())?;

    let created = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = created.with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    let report = Report { model: name, path, from };
    ui.report(&report, || report.text())?;
    Ok(())
}

/// Path and text of a model that derives from another.
fn derived(name: &str, from: &Path) -> anyhow::Result<(PathBuf, String)> {
    let model = elaborate(&Source::load(from)?, &Options::default())?;
    let base = from.file_name().context("--from must name a file")?.to_string_lossy().into_owned();
    Ok((from.with_file_name(format!("{name}.rs")), text(name, &base, &model)))
}

/// Path and text of a model that derives from none.
fn whole(name: &str) -> (PathBuf, String) {
    let folder = Path::new("models");
    let folder = if folder.is_dir() { folder } else { Path::new("") };
    let body = FIRST.split_once("\n").map_or(FIRST, |(_, body)| body);
    let body = body.replacen(&format!("\n    {FIRST_NAME} {{"), &format!("\n    {name} {{"), 1);
    (folder.join(format!("{name}.rs")), format!("//! A model of my own.\n{body}"))
}

impl Report {
    fn text(&self) -> String {
        let path = self.path.display().to_string();
        let mut next = vec![command(["check", &path]), command(["run", &path])];
        let what = match &self.from {
            Some(from) => {
                next.insert(1, command(["compare", &from.display().to_string(), &path]));
                format!("{}, but …", from.file_stem().unwrap_or_default().to_string_lossy())
            }
            None => "a small model.".into(),
        };
        format!("wrote {path}: {what} Edit it, then:\n  {}", next.join("\n  "))
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The new file: the base and a few of its constants to change, as comments.
fn text(name: &str, base: &str, model: &Model) -> String {
    let stem = base.trim_end_matches(".rs");
    let mut examples = String::new();
    for (constant, value) in model.consts.iter().take(4) {
        examples += &format!("        // const {constant} = {value};\n");
    }
    format!(
        "//! {stem}, but …\n\npg_macros::model! {{\n    /// {stem}, but …\n    {name} from \"{base}\" {{\n        \
         // What stands here replaces what {base} says: constants, functions, blocks of settings.\n{examples}    }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_model_is_that_of_the_repository() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny.rs");
        let text = std::fs::read_to_string(models).unwrap();
        assert_eq!(FIRST, text, "copy models/tiny.rs to pg-runtime/sample/tiny.rs");
    }

    #[test]
    fn a_whole_model_has_the_new_name() {
        let (_, text) = whole("mine");
        let source = Source::parse("mine.rs", &text, &|_| Err("it derives from none".into())).unwrap();
        assert_eq!(elaborate(&source, &Options::default()).unwrap().name, "mine");
    }

    #[test]
    fn names_are_rust_names() {
        assert!(is_name("my_idea2"));
        assert!(!["", "2x", "My", "a-b", "../x", "_x"].into_iter().any(is_name));
    }
}
