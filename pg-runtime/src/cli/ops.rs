//! `pg ops`: the op reference, from the op records.

use serde::Serialize;

use super::format::table;
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
        let row = |e: &Entry| vec![e.name.into(), e.signature.into(), e.maths.into()];
        let rows = reference.ops.iter().map(row).collect();
        let count = reference.ops.len();
        format!(
            "The {count} primitive ops. Everything else is written in the DSL.\n{}",
            table(&["op", "operands -> results", "mathematics"], &[], rows)
        )
    };
    ui.report(&reference, text)?;
    Ok(())
}
