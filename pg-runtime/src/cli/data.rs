//! `pg data`: what is in token shards, and making them.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pg_runtime::data::{Dataset, Tokenizer, sample, stats};

use super::format::{grouped, table};
use super::help::{HelpArgs, help};
use super::tokenize::{TokenizeArgs, tokenize};
use super::ui::Ui;

/// Commands on data.
#[derive(Subcommand, Debug)]
pub(crate) enum DataCommand {
    /// Count shards, tokens, documents, targets and the bytes of text that targets stand for.
    Stats(StatsArgs),
    /// Turn text or JSON Lines into token shards with a SentencePiece model. Continues where it was stopped.
    Tokenize(TokenizeArgs),
    /// Say what a command does.
    Help(HelpArgs),
}

/// Arguments of `pg data stats`.
#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    /// Shards, a quoted pattern [default: the built-in sample's training text].
    #[arg(long, value_name = "GLOB", requires = "tokenizer")]
    data: Option<String>,
    /// The SentencePiece model of the shards [default: the sample's].
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

/// Runs a command on data.
pub(crate) fn data(command: DataCommand, ui: &Ui) -> anyhow::Result<()> {
    match command {
        DataCommand::Stats(args) => count(&args, ui),
        DataCommand::Tokenize(args) => tokenize(args, ui),
        DataCommand::Help(args) => help(args.under("data"), ui),
    }
}

fn count(args: &StatsArgs, ui: &Ui) -> anyhow::Result<()> {
    let tokenizer = match &args.tokenizer {
        Some(path) => Tokenizer::open(path)?,
        None => sample::tokenizer(),
    };
    let dataset = match &args.data {
        Some(pattern) => Dataset::open(pattern, tokenizer.vocab_size())?,
        None => sample::train(),
    };
    let stats = stats(&dataset, &tokenizer)?;
    let text = || {
        let per_target = stats.bytes as f64 / stats.targets.max(1) as f64;
        let rows = [
            ("shards", stats.shards as u64, "files".to_string()),
            ("tokens", stats.tokens, format!("ids below {}", tokenizer.vocab_size())),
            ("documents", stats.documents, "tokens that begin one".into()),
            ("targets", stats.targets, "tokens with one before them: what is scored".into()),
            ("bytes", stats.bytes, format!("of text behind the targets, {per_target:.4} a target")),
        ];
        let rows = rows.into_iter().map(|(n, v, of)| vec![n.into(), grouped(v), of]).collect();
        format!("{}\n{}", dataset.name(), table(&["", "count", "of"], &[1], rows))
    };
    ui.report(&stats, text)?;
    Ok(())
}
