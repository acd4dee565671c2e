//! `pg export --tensorboard`: a reader of TFRecord and of protobufs, written here from their descriptions, finds every step.

use pg_runtime::report::{RunReport, StepMetrics};
use pg_runtime::tensorboard::{Event, What};
use pg_testing::commands::{SMALL, Scratch, TINY};
use prost::Message;

/// CRC-32C, bit by bit.
fn crc32c(data: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    !data.iter().fold(!0, byte)
}

/// The records of a file, whose checksums hold.
fn records(mut file: &[u8]) -> Vec<Vec<u8>> {
    let masked = |data: &[u8]| {
        let crc = crc32c(data);
        crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
    };
    let mut all = Vec::new();
    while !file.is_empty() {
        let (length, rest) = file.split_at(8);
        let (check, rest) = rest.split_at(4);
        assert_eq!(check, masked(length));
        let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
        let (data, rest) = rest.split_at(length);
        let (check, rest) = rest.split_at(4);
        assert_eq!(check, masked(data));
        all.push(data.to_vec());
        file = rest;
    }
    all
}

#[test]
fn an_event_file_holds_what_the_run_measured() {
    // The check value of CRC-32C.
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    let dir = Scratch::new(env!("CARGO_BIN_EXE_pg"));
    let own =
        ["--set", "DIM=24", "--set", "eval.max_targets=255", "--batch-tokens", "128", "--no-validate", "-q"];
    let args = ["run", TINY, "--out", "run", "--steps", "5", "--val-every", "2", "--no-full-size"];
    let output = dir.pg(&[&args[..], &SMALL, &own].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = dir.pg(&["--json", "-q", "export", "run", "--tensorboard", "board/run"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let path = written["tensorboard"].as_str().unwrap();
    assert!(path.starts_with("board/run/events.out.tfevents."), "{path}");

    let report = RunReport::from_json(&std::fs::read(dir.path("run/report.json")).unwrap()).unwrap();
    let metrics = std::fs::read_to_string(dir.path("run/metrics.jsonl")).unwrap();
    let steps: Vec<StepMetrics> =
        metrics.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let file = std::fs::read(dir.path(path)).unwrap();
    let events: Vec<Event> =
        records(&file).iter().map(|record| Event::decode(&record[..]).unwrap()).collect();
    assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".into())));
    let values = |tag: &str| -> Vec<(i64, f32)> {
        let mut found = Vec::new();
        for event in &events {
            let Some(What::Summary(summary)) = &event.what else { continue };
            let of_tag = summary.value.iter().filter(|value| value.tag == tag);
            found.extend(of_tag.map(|value| (event.step, value.simple_value.unwrap())));
        }
        found
    };
    let losses: Vec<(i64, f32)> = steps.iter().map(|s| (s.step as i64 + 1, s.loss as f32)).collect();
    assert_eq!((losses.len(), values("train/loss")), (5, losses));
    assert_eq!(values("train/phase"), (1..=5).map(|step| (step, 0.0)).collect::<Vec<_>>());
    let bpb = &report.bpb;
    let [second, fourth] = [0, 1].map(|i| report.train.live_scores[i].bpb as f32);
    assert_eq!(values("val/live"), [(0, bpb.initial.unwrap() as f32), (2, second), (4, fourth)]);
    assert_eq!(values("score/test-time"), [(5, bpb.ttt.unwrap() as f32)]);
    assert!(events.windows(2).all(|pair| pair[0].wall_time <= pair[1].wall_time));
    let started: jiff::Timestamp = report.started.unwrap().parse().unwrap();
    assert_eq!(events[0].wall_time, started.as_second() as f64);

    // Only of a run, and together with weights where they are asked for.
    let refused = dir.pg(&["export", "run/artifact.pg", "--tensorboard", "board"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is no folder of one"));
    assert!(
        dir.pg(&["-q", "export", "run", "--tensorboard", "both", "--safetensors", "w.safetensors"])
            .status
            .success()
    );
    assert!(dir.path("both").is_dir() && dir.path("w.safetensors").is_file());
}
