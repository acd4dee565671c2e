//! Commands that a result suggests, as a shell takes them.

use pg_runtime::run::{JobOptions, TextOptions, shell_word};

use super::model::Variation;

/// How the user called this program.
pub(crate) fn invocation() -> &'static str {
    // Cargo sets CARGO for what `cargo run` starts.
    if std::env::var_os("CARGO").is_some() { "cargo run --release --" } else { "pg" }
}

/// A command of this program, each argument quoted as far as it needs to be.
pub(crate) fn command<W: AsRef<str>>(words: impl IntoIterator<Item = W>) -> String {
    let mut line = invocation().to_string();
    for word in words {
        line.push(' ');
        line += &shell_word(word.as_ref());
    }
    line
}

/// The arguments that name a text.
pub(crate) fn text_arguments(text: &TextOptions) -> Vec<String> {
    JobOptions { text: text.clone(), ..JobOptions::default() }.arguments()
}

/// The arguments that name what only a run's scores are of.
pub(crate) fn scored_text_arguments(text: &TextOptions) -> Vec<String> {
    // Training text without a validation text is scored itself.
    let val = text.val.clone().or(text.data.clone());
    text_arguments(&TextOptions { data: None, val, ..text.clone() })
}

/// The arguments that vary a model.
pub(crate) fn variation_arguments(variation: &Variation) -> Vec<String> {
    let Variation { overrides, profile } = variation.clone();
    JobOptions { overrides, profile, ..JobOptions::default() }.arguments()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_meant() {
        let words = ["run", "my models/a b.rs", "--data", "d/*.bin", "--set", "A=[1, 2]", "it's", ""];
        let line = command(words);
        let read = shlex::split(&line).unwrap();
        assert!(read.ends_with(&words.map(String::from)), "{line}");
        // What needs no quotes has none.
        assert!(line.contains(" run 'my models/a b.rs' --data "), "{line}");
    }
}
