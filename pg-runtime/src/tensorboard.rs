//! A run's journal as a TensorBoard event file: records in TFRecord's framing, each an `Event` of TensorFlow's `event.proto`.

use crc::{CRC_32_ISCSI, Crc};
use prost::{Message, Oneof};

use crate::report::{RunReport, StepMetrics};

/// `tensorflow.Event`: the fields that are used.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    pub wall_time: f64,
    /// Steps done.
    #[prost(int64, tag = "2")]
    pub step: i64,
    /// What happened.
    #[prost(oneof = "What", tags = "3, 5")]
    pub what: Option<What>,
}

/// `tensorflow.Event.what`.
#[derive(Clone, PartialEq, Oneof)]
pub enum What {
    /// The first event's: the version of the file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    /// Values.
    #[prost(message, tag = "5")]
    Summary(Summary),
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
pub struct Summary {
    /// Its values.
    #[prost(message, repeated, tag = "1")]
    pub value: Vec<Value>,
}

/// `tensorflow.Summary.Value`: a scalar.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// What it is of, as in `train/loss`.
    #[prost(string, tag = "1")]
    pub tag: String,
    /// The value. A member of a oneof, so it is written even where it is 0.
    #[prost(float, optional, tag = "2")]
    pub simple_value: Option<f32>,
}

/// The version of event files that holds summaries.
const VERSION: &str = "brain.Event:2";

/// The file of a run's steps and scores. Steps count from 1: a value is of what so many steps gave. `started` is in seconds
/// since 1970.
pub fn event_file(report: &RunReport, steps: &[StepMetrics], started: f64) -> Vec<u8> {
    let first = Event { wall_time: started, step: 0, what: Some(What::FileVersion(VERSION.into())) };
    let mut events = vec![first];
    let initial = report.bpb.initial.map(|bpb| ("val/live", bpb));
    events.extend(initial.map(|value| event(started, 0, &[value])));
    let mut scores = report.train.live_scores.iter().peekable();
    for metrics in steps {
        let (done, time) = (metrics.step + 1, started + metrics.elapsed_s + metrics.ms / 1e3);
        let values = [
            ("train/loss", metrics.loss),
            ("train/lr_scale", metrics.lr_scale),
            ("train/grad_norm", metrics.grad_norm),
            ("train/phase", metrics.phase as f64),
            ("train/ms_per_step", metrics.ms),
        ];
        events.push(event(time, done, &values));
        while let Some(score) = scores.next_if(|score| score.after_steps <= done) {
            events.push(event(time, score.after_steps, &[("val/live", score.bpb)]));
        }
    }
    let (done, end) = (report.train.steps, started + steps.last().map_or(0.0, |s| s.elapsed_s + s.ms / 1e3));
    let finals = report.bpb.named().into_iter().filter(|(name, _)| *name != "initial");
    let tags: Vec<(String, f64)> =
        finals.filter_map(|(name, bpb)| Some((format!("score/{name}"), bpb?))).collect();
    let finals: Vec<(&str, f64)> = tags.iter().map(|(tag, bpb)| (tag.as_str(), *bpb)).collect();
    events.push(event(end, done, &finals));
    events.iter().flat_map(|event| record(&event.encode_to_vec())).collect()
}

fn event(wall_time: f64, step: u64, values: &[(&str, f64)]) -> Event {
    let value = |&(tag, value): &(&str, f64)| Value { tag: tag.into(), simple_value: Some(value as f32) };
    let summary = Summary { value: values.iter().map(value).collect() };
    Event { wall_time, step: i64::try_from(step).unwrap_or(i64::MAX), what: Some(What::Summary(summary)) }
}

/// A record of a TFRecord file: length, its checksum, the data, its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length).to_le_bytes(), data, &masked(data).to_le_bytes()].concat()
}

/// CRC-32C, masked as TFRecord does: the checksum of a text that holds checksums would be weak.
fn masked(data: &[u8]) -> u32 {
    const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
    CRC.checksum(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As TensorFlow writes it: every event file begins so, but for the time.
    #[test]
    fn a_record_is_tensorflows() {
        let first = Event { wall_time: 1.5, step: 0, what: Some(What::FileVersion(VERSION.into())) };
        let record = record(&first.encode_to_vec());
        assert_eq!(record[..12], [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
        assert_eq!(record[12], 0x09);
        assert_eq!(record[13..21], 1.5f64.to_le_bytes());
        assert_eq!(&record[21..36], b"\x1a\x0dbrain.Event:2");
        assert_eq!(record.len(), 12 + 24 + 4);
    }

    /// A value of 0 is one, and not the lack of one.
    #[test]
    fn zeros_are_written() {
        let Event { what: Some(What::Summary(summary)), .. } = event(0.0, 1, &[("a", 0.0)]) else { panic!() };
        assert_eq!(summary.encode_to_vec(), b"\x0a\x08\x0a\x01a\x15\0\0\0\0");
    }
}
