//! Where words go: results on standard output, everything else on standard error.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;
use terminal_size::{Width, terminal_size_of};
use textwrap::core::display_width;

use super::command::invocation;
use super::table;

/// When to colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How to speak to the user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ui {
    json: bool,
    quiet: bool,
    color: bool,
    /// Columns of a line of results; `None` for as many as it needs.
    room: Option<usize>,
}

impl Ui {
    /// Results are as wide as their terminal, or as COLUMNS says; not `wide`, nor in a file or a pipe, whose reader has
    /// no width that we would know.
    pub(crate) fn new(json: bool, quiet: bool, color: Color, wide: bool) -> Ui {
        let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        let terminal = || {
            let size = if json { terminal_size_of(io::stderr()) } else { terminal_size_of(io::stdout()) };
            size.map(|(Width(columns), _)| columns.into())
        };
        let room = columns.filter(|columns| *columns > 0).or_else(terminal).filter(|_| !wide);
        table::set_room(room);
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let color = match color {
            Color::Auto => io::stderr().is_terminal() && !no_color,
            Color::Always => true,
            Color::Never => false,
        };
        Ui { json, quiet, color, room }
    }

    /// Whether the result is a JSON object.
    #[cfg(feature = "cube")]
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Arguments under which another process of this program speaks to the user as this one does, and to this one in JSON.
    pub(crate) fn of_child(&self) -> Vec<&'static str> {
        let color = if self.color { "always" } else { "never" };
        let mut args = vec!["--json", "--color", color];
        args.extend(self.quiet.then_some("--quiet"));
        args
    }

    /// Whether progress may be drawn over itself.
    pub(crate) fn can_draw(&self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// The result of a command: the JSON object, or the text. With `--json` the text goes to standard error.
    pub(crate) fn report(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        self.report_verbatim(value, || match self.room {
            Some(room) => wrapped(&text(), room),
            None => text(),
        })
    }

    /// The same of a text whose lines are what they are: of programs, of differences between files.
    pub(crate) fn report_verbatim(
        &self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> io::Result<()> {
        if !self.json {
            return print(&mut io::stdout().lock(), &text());
        }
        if !self.quiet {
            // Standard error is a courtesy here.
            let _ = print(&mut io::stderr().lock(), &text());
        }
        print(&mut io::stdout().lock(), &serde_json::to_string(value).map_err(io::Error::from)?)
    }

    /// A line worth reading.
    pub(crate) fn note(&self, text: impl fmt::Display) {
        if !self.quiet {
            // Nobody to tell if standard error is closed.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Something that may be wrong. Said even where quiet is wanted.
    pub(crate) fn warning(&self, text: &str) {
        self.labelled("warning", AnsiColor::Yellow, text);
    }

    /// What ends the command.
    pub(crate) fn error(&self, text: &str) {
        self.labelled("error", AnsiColor::Red, text);
    }

    /// `label: text`, the label in colour. Diagnostics bring the label along, on each of their findings.
    fn labelled(&self, label: &str, color: AnsiColor, text: &str) {
        let style = if self.color { color.on_default().bold() } else { Style::new() };
        let own = format!("{label}: ");
        let text = if text.starts_with(&own) { text.to_string() } else { format!("{own}{text}") };
        let mut err = io::stderr().lock();
        for line in text.trim_end().lines() {
            let _ = match line.strip_prefix(&own) {
                Some(rest) => writeln!(err, "{style}{label}{style:#}: {rest}"),
                None => writeln!(err, "{line}"),
            };
        }
    }
}

/// Lines of a text that are too long for the room, as several, indented below the first. A command to be copied stays whole.
fn wrapped(text: &str, room: usize) -> String {
    let line = |line: &str| {
        let start = line.trim_start();
        if display_width(line) <= room || start.starts_with(invocation()) {
            return line.to_string();
        }
        let indent = " ".repeat(line.len() - start.len() + 2);
        let options = textwrap::Options::new(room).subsequent_indent(&indent).break_words(false);
        textwrap::fill(line, options)
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn print(out: &mut impl Write, text: &str) -> io::Result<()> {
    let text = text.trim_end();
    if !text.is_empty() {
        writeln!(out, "{text}")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_wrapped_and_commands_are_not() {
        let text = format!("  one two three four\nshort\n  {} check a_long_name.rs", invocation());
        let lines = wrapped(&text, 12);
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines[..4], ["  one two", "    three", "    four", "short"]);
        assert!(lines[4].ends_with("check a_long_name.rs"), "{lines:?}");
    }
}
