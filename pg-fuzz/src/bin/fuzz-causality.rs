//! Random graphs against the proof of causality: `fuzz-causality --seeds 0..100000`, or one seed with `--seed`.

use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use pg_fuzz::causality::{check, graph, search};
use pg_fuzz::search::parse_seeds;

/// Random graphs with masks of positions. What the proof accepts must not leak: no token, changed, may change a logit of
/// an earlier position or of another sequence.
#[derive(Parser, Debug)]
#[command(name = "fuzz-causality", group(ArgGroup::new("what").required(true)))]
struct Args {
    /// Check these seeds.
    #[arg(long, value_name = "FROM..TO", group = "what", value_parser = parse_seeds)]
    seeds: Option<(u64, u64)>,
    /// Check one seed, and print its graph.
    #[arg(long, value_name = "N", group = "what")]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let is_right = if let Some(seed) = args.seed {
        let ((graph, logits), verdict) = (graph(seed), check(seed));
        println!("{graph}logits {logits}\n{verdict:?}");
        verdict.proof.is_err() || verdict.leak.is_none()
    } else {
        let (from, to) = args.seeds.unwrap_or_default();
        let totals = search(from..to);
        println!("{totals}");
        totals.leaks.is_empty()
    };
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
