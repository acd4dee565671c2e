//! `pg ops`: the reference of ops, from the op records, and of the functions that a model file can call.

use std::fmt::Write;

use pg_ir::lang;
use serde::Serialize;

use super::ui::Ui;

#[derive(Debug, Serialize)]
struct Entry {
    name: &'static str,
    signature: &'static str,
    maths: &'static str,
}

#[derive(Debug, Serialize)]
struct Function {
    name: String,
    signature: String,
    doc: String,
    /// `null` for what is built in.
    text: Option<String>,
}

#[derive(Debug, Serialize)]
struct Reference {
    ops: Vec<Entry>,
    functions: Vec<Function>,
}

/// Prints every op with its operands, results and mathematics, and every function of the language.
pub(crate) fn ops(ui: &Ui) -> anyhow::Result<()> {
    let records = pg_ir::ops::all();
    let entry = |r: &&pg_ir::op::Record| Entry { name: r.name, signature: r.signature, maths: r.maths };
    let function =
        |f: lang::Reference| Function { name: f.name, signature: f.signature, doc: f.doc, text: f.text };
    let reference = Reference {
        ops: records.iter().map(entry).collect(),
        functions: lang::reference().into_iter().map(function).collect(),
    };
    ui.report(&reference, || reference.text())?;
    Ok(())
}

impl Reference {
    fn text(&self) -> String {
        let count = self.ops.len();
        let mut out = format!("The {count} primitive ops. Everything else is written in the DSL.\n");
        for op in &self.ops {
            // Two lines an op: the mathematics of some is longer than a terminal is wide.
            let _ = write!(out, "\n{}: {}\n    {}\n", op.name, op.signature, op.maths);
        }
        let (library, builtins): (Vec<&Function>, Vec<&Function>) =
            self.functions.iter().partition(|f| f.text.is_some());
        for (title, functions) in [
            ("Functions that are built into the language.", builtins),
            ("Functions of the standard library, written in the language itself.", library),
        ] {
            let _ = write!(out, "\n\n{title}\n");
            for f in functions {
                let _ = write!(out, "\n{}\n", f.signature);
                f.doc.trim().lines().for_each(|line| {
                    let _ = writeln!(out, "    {}", line.trim());
                });
            }
        }
        out
    }
}
