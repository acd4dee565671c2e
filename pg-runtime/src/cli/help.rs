//! `pg help`: commands, and the reference of the language by topic.

use std::fmt::Write;

use anyhow::bail;
use clap::error::ErrorKind;
use clap::{Args, Command, CommandFactory};
use pg_ir::lang::{SettingReference, Topic, nearest, settings, topics};
use serde::Serialize;

use super::Cli;
use super::ui::Ui;

/// Arguments of `pg help`.
#[derive(Args, Debug)]
pub(crate) struct HelpArgs {
    /// A command, as in `pg help run`; a topic of the model language, as in `pg help phases`; or `settings` and the start of
    /// a setting's name, as in `pg help settings eval.ttt`.
    #[arg(value_name = "COMMAND|TOPIC")]
    words: Vec<String>,
}

/// What is on standard output with `--json`: of these the one that was asked for.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Report {
    Command { command: String, help: String },
    Topic { topic: &'static str, title: &'static str, text: String },
    Settings { settings: Vec<Setting> },
    All { help: String, topics: Vec<(&'static str, &'static str)> },
}

#[derive(Debug, Serialize)]
struct Setting {
    path: &'static str,
    value: &'static str,
    unit: &'static str,
    default: String,
    doc: &'static str,
    example: &'static str,
}

const SETTINGS: (&str, &str) = ("settings", "Settings: every key of train, eval and export");

impl HelpArgs {
    /// The same of a command's commands.
    pub(crate) fn under(mut self, command: &str) -> HelpArgs {
        self.words.insert(0, command.into());
        self
    }
}

/// Prints what was asked for.
pub(crate) fn help(args: HelpArgs, ui: &Ui) -> anyhow::Result<()> {
    let mut pg = Cli::command();
    pg.build();
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    let report = match words[..] {
        [] => Report::All { help: text_of(&mut pg), topics: names() },
        ["settings", ref prefix @ ..] => Report::Settings { settings: beginning_with(prefix)? },
        [word] if find(word).is_some() => find(word).expect("found just now").into(),
        ref path => of_command(pg, path),
    };
    ui.report(&report, || report.text())?;
    Ok(())
}

/// Topics with what they are about.
fn names() -> Vec<(&'static str, &'static str)> {
    topics().iter().map(|topic| (topic.name, topic.title)).chain([SETTINGS]).collect()
}

/// The topic of a name, or of another word for it.
fn find(word: &str) -> Option<Topic> {
    let mut all = topics();
    let named = all.iter().position(|topic| topic.name == word);
    let at = named.or_else(|| all.iter().position(|topic| topic.also.contains(&word)))?;
    Some(all.swap_remove(at))
}

impl From<Topic> for Report {
    fn from(topic: Topic) -> Report {
        Report::Topic { topic: topic.name, title: topic.title, text: topic.text }
    }
}

/// The settings whose paths begin with a prefix, whole names of it.
fn beginning_with(prefix: &[&str]) -> anyhow::Result<Vec<Setting>> {
    let prefix = prefix.join(".");
    let all = settings();
    let fits = |s: &&SettingReference| {
        let rest = s.path.strip_prefix(prefix.as_str());
        prefix.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let found: Vec<Setting> = all.iter().filter(fits).map(Setting::from).collect();
    if found.is_empty() {
        // A last name alone is how a block writes it.
        let ends = |s: &&SettingReference| s.path.rsplit('.').next() == Some(&*prefix);
        let close = all.iter().find(ends).map(|s| s.path).or(nearest(&prefix, all.iter().map(|s| s.path)));
        bail!(match close {
            Some(best) => format!("there is no setting `{prefix}`: did you mean `{best}`?"),
            None => format!("there is no setting `{prefix}`: `pg help settings` lists all"),
        });
    }
    Ok(found)
}

impl From<&SettingReference> for Setting {
    fn from(s: &SettingReference) -> Setting {
        let SettingReference { path, kind, unit, doc, example, .. } = *s;
        Setting { path, value: kind, unit, default: s.default.clone(), doc, example }
    }
}

/// The help of a command, or of a command's command. A usage error where there is none.
fn of_command(mut pg: Command, path: &[&str]) -> Report {
    let mut command = &mut pg;
    for (i, word) in path.iter().enumerate() {
        let known: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_string()).collect();
        if !known.iter().any(|name| name == word) {
            let unknown = unknown(word, &known, i == 0);
            pg.error(ErrorKind::InvalidSubcommand, unknown).exit();
        }
        command = command.find_subcommand_mut(word).expect("it is among its commands");
    }
    Report::Command { command: path.join(" "), help: text_of(command) }
}

fn unknown(word: &str, commands: &[String], is_first: bool) -> String {
    let topics = topics();
    let words =
        topics.iter().flat_map(|topic| topic.also.iter().copied().chain([topic.name])).chain(["settings"]);
    let known: Vec<&str> = commands.iter().map(String::as_str).chain(words.filter(|_| is_first)).collect();
    match nearest(word, known) {
        Some(best) => format!("there is no command or topic `{word}`: did you mean `{best}`?"),
        None => format!("there is no command or topic `{word}`: `pg help` lists all"),
    }
}

fn text_of(command: &mut Command) -> String {
    command.render_long_help().to_string()
}

impl Report {
    fn text(&self) -> String {
        match self {
            Report::Command { help, .. } => help.clone(),
            Report::Topic { title, text, .. } => format!("{title}\n\n{}", plain(text)),
            Report::Settings { settings } => {
                settings.iter().map(Setting::text).collect::<Vec<_>>().join("\n")
            }
            Report::All { help, topics } => {
                let mut out =
                    format!("{}\n\nTopics of the model language (pg help TOPIC):\n", help.trim_end());
                for (name, title) in topics {
                    let _ = writeln!(out, "  {name:<12} {title}");
                }
                out
            }
        }
    }
}

impl Setting {
    fn text(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(", {}", self.unit) };
        format!(
            "{}: {}{unit} [default: {}]\n    {}\n    {}\n",
            self.path, self.value, self.default, self.doc, self.example
        )
    }
}

/// Markdown for a terminal: code is indented, and marks are left out.
pub(super) fn plain(markdown: &str) -> String {
    let mut out = String::new();
    let mut is_code = false;
    for line in markdown.lines() {
        if let Some(mark) = line.strip_prefix("```") {
            is_code = !is_code;
            if mark == "pg refused" {
                out += "    // refused:\n";
            }
        } else if is_code {
            let _ = writeln!(out, "{}", format!("    {line}").trim_end());
        } else {
            let _ = writeln!(out, "{}", line.replace("**", "").replace("\\|", "|"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_means_one_thing() {
        let all = topics();
        let words = || all.iter().flat_map(|t| t.also.iter().copied().chain([t.name])).chain(["settings"]);
        for word in words() {
            assert_eq!(words().filter(|w| *w == word).count(), 1, "{word}");
        }
        assert_eq!(find("quant").unwrap().name, "rules");
        assert!(find("nonsense").is_none());
    }

    #[test]
    fn markdown_becomes_text() {
        let text = plain("**A** `b`.\n\n```pg refused\nlet x;\n```\n\n```sh\npg\n```\n| a \\| b |\n");
        assert_eq!(text, "A `b`.\n\n    // refused:\n    let x;\n\n    pg\n| a | b |\n");
    }
}
