//! What the parameter-golf challenge asks of a submission.
//!
//! Source: <https://github.com/openai/parameter-golf>, README, "FAQ" and "Submission Process".

/// Bytes that artifact and code have at most: "decimal 16MB, i.e. 16,000,000 total bytes".
pub const MAX_BYTES: u64 = 16_000_000;
/// Seconds of training, and of evaluation, at most: "10 minutes on 8xH100" each.
pub const MAX_SECONDS: f64 = 600.0;
/// Nats per token by which a record is better than the one before.
pub const RECORD_NATS: f64 = 0.005;
/// Below this p-value the logs show that it is.
pub const RECORD_P: f64 = 0.01;
/// Runs that show it: the rule says "enough run logs", and records come with those of three seeds.
pub const MIN_SEEDS: usize = 3;
/// The track, as `submission.json` names it.
pub const TRACK: &str = "10min_16mb";
/// The hardware that its times are of.
pub const HARDWARE: &str = "8xH100 80GB SXM";
