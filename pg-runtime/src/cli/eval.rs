//! `pg eval`: the scores of an artifact.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use pg_ir::slot::Space;
use pg_runtime::export;
use pg_runtime::report::{Scores, TextReport, TttReport};
use pg_runtime::run::{Corpus, Scorer, TextOptions};
use pg_runtime::session::Session;
use pg_runtime::state::State;
use serde::Serialize;

use super::devices::DeviceArgs;
use super::format::{adapted, bpb, grouped, scored, table};
use super::progress::Progress;
use super::ui::Ui;

/// Arguments of `pg eval`.
#[derive(Args, Debug)]
pub(crate) struct EvalArgs {
    /// Artifact, as `pg run` leaves it in DIR/artifact.pg.
    #[arg(value_name = "ARTIFACT")]
    artifact: PathBuf,
    /// Also score with test-time training: train on each chunk after it has been scored.
    #[arg(long)]
    ttt: bool,
    #[command(flatten)]
    text: ScoredTextArgs,
    /// Score at most this many targets [default: the model's].
    #[arg(long, value_name = "N", value_parser = super::run::count)]
    targets: Option<usize>,
    /// Targets that each sliding window scores [default: the model's].
    #[arg(long, value_name = "N", value_parser = super::run::count)]
    stride: Option<usize>,
    /// Seconds that the scores may take together; what would take longer is stopped [default: the model's].
    #[arg(long, value_name = "S", value_parser = super::run::positive)]
    eval_seconds: Option<f64>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// The text to score.
#[derive(Args, Debug)]
pub(crate) struct ScoredTextArgs {
    /// Shards to score, a quoted pattern [default: the built-in sample].
    #[arg(long, visible_alias = "val", value_name = "GLOB")]
    data: Option<String>,
    /// The SentencePiece model of the shards.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Shards of the bytes of text behind each token of the scored shards, where the tokenizer does not know them.
    #[arg(long, value_name = "GLOB", requires = "data")]
    val_bytes: Option<String>,
}

impl ScoredTextArgs {
    /// The text, where any of it is named.
    pub(crate) fn given(self) -> Option<TextOptions> {
        let ScoredTextArgs { data: val, tokenizer, val_bytes } = self;
        let text = TextOptions { val, tokenizer, val_bytes, data: None };
        (text != TextOptions::default()).then_some(text)
    }
}

#[derive(Debug, Serialize)]
struct Report {
    model: String,
    params: usize,
    device: String,
    artifact: PathBuf,
    artifact_bytes: u64,
    /// blake3 of the file.
    hash: String,
    text: TextReport,
    bpb: Scores,
    /// `null` without `--ttt`.
    ttt: Option<TttReport>,
}

/// Scores an artifact and reports.
pub(crate) fn eval(args: EvalArgs, ui: &Ui) -> anyhow::Result<()> {
    let device = args.device.open()?;
    let loaded = export::read(&args.artifact)?;
    let made_with = loaded.tokenizer().map(str::to_string);
    let mut model = loaded.model;
    if let Some(targets) = args.targets {
        model.eval.max_targets = Some(targets);
    }
    if let Some(stride) = args.stride {
        if stride > model.eval.seq_len {
            bail!(
                "--stride {stride} is larger than the window of {} tokens: some targets would not be scored",
                model.eval.seq_len
            );
        }
        model.eval.stride = stride;
    }
    if args.ttt && model.eval.ttt.is_none() {
        bail!("{} has no test-time training: its `eval` block has no `ttt`", model.name);
    }
    model.eval.seconds = args.eval_seconds.or(model.eval.seconds);
    let text = args.text.given().unwrap_or_default();
    let corpus = Corpus::open(&text, &model)?;
    corpus.doubts.iter().for_each(|doubt| ui.warning(doubt));
    if made_with.is_some_and(|hash| hash != corpus.tokenizer.hash()) {
        ui.warning(
            "the artifact was made with another tokenizer than the one in use: its tokens mean other text",
        );
    }
    let mut session = Session::on(device, Arc::new(model), Default::default());
    let mut state = session.state_with(&loaded.weights, &[Space::Param, Space::Grad, Space::Velocity])?;

    let scorer = Scorer::new(&corpus, &session);
    session.check_bundle(&scorer.programs(&session, args.ttt)?)?;
    let mut progress = Progress::new(ui);
    let scored = score(&corpus, &mut session, &mut state, args.ttt, &mut progress);
    progress.finish();
    let (bpb, ttt) = scored?;
    if let Some(bundle) = session.device().bundle_report() {
        ui.note(bundle);
    }
    let report = Report {
        model: session.model.name.clone(),
        params: session.model.stored_count(),
        device: session.device().name().to_string(),
        artifact: args.artifact,
        artifact_bytes: loaded.artifact.sizes.total_bytes,
        hash: loaded.artifact.hash,
        text: corpus.report(&session.model, None)?,
        bpb,
        ttt,
    };
    ui.report(&report, || report.text())?;
    Ok(())
}

fn score(
    corpus: &Corpus,
    session: &mut Session,
    state: &mut State,
    with_ttt: bool,
    progress: &mut Progress<'_>,
) -> anyhow::Result<(Scores, Option<TttReport>)> {
    let mut scorer = Scorer::new(corpus, session).within(session.model.eval.seconds);
    let mut bpb = Scores::default();
    let mut observer = |event| progress.event(event);
    bpb.quantized = Some(scorer.plain(session, state, "score the artifact", &mut observer)?);
    bpb.sliding = Some(scorer.sliding(session, state, &mut observer)?);
    let adapted = if with_ttt { scorer.ttt(session, state, &mut observer)? } else { None };
    bpb.ttt = adapted.map(|(score, _)| score);
    Ok((bpb, adapted.map(|(_, facts)| facts)))
}

impl Report {
    fn text(&self) -> String {
        let rows = [
            ("plain", self.bpb.quantized, "windows that do not overlap"),
            ("sliding", self.bpb.sliding, "every target scored once with a long context before it"),
            ("test-time", self.bpb.ttt, "sliding, and training on each chunk after it has been scored"),
        ];
        let rows = rows.into_iter().filter(|(_, v, _)| v.is_some());
        let mut rows: Vec<Vec<String>> = rows.map(|(n, v, why)| vec![n.into(), bpb(v), why.into()]).collect();
        rows.extend(self.ttt.as_ref().map(adapted));
        format!(
            "{}: {} parameters, {} bytes\n{}\n{}",
            self.model,
            grouped(self.params as u64),
            grouped(self.artifact_bytes),
            scored(&self.text),
            table(&["score", "bits per byte", "of"], &[1], rows)
        )
    }
}
