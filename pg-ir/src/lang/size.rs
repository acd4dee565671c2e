//! Whether the artifact will fit, as a finding at the model's `export` block.

use super::diag::{Diagnostic, Diagnostics, Severity};
use crate::footprint::Moment;
use crate::lang::model::Model;

/// From this share of the cap on, an estimate is worth a warning.
const NEAR: f64 = 0.95;

impl Model {
    /// An error if the estimated artifact and the text it needs are over the cap, or cannot be estimated; a
    /// warning within 5 % of it; else nothing.
    pub fn check_size(&self) -> Diagnostics {
        let program = &self.program;
        let block = program.ast.blocks.iter().rev().find(|b| &*b.name.text == "export");
        let span = block.map_or(&program.ast.name.span, |b| &b.name.span);
        let cap = self.export.cap_bytes;
        let (severity, message, help) = match self.predict_size(Moment::Trained) {
            Err(e) => (Severity::Error, e.to_string(), "weight_std { \"blocks.*\" => 0.2, }"),
            Ok(p) => {
                let total = p.estimate_bytes + self.code_bytes();
                let severity = match total as f64 / cap as f64 {
                    share if share > 1.0 => Severity::Error,
                    share if share > NEAR => Severity::Warning,
                    _ => return Diagnostics::default(),
                };
                let relation = if severity == Severity::Error { "over" } else { "within 5 % of" };
                let message = format!(
                    "the artifact is estimated at {} bytes with the text it needs, {relation} the cap of {cap}",
                    total
                );
                (severity, message, "fewer bits (a smaller clip), fewer layers, or a smaller width")
            }
        };
        let mut d = Diagnostic::error(span, message).help(help);
        d.severity = severity;
        Diagnostics { list: vec![d], sources: program.all_texts() }
    }
}
