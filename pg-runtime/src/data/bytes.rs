//! Bytes of text that tokens stand for, and bits per byte.

use super::tokenizer::PieceKind;

/// Bytes by token id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ByteTables {
    /// UTF-8 bytes without a leading space. `[vocab]`
    pub base: Vec<u32>,
    /// Whether the piece begins with a space. `[vocab]`
    pub lead: Vec<bool>,
    /// Whether text begins after the token (control, unknown, unused): a space after it is not counted. `[vocab]`
    pub bound: Vec<bool>,
}

impl ByteTables {
    /// The tables of a tokenizer's pieces, in id order.
    pub fn new<'a>(pieces: impl IntoIterator<Item = (&'a str, PieceKind)>) -> ByteTables {
        let mut tables = ByteTables { base: Vec::new(), lead: Vec::new(), bound: Vec::new() };
        for (text, kind) in pieces {
            let (base, lead, bound) = match kind {
                PieceKind::Control | PieceKind::Unknown | PieceKind::Unused => (0, false, true),
                PieceKind::Byte => (1, false, false),
                PieceKind::Normal | PieceKind::UserDefined => match text.strip_prefix('\u{2581}') {
                    Some(rest) => (rest.len(), true, false),
                    None => (text.len(), false, false),
                },
            };
            tables.base.push(base as u32);
            tables.lead.push(lead);
            tables.bound.push(bound);
        }
        tables
    }

    /// Bytes of `target` after `previous`: its own, and its leading space unless text begins with it.
    /// 0 for an id outside the vocabulary.
    pub fn bytes(&self, previous: usize, target: usize) -> u32 {
        let Some(base) = self.base.get(target) else { return 0 };
        base + u32::from(self.lead[target] && !self.bound.get(previous).copied().unwrap_or(false))
    }

    /// Bytes of all targets of a stream: every token but the first, after the one before it.
    pub fn stream_bytes(&self, tokens: impl IntoIterator<Item = u16>) -> u64 {
        let mut tokens = tokens.into_iter().map(usize::from);
        let Some(mut previous) = tokens.next() else { return 0 };
        let mut sum = 0;
        for target in tokens {
            sum += u64::from(self.bytes(previous, target));
            previous = target;
        }
        sum
    }
}

/// Bits per byte of a summed loss in nats: `nats / (ln 2 * bytes)`. NaN where there are no bytes.
pub fn bits_per_byte(nats: f64, bytes: u64) -> f64 {
    if bytes == 0 {
        return f64::NAN;
    }
    nats / std::f64::consts::LN_2 / bytes as f64
}

/// Sums of a scoring, in float64.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Score {
    /// Sum of the targets' negative log-likelihoods, in nats.
    pub nats: f64,
    /// Targets scored.
    pub targets: u64,
    /// Bytes that they stand for.
    pub bytes: u64,
}

impl Score {
    /// Adds consecutive targets: `losses[i]` in nats is that of `targets[i]` after `inputs[i]`. A BOS target has
    /// a loss and no bytes, and counts.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&mut self, tables: &ByteTables, inputs: &[i32], targets: &[i32], losses: &[f32]) {
        assert!(inputs.len() == targets.len() && targets.len() == losses.len(), "one loss a target");
        for ((&x, &y), &loss) in inputs.iter().zip(targets).zip(losses) {
            self.nats += f64::from(loss);
            // A negative id is outside the vocabulary, like any other that is not a token.
            let id = |t: i32| usize::try_from(t).unwrap_or(usize::MAX);
            self.bytes += u64::from(tables.bytes(id(x), id(y)));
        }
        self.targets += targets.len() as u64;
    }

    /// Bits per byte; NaN before anything has been scored.
    pub fn bits_per_byte(&self) -> f64 {
        bits_per_byte(self.nats, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> ByteTables {
        ByteTables::new([
            ("<s>", PieceKind::Control),
            ("<unk>", PieceKind::Unknown),
            ("<0x41>", PieceKind::Byte),
            ("\u{2581}the", PieceKind::Normal),
            ("é", PieceKind::Normal),
            ("\u{2581}", PieceKind::Normal),
            ("a\u{2581}", PieceKind::UserDefined),
            ("x", PieceKind::Unused),
        ])
    }

    #[test]
    fn pieces_have_their_bytes() {
        let t = tables();
        assert_eq!(t.base, [0, 0, 1, 3, 2, 0, 4, 0]);
        assert_eq!(t.lead.iter().filter(|l| **l).count(), 2);
        assert_eq!((t.bytes(2, 3), t.bytes(0, 3), t.bytes(1, 3)), (4, 3, 3));
        assert_eq!((t.bytes(4, 5), t.bytes(7, 5), t.bytes(3, 0)), (1, 0, 0));
        assert_eq!((t.bytes(99, 3), t.bytes(3, 99)), (4, 0));
        assert_eq!(t.stream_bytes([0, 3, 3, 4, 0, 5]), 3 + 4 + 2);
        assert_eq!(t.stream_bytes([]), 0);
    }

    #[test]
    fn scores_add_up() {
        let t = tables();
        let mut score = Score::default();
        assert!(score.bits_per_byte().is_nan());
        score.add(&t, &[0, 3], &[3, 4], &[1.0, 2.5]);
        score.add(&t, &[4], &[0], &[0.5]);
        assert_eq!(score, Score { nats: 4.0, targets: 3, bytes: 5 });
        assert!((score.bits_per_byte() - 4.0 / 2f64.ln() / 5.0).abs() < 1e-12);
    }
}
