//! What the phases found, as one report.

use super::export::Exported;
use super::prepare::Job;
use super::score::ArtifactScores;
use super::train::TrainFigures;
use crate::report::{ArtifactReport, COMMIT, MachineReport, RunReport, Scores, now};
use crate::session::Session;

/// The report of a run.
pub(super) fn report(
    job: &Job,
    session: &Session,
    trained: TrainFigures,
    exported: Exported,
    scored: ArtifactScores,
) -> RunReport {
    let (device, model) = (session.device(), &session.model);
    RunReport {
        schema: RunReport::SCHEMA,
        model: model.name.clone(),
        params: job.params,
        trained_params: model.param_count(),
        device: device.name().to_string(),
        profile: job.profile.clone().unwrap_or_else(|| "none".into()),
        seed: job.provenance.seed,
        sample: job.corpus.is_sample,
        text: Some(job.record.text.clone()),
        job: Some(job.record.job.clone()),
        init_hash: job.record.init_hash.clone(),
        pg: job.record.pg.clone(),
        commit: COMMIT.map(String::from),
        machine: Some(MachineReport::here()),
        precision: Some(session.storage().to_string()),
        started: job.record.started.clone(),
        ended: Some(now()),
        model_hash: Some(job.record.model_hash()),
        train: trained.report,
        bpb: Scores {
            initial: Some(trained.initial),
            live: Some(trained.live),
            ema: Some(trained.averaged),
            quantized: scored.plain,
            sliding: scored.sliding,
            ttt: scored.ttt.map(|(score, _)| score),
        },
        ttt: scored.ttt.map(|(_, facts)| facts),
        out_of_time: scored.out_of_time,
        validation: Some(job.validation.clone()),
        ledger: job.ledger.entries().to_vec(),
        quant_gap_bpb: scored.plain.map(|plain| plain - trained.averaged),
        artifact: ArtifactReport { hash: scored.hash, ..exported.report },
        peak_rss_bytes: peak_rss_bytes(),
        bundle: device.bundle_report(),
        run_dir: job.folder.path.clone(),
    }
}

/// The most memory this process has had, where the system says so.
fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
