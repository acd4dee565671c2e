//! `pg ops`: the op reference, from the op records.

use std::fmt::Write;

use serde::Serialize;

use super::ui::Ui;

#[derive(Debug, Serialize)]
struct Entry {
    name: &'static str,
    signature: &'static str,
    maths: &'static str,
}

#[derive(Debug, Serialize)]
struct Reference {
    ops: Vec<Entry>,
}

/// Prints every op with its operands, results and mathematics.
pub(crate) fn ops(ui: &Ui) -> anyhow::Result<()> {
    let records = pg_ir::ops::all();
    let entry = |r: &&pg_ir::op::Record| Entry { name: r.name, signature: r.signature, maths: r.maths };
    let reference = Reference { ops: records.iter().map(entry).collect() };
    let text = || {
        let count = reference.ops.len();
        let mut out = format!("The {count} primitive ops. Everything else is written in the DSL.\n");
        for op in &reference.ops {
            // Two lines an op: the mathematics of some is longer than a terminal is wide.
            let _ = write!(out, "\n{}: {}\n    {}\n", op.name, op.signature, op.maths);
        }
        out
    };
    ui.report(&reference, text)?;
    Ok(())
}
