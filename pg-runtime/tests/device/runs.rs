//! Whole runs.

use pg_runtime::device::Device;
use pg_runtime::report::{Event, RunReport, StepMetrics};
use pg_runtime::run::{JobOptions, RunOptions, run};
use pg_testing::files::model_file;
use pg_testing::models::overrides;

/// Trains a small `tiny` for 20 steps and scores it in every way; its losses and its report.
fn trained(device: Device, more: &[&str]) -> (Vec<f64>, RunReport) {
    const SMALL: &[&str] =
        &["LAYERS=2", "DIM=24", "HEADS=3", "KV_HEADS=1", "eval.max_targets=511", "eval.stride=16"];
    let out = tempfile::tempdir().unwrap();
    let options = RunOptions {
        job: JobOptions {
            model: model_file("tiny.rs"),
            overrides: overrides(&[SMALL, more].concat()),
            steps: Some(20),
            batch_tokens: Some(256),
            micro_batch_tokens: Some(128),
            seq_len: Some(32),
            ..JobOptions::default()
        },
        out: Some(out.path().join("run")),
        device,
        ..RunOptions::default()
    };
    let mut placements = Vec::new();
    let mut note = |event| {
        if let Event::Note(note) = event
            && note.contains("on the host instead")
        {
            placements.push(note);
        }
    };
    let report = run(&options, &mut note).unwrap_or_else(|e| panic!("{e}"));
    let name = options.device.name().to_string();
    assert_eq!(placements.len(), 2, "training's programs and scoring's");
    for placement in placements {
        assert!(placement.starts_with(&name), "{placement}");
        assert!(placement.contains(", 0 of them on the host instead"), "{placement}");
    }
    let metrics = std::fs::read_to_string(out.path().join("run/metrics.jsonl")).unwrap();
    let loss = |line: &str| serde_json::from_str::<StepMetrics>(line).unwrap().loss;
    (metrics.lines().map(loss).collect(), report)
}

#[test]
fn training_scoring_and_test_time_training_agree_with_the_cpu() {
    let Some(device) = crate::device() else { return };
    let name = device.name().to_string();
    let plain: &[&str] = &["CLIP=0", "eval.ttt.chunk=128"];
    let (losses, here) = trained(device, plain);
    let (expected, cpu) = trained(Device::cpu(), plain);
    assert_eq!((losses.len(), &here.device), (20, &name));
    for (step, (a, b)) in losses.iter().zip(&expected).enumerate() {
        assert!((a - b).abs() < 1e-4, "step {step}: {a}, on the CPU {b}");
    }
    let scores = |r: &RunReport| {
        [r.bpb.initial, r.bpb.live, r.bpb.ema, r.bpb.quantized, r.bpb.sliding, r.bpb.ttt].map(|s| s.unwrap())
    };
    for (a, b) in scores(&here).into_iter().zip(scores(&cpu)) {
        assert!((a - b).abs() < 0.002, "{:?}, on the CPU {:?}", here.bpb, cpu.bpb);
    }
    assert!(here.ttt.is_some_and(|t| t.updates > 0), "nothing was adapted");
}
