//! `pg new`: a model file that is another one, but …

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use pg_ir::lang::model::Model;
use pg_ir::lang::{Options, Source, elaborate, read_base};
use serde::Serialize;

use super::summary::invocation;
use super::ui::Ui;

/// Arguments of `pg new`.
#[derive(Args, Debug)]
pub(crate) struct NewArgs {
    /// Name of the new model; its file is NAME.rs beside the one it derives from.
    #[arg(value_name = "NAME")]
    name: String,
    /// Model file to derive from.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    path: PathBuf,
    from: PathBuf,
}

/// Writes the file, unless one is there.
pub(crate) fn new(args: NewArgs, ui: &Ui) -> anyhow::Result<()> {
    let NewArgs { name, from } = args;
    if !is_name(&name) {
        bail!(
            "`{name}` is not a model name: use lower-case letters, digits and `_`, beginning with a letter"
        );
    }
    let model = elaborate(&Source::load(&from)?, &Options::default())?;
    let base = from.file_name().context("--from must name a file")?.to_string_lossy().into_owned();
    let path = from.with_file_name(format!("{name}.rs"));
    let text = text(&name, &base, &model);
    // Never write what `pg` itself could not read.
    let folder = from.parent().unwrap_or(Path::new(""));
    let read = |_: &str| read_base(&folder.join(&base).to_string_lossy());
    elaborate(&Source::parse(&path.to_string_lossy(), &text, &read)?, &Options::default())?;

    let created = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = created.with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    let report = Report { model: name, path, from };
    ui.report(&report, || {
        let (pg, path) = (invocation(), report.path.display());
        format!(
            "wrote {path}: {}, but … Edit it, then:\n  {pg} check {path}\n  {pg} compare {} {path}\n  {pg} run {path}",
            base.trim_end_matches(".rs"),
            report.from.display()
        )
    })?;
    Ok(())
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
    fn names_are_rust_names() {
        assert!(is_name("my_idea2"));
        assert!(!["", "2x", "My", "a-b", "../x", "_x"].into_iter().any(is_name));
    }
}
