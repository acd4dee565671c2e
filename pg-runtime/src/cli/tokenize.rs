//! `pg data tokenize`: text into token shards.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pg_runtime::data::tokenize::{Format, Split, TokenizeOptions, tokenize as run};

use super::format::{grouped, table};
use super::progress::Progress;
use super::ui::Ui;

/// Arguments of `pg data tokenize`.
#[derive(Args, Debug)]
pub(crate) struct TokenizeArgs {
    /// Text or JSON Lines files, gzipped or not, in order.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// The SentencePiece model.
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// Folder of the shards.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What the shards' names begin with, as in NAME_train_000000.bin.
    #[arg(long, default_value = "text")]
    name: String,
    /// How many documents, from the first on, are for validation.
    #[arg(long, value_name = "N", default_value_t = 0)]
    val_docs: u64,
    /// Tokens in a full shard [default: 100,000,000].
    #[arg(long, value_name = "N")]
    shard_tokens: Option<usize>,
    /// The field of a JSON object that holds the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    field: String,
    /// How the files are read; `auto` goes by their names.
    #[arg(long, value_enum, default_value_t = FormatArg::Auto)]
    format: FormatArg,
    /// What a document of plain text is.
    #[arg(long, value_enum, default_value_t = SplitArg::File)]
    split: SplitArg,
    /// Remove the shards of an earlier run of this name.
    #[arg(long)]
    overwrite: bool,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum FormatArg {
    Auto,
    Jsonl,
    Text,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum SplitArg {
    File,
    BlankLine,
    Line,
}

/// Tokenizes; a run that was stopped continues.
pub(crate) fn tokenize(args: TokenizeArgs, ui: &Ui) -> anyhow::Result<()> {
    let mut options = TokenizeOptions::new(args.inputs, args.tokenizer, args.out, &args.name);
    options.format = match args.format {
        FormatArg::Auto => Format::Auto,
        FormatArg::Jsonl => Format::Jsonl,
        FormatArg::Text => Format::Text,
    };
    options.split = match args.split {
        SplitArg::File => Split::File,
        SplitArg::BlankLine => Split::BlankLine,
        SplitArg::Line => Split::Line,
    };
    options.field = args.field;
    options.val_docs = args.val_docs;
    options.shard_tokens = args.shard_tokens.unwrap_or(options.shard_tokens);
    options.overwrite = args.overwrite;
    let mut progress = Progress::new(ui);
    let result = run(&options, &mut |event| progress.event(event));
    progress.finish();
    let report = result?;
    let text = || {
        let parts = [("validation", &report.val), ("training", &report.train)];
        let row = |(name, part): (&str, &pg_runtime::data::tokenize::PartReport)| {
            let counts = [part.shards as u64, part.documents, part.tokens];
            let counts = counts.into_iter().map(grouped);
            [name.to_string()].into_iter().chain(counts).chain([part.pattern.clone()]).collect()
        };
        let rows = parts.into_iter().filter(|(_, part)| part.shards > 0).map(row).collect();
        let columns = ["", "shards", "documents", "tokens", "pattern for --data and --val"];
        format!(
            "{}\n{} bytes of text in {:.1} s",
            table(&columns, &[1, 2, 3], rows),
            grouped(report.text_bytes),
            report.seconds
        )
    };
    ui.report(&report, text)?;
    Ok(())
}
