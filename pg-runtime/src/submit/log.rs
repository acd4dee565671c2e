//! The log of a run, in lines as the challenge's own script prints them.

use std::fmt::Write;

use super::Audited;
use crate::report::Scores;

/// `train_seed42.log`: what was run, every step, every score, sizes and times.
pub(super) fn text(run: &Audited) -> String {
    let (record, report) = (&run.run.record, &run.run.report);
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    line(format!(
        "pg:{} device:{} model:{} profile:{}",
        record.pg, record.device, report.model, report.profile
    ));
    line(format!("seed:{} params:{} trained_params:{}", report.seed, report.params, report.trained_params));
    let text = &record.text;
    if let Some(train) = &text.train {
        line(format!("train_loader:{} tokens:{} blake3:{}", train.name, train.tokens, train.hash));
    }
    line(format!("val_loader:{} tokens:{} blake3:{}", text.val.name, text.val.tokens, text.val.hash));
    line(format!("tokenizer_blake3:{} targets:{} bytes:{}", text.tokenizer, text.targets, text.bytes));
    let (steps, mut spent) = (report.train.steps, 0.0);
    for metrics in &run.steps {
        spent = metrics.elapsed_s * 1e3 + metrics.ms;
        let step = metrics.step + 1;
        line(format!(
            "step:{step}/{steps} train_loss:{:.4} train_time:{spent:.0}ms step_avg:{:.2}ms lr_scale:{:.4} grad_norm:{:.4}",
            metrics.loss,
            spent / step as f64,
            metrics.lr_scale,
            metrics.grad_norm
        ));
    }
    line(format!("stopped after step:{steps} train_time:{spent:.0}ms tokens:{}", report.train.tokens));
    for (name, bpb) in scores(&report.bpb) {
        line(format!("{name} val_loss:{:.8} val_bpb:{bpb:.8}", text.nats_per_token(bpb)));
    }
    if let Some(ttt) = &report.ttt {
        line(format!(
            "test_time chunks_scored:{} chunks_trained:{} updates:{}",
            ttt.chunks_scored, ttt.chunks_trained, ttt.updates
        ));
    }
    let sizes = &report.artifact;
    line(format!("Serialized model: {} bytes blake3:{}", sizes.artifact_bytes, sizes.hash));
    line(format!("Code size: {} bytes", sizes.code_bytes));
    line(format!("Total submission size: {} bytes", sizes.total_bytes));
    for entry in &report.ledger {
        line(format!("ledger {:.3}s {}", entry.seconds, entry.part));
    }
    line(format!("peak memory: {} bytes", report.peak_rss_bytes));
    out
}

/// Every score that a run has, by a name for a log.
fn scores(scores: &Scores) -> impl Iterator<Item = (&'static str, f64)> {
    let all = [
        ("initial", scores.initial),
        ("live", scores.live),
        ("averaged", scores.ema),
        ("final_quantized_roundtrip", scores.quantized),
        ("final_sliding_window", scores.sliding),
        ("final_test_time", scores.ttt),
    ];
    all.into_iter().filter_map(|(name, score)| Some((name, score?)))
}
