//! Two folders of kernels, compared: which kernels are the same, which changed and how.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use pg_ir::input::Kind;
use serde::Serialize;
use similar::{ChangeTag, TextDiff};

use super::dump::{INDEX, Index, Indexed};

/// How two folders differ.
#[derive(Debug, Default, Serialize)]
pub(super) struct Changes {
    same: usize,
    changed: Vec<Change>,
    added: Vec<Indexed>,
    removed: Vec<Indexed>,
}

/// A kernel that another took the place of.
#[derive(Debug, Serialize)]
struct Change {
    program: String,
    what: String,
    before: String,
    after: String,
    /// Of what they compute.
    diff: String,
    /// Lines of source that came and went.
    lines_added: usize,
    lines_removed: usize,
}

/// Compares two folders that `pg kernels --dump` wrote.
pub(super) fn diff(a: &Path, b: &Path) -> anyhow::Result<Changes> {
    let (before, after) = (index(a)?, index(b)?);
    let key = |k: &Indexed| (k.program.clone(), k.name.clone());
    let (old, new): (BTreeSet<_>, BTreeSet<_>) =
        (before.kernels.iter().map(key).collect(), after.kernels.iter().map(key).collect());
    let mut changes = Changes { same: old.intersection(&new).count(), ..Changes::default() };
    let mut left: Vec<Indexed> = after.kernels.into_iter().filter(|k| !old.contains(&key(k))).collect();
    for gone in before.kernels.into_iter().filter(|k| !new.contains(&key(k))) {
        let successor = left.iter().position(|k| k.program == gone.program && k.what == gone.what);
        match successor {
            Some(at) => changes.changed.push(Change::new(a, gone, b, left.remove(at))?),
            None => changes.removed.push(gone),
        }
    }
    changes.added = left;
    Ok(changes)
}

fn index(folder: &Path) -> anyhow::Result<Index> {
    let text = read(folder, INDEX)
        .with_context(|| format!("{} is no folder that `pg kernels --dump` wrote", folder.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", folder.join(INDEX).display()))
}

fn read(folder: &Path, name: &str) -> anyhow::Result<String> {
    let path = folder.join(name);
    Kind::KERNEL.read_text(&path).with_context(|| format!("cannot read {}", path.display()))
}

impl Change {
    fn new(a: &Path, before: Indexed, b: &Path, after: Indexed) -> anyhow::Result<Change> {
        let texts = (read(a, &format!("{}.txt", before.name))?, read(b, &format!("{}.txt", after.name))?);
        let sources = (read(a, &before.source)?, read(b, &after.source)?);
        let of_sources = TextDiff::from_lines(&sources.0, &sources.1);
        let count = |tag| of_sources.iter_all_changes().filter(|c| c.tag() == tag).count();
        let diff = TextDiff::from_lines(&texts.0, &texts.1).unified_diff().context_radius(1).to_string();
        Ok(Change {
            program: before.program,
            what: before.what,
            before: before.name,
            after: after.name,
            diff,
            lines_added: count(ChangeTag::Insert),
            lines_removed: count(ChangeTag::Delete),
        })
    }
}

impl Changes {
    pub(super) fn text(&self) -> String {
        let mut out = format!(
            "{} kernels are the same, {} changed, {} are new, {} are gone\n",
            self.same,
            self.changed.len(),
            self.added.len(),
            self.removed.len()
        );
        for c in &self.changed {
            out += &format!(
                "\n{}: {} → {}, source +{} −{} lines\n  {}\n{}",
                c.program, c.before, c.after, c.lines_added, c.lines_removed, c.what, c.diff
            );
        }
        for (sign, kernels) in [('+', &self.added), ('−', &self.removed)] {
            for k in kernels {
                out += &format!("\n{sign} {}: {}: {}", k.program, k.name, k.what);
            }
        }
        out
    }
}
