//! `pg ops`: the reference of ops, from the op records, and of the functions that a model file can call.

use std::fmt::Write;

use anyhow::bail;
use clap::Args;
use pg_ir::lang::{self, nearest};
use serde::Serialize;

use super::ui::Ui;

/// Arguments of `pg ops`.
#[derive(Args, Debug)]
pub(crate) struct OpsArgs {
    /// One of them, with its text and an example [default: all].
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

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
    example: &'static str,
}

#[derive(Debug, Serialize)]
struct Reference {
    ops: Vec<Entry>,
    functions: Vec<Function>,
}

/// Prints every op with its operands, results and mathematics, and every function of the language; or one of them.
pub(crate) fn ops(args: OpsArgs, ui: &Ui) -> anyhow::Result<()> {
    let records = pg_ir::ops::all();
    let entry = |r: &&pg_ir::op::Record| Entry { name: r.name, signature: r.signature, maths: r.maths };
    let mut reference = Reference {
        ops: records.iter().map(entry).collect(),
        functions: lang::reference().into_iter().map(Function::from).collect(),
    };
    if let Some(name) = &args.name {
        let all =
            || reference.ops.iter().map(|op| op.name).chain(reference.functions.iter().map(|f| &*f.name));
        if !all().any(|known| known == name) {
            bail!(match nearest(name, all()) {
                Some(best) => format!("there is no op or function `{name}`: did you mean `{best}`?"),
                None => format!("there is no op or function `{name}`: `pg ops` lists all"),
            });
        }
        reference.ops.retain(|op| op.name == name);
        reference.functions.retain(|f| f.name == *name);
    }
    ui.report(&reference, || if args.name.is_some() { reference.whole() } else { reference.list() })?;
    Ok(())
}

impl From<lang::Reference> for Function {
    fn from(f: lang::Reference) -> Function {
        Function { name: f.name, signature: f.signature, doc: f.doc, text: f.text, example: f.example }
    }
}

impl Reference {
    /// All of them, briefly.
    fn list(&self) -> String {
        let count = self.ops.len();
        let mut out =
            format!("The {count} primitive ops. Everything else is written in the model language.\n");
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
            functions.iter().for_each(|f| f.describe(&mut out));
        }
        out
    }

    /// One name: the function that models call, and the op of that name.
    fn whole(&self) -> String {
        let mut out = String::new();
        for f in &self.functions {
            f.describe(&mut out);
            match &f.text {
                Some(text) => _ = write!(out, "\nText:\n{}", indented(text)),
                None => out += "\nBuilt into the language.\n",
            }
            let _ = write!(out, "\nExample:\n{}", indented(f.example));
        }
        for op in &self.ops {
            let _ = write!(out, "\nThe op `{}`: {}\n    {}\n", op.name, op.signature, op.maths);
        }
        out.trim_start().into()
    }
}

impl Function {
    fn describe(&self, out: &mut String) {
        let _ = write!(out, "\n{}\n{}", self.signature, indented(self.doc.trim()));
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
