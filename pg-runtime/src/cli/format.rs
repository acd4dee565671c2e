//! Numbers for people.

use pg_runtime::report::{TextReport, TttReport};
pub(crate) use pg_runtime::report::{counted, grouped};

pub(crate) use super::table::{table, table_without};

/// `14.84 MB`: decimal, as the cap is.
pub(crate) fn megabytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{} B", grouped(bytes)),
        10_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.2} MB", bytes as f64 / 1e6),
    }
}

/// `1h02m`, `1m40s`, `12s`.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".into();
    }
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        _ => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
    }
}

/// A score in bits per byte, or a dash.
pub(crate) fn bpb(score: Option<f64>) -> String {
    score.map_or("–".into(), |s| format!("{s:.4}"))
}

/// What was scored, and what a reader of the scores has to know about it.
pub(crate) fn scored(text: &TextReport) -> String {
    let mut line = format!("scored: {} targets", grouped(text.targets));
    if text.targets < text.available_targets {
        line += &format!(" of {}", grouped(text.available_targets));
    }
    line += &format!(", {} bytes of text", grouped(text.bytes));
    if text.scored_again > 0 {
        line +=
            &format!("; {} of the last targets count twice (eval.rescore_tail)", grouped(text.scored_again));
    }
    let overlap = text.overlap.map_or(0.0, |overlap| 100.0 * overlap.share());
    if overlap >= 0.05 {
        line += &format!("; {overlap:.1} % of it stands in the training text");
    }
    line
}

/// What test-time training did, as a row of a table of scores.
pub(crate) fn adapted(ttt: &TttReport) -> Vec<String> {
    let of = format!(
        "{} chunks scored, {} of them then trained on, {} updates",
        grouped(ttt.chunks_scored as u64),
        grouped(ttt.chunks_trained as u64),
        grouped(ttt.updates as u64)
    );
    vec![String::new(), String::new(), of]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1000, 29_355_620].map(grouped), ["0", "999", "1,000", "29,355,620"]);
        assert_eq!([9_999, 412_300, 14_838_000].map(megabytes), ["9,999 B", "412.3 kB", "14.84 MB"]);
        assert_eq!([3.2, 100.0, 3725.0, f64::NAN].map(duration), ["3s", "1m40s", "1h02m", "?"]);
    }
}
