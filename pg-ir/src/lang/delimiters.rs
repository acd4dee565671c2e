//! Which delimiter closes which, and which one is to blame where they do not match.

use std::sync::Arc;

use super::diag::Diagnostic;
use super::span::Span;

/// Delimiters that are open, and the first pair that stands at different depths of indentation: a hint at a
/// delimiter that was forgotten or is one too many.
#[derive(Default)]
pub(super) struct Delimiters {
    open: Vec<Opened>,
    crooked: Option<(Opened, (u32, u32))>,
}

#[derive(Clone, Copy)]
struct Opened {
    delimiter: char,
    at: (u32, u32),
    indent: u32,
}

impl Delimiters {
    pub(super) fn open(&mut self, delimiter: char, at: (u32, u32), indent: u32) {
        self.open.push(Opened { delimiter, at, indent });
    }

    /// # Errors
    /// It closes nothing, or not what was opened last.
    pub(super) fn close(
        &mut self,
        file: &Arc<str>,
        delimiter: char,
        at: (u32, u32),
        indent: u32,
    ) -> Result<(), Box<Diagnostic>> {
        let here = place(file, at);
        let Some(last) = self.open.pop() else {
            let d = Diagnostic::error(&here, format!("unexpected closing delimiter: `{delimiter}`"));
            return Err(Box::new(self.hint(file, d)));
        };
        if closing(last.delimiter) != delimiter {
            let d = Diagnostic::error(&here, format!("mismatched closing delimiter: `{delimiter}`"))
                .here("mismatched closing delimiter")
                .label(&place(file, last.at), "unclosed delimiter");
            return Err(Box::new(d));
        }
        if self.crooked.is_none() && last.at.0 != at.0 && last.indent != indent {
            self.crooked = Some((last, at));
        }
        Ok(())
    }

    /// What is said at the end of a text if something is open.
    pub(super) fn unclosed(&self, file: &Arc<str>, end: (u32, u32)) -> Option<Diagnostic> {
        let last = self.open.last()?;
        let d = Diagnostic::error(&place(file, last.at), format!("unclosed delimiter: `{}`", last.delimiter));
        // An inner group that took the delimiter of an outer one is where it is missing.
        let d = self.hint(file, d);
        Some(if self.crooked.is_some() { d } else { d.label(&place(file, end), "the file ends here") })
    }

    fn hint(&self, file: &Arc<str>, d: Diagnostic) -> Diagnostic {
        match self.crooked {
            Some((opened, closed)) => d
                .label(&place(file, opened.at), "this delimiter might not be closed where it should be")
                .label(&place(file, closed), "as it is closed here, at another indentation"),
            None => d,
        }
    }
}

fn place(file: &Arc<str>, (line, column): (u32, u32)) -> Span {
    Span { file: file.clone(), start: (line, column), end: (line, column + 1) }
}

fn closing(open: char) -> char {
    match open {
        '(' => ')',
        '[' => ']',
        _ => '}',
    }
}
