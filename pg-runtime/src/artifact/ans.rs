//! Asymmetric numeral systems with static histograms, one or several.
//!
//! With one histogram, symbols are coded at the entropy of their distribution. With [`CONTEXTS`] histograms,
//! each symbol is coded under the one that the recent magnitudes in its own column choose: columns of a trained
//! matrix differ in size, which a scale a row cannot express. The decoder sees the same past, so contexts cost
//! nothing but the histograms.
//!
//! Payload: alphabet bitmap; with contexts, their thresholds (`u16` each); for each context the frequencies of
//! the occurring symbols but the last (`u16` each, of 2^16); the coder's words (`u32` each). Little endian.

use constriction::stream::model::ContiguousCategoricalEntropyModel;
use constriction::stream::stack::DefaultAnsCoder;
use constriction::stream::{Decode, Encode};

/// Histograms of the context coder.
const CONTEXTS: usize = 8;
/// Frequencies sum to 2 to this.
const PRECISION: usize = 16;
const TOTAL: u64 = 1 << PRECISION;

type Model = ContiguousCategoricalEntropyModel<u32, Vec<u32>, PRECISION>;

/// Codes `symbols`, each below `alphabet` (at most 256). `columns` is the row length that contexts follow, or
/// none for a single histogram. None where fewer than two different symbols occur.
pub(super) fn encode(symbols: &[u8], alphabet: usize, columns: Option<usize>) -> Option<Vec<u8>> {
    let mut occurs = [false; 256];
    symbols.iter().for_each(|s| occurs[usize::from(*s)] = true);
    let present = Alphabet::new(|s| occurs[s], alphabet);
    if present.symbols.len() < 2 {
        return None;
    }

    let mut payload = vec![0u8; alphabet.div_ceil(8)];
    for &s in &present.symbols {
        payload[usize::from(s) / 8] |= 1 << (s % 8);
    }
    // Columns beyond the last symbol are never reached.
    let columns = columns.map(|c| c.min(symbols.len()));
    let mut columns = columns.map(|c| Columns::new(c, alphabet, thresholds(symbols, alphabet, c)));
    let mut contexts = 1;
    let of_symbol: Vec<u8> = match &mut columns {
        None => Vec::new(),
        Some(columns) => {
            contexts = CONTEXTS;
            columns.thresholds.iter().for_each(|t| payload.extend(t.to_le_bytes()));
            symbols.iter().map(|&s| columns.step(|_| s).0 as u8).collect()
        }
    };

    let mut counts = vec![vec![0u64; present.symbols.len()]; contexts];
    for (i, &s) in symbols.iter().enumerate() {
        let context = of_symbol.get(i).map_or(0, |c| usize::from(*c));
        counts[context][usize::from(present.index[usize::from(s)])] += 1;
    }
    let mut models = Vec::with_capacity(contexts);
    for counts in &counts {
        let frequencies = normalise(counts);
        for f in &frequencies[..frequencies.len() - 1] {
            // At least two symbols of at least 1 each: every frequency is below 2^16.
            payload.extend((*f as u16).to_le_bytes());
        }
        models.push(model(&frequencies)?);
    }

    // A stack: what is coded last is decoded first.
    let mut coder = DefaultAnsCoder::new();
    for (i, &s) in symbols.iter().enumerate().rev() {
        let context = of_symbol.get(i).map_or(0, |c| usize::from(*c));
        coder.encode_symbol(usize::from(present.index[usize::from(s)]), &models[context]).ok()?;
    }
    let words = coder.into_compressed().ok()?;
    words.iter().for_each(|w| payload.extend(w.to_le_bytes()));
    Some(payload)
}

/// The inverse of [`encode`]: `count` symbols. None where the payload is not one of [`encode`]'s.
pub(super) fn decode(
    payload: &[u8],
    count: usize,
    alphabet: usize,
    columns: Option<usize>,
) -> Option<Vec<u8>> {
    let (bitmap, mut rest) = payload.split_at_checked(alphabet.div_ceil(8))?;
    let present = Alphabet::new(|s| bitmap[s / 8] >> (s % 8) & 1 == 1, alphabet);
    if present.symbols.len() < 2 {
        return None;
    }
    let mut take = || {
        let (word, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        Some(u16::from_le_bytes(*word))
    };
    let mut contexts = 1;
    let mut columns = match columns {
        None => None,
        Some(c) => {
            contexts = CONTEXTS;
            let mut thresholds = [0; CONTEXTS - 1];
            for t in &mut thresholds {
                *t = take()?;
            }
            Some(Columns::new(c.min(count), alphabet, thresholds))
        }
    };
    let mut models = Vec::with_capacity(contexts);
    for _ in 0..contexts {
        let mut frequencies = Vec::with_capacity(present.symbols.len());
        for _ in 1..present.symbols.len() {
            frequencies.push(u32::from(take()?));
        }
        let sum: u64 = frequencies.iter().map(|f| u64::from(*f)).sum();
        frequencies.push(TOTAL.checked_sub(sum)? as u32);
        if frequencies.contains(&0) {
            return None;
        }
        models.push(model(&frequencies)?);
    }

    if rest.len() % 4 != 0 {
        return None;
    }
    let words: Vec<u32> =
        rest.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let mut coder = DefaultAnsCoder::from_compressed(words).ok()?;
    let mut symbols = Vec::with_capacity(count);
    match &mut columns {
        None => {
            for _ in 0..count {
                let Ok(index) = coder.decode_symbol(&models[0]);
                symbols.push(present.symbols[index]);
            }
        }
        Some(columns) => {
            for _ in 0..count {
                let (_, symbol) = columns.step(|context| {
                    let Ok(index) = coder.decode_symbol(&models[context]);
                    present.symbols[index]
                });
                symbols.push(symbol);
            }
        }
    }
    // Every word that was written has been read.
    coder.is_empty().then_some(symbols)
}

/// The symbols that occur, and where each stands among them.
struct Alphabet {
    symbols: Vec<u8>,
    index: [u8; 256],
}

impl Alphabet {
    fn new(occurs: impl Fn(usize) -> bool, alphabet: usize) -> Self {
        let mut present = Alphabet { symbols: Vec::new(), index: [0; 256] };
        for s in (0..alphabet.min(256)).filter(|s| occurs(*s)) {
            present.index[s] = present.symbols.len() as u8;
            present.symbols.push(s as u8);
        }
        present
    }
}

/// Counts scaled to frequencies of at least 1 that sum to [`TOTAL`], in integers only.
fn normalise(counts: &[u64]) -> Vec<u32> {
    let total: u64 = counts.iter().sum::<u64>().max(1);
    let mut frequencies: Vec<u64> = counts.iter().map(|c| (c * TOTAL / total).max(1)).collect();
    let sum: u64 = frequencies.iter().sum();
    // Raising rare symbols to 1 adds at most 255; the largest of 256 or fewer has at least 256 to give.
    if let Some(largest) = frequencies.iter_mut().max() {
        *largest = *largest + TOTAL - sum;
    }
    frequencies.into_iter().map(|f| f as u32).collect()
}

fn model(frequencies: &[u32]) -> Option<Model> {
    Model::from_nonzero_fixed_point_probabilities(frequencies.iter(), false).ok()
}

/// Running mean magnitude of each column, as the context of the next symbol in it.
struct Columns {
    centre: i32,
    /// Mean |symbol - centre| of each column, in units of 1 / [`UNIT`].
    mean: Vec<u16>,
    at: usize,
    thresholds: [u16; CONTEXTS - 1],
}

const UNIT: i32 = 256;
/// Rows that a running mean remembers, as a power of two.
const MEMORY: u32 = 4;

impl Columns {
    fn new(columns: usize, alphabet: usize, thresholds: [u16; CONTEXTS - 1]) -> Self {
        let start = thresholds[CONTEXTS / 2 - 1];
        Columns { centre: alphabet as i32 / 2, mean: vec![start; columns.max(1)], at: 0, thresholds }
    }

    /// Takes the next symbol, which may depend on the context, and returns both.
    fn step(&mut self, symbol: impl FnOnce(usize) -> u8) -> (usize, u8) {
        let mean = &mut self.mean[self.at];
        let context = self.thresholds.iter().filter(|t| **t <= *mean).count();
        let s = symbol(context);
        let magnitude = (i32::from(s) - self.centre).abs() * UNIT;
        // At most 128 * 256: within a u16, and so is every mean of such.
        *mean = (i32::from(*mean) + ((magnitude - i32::from(*mean)) >> MEMORY)) as u16;
        self.at = if self.at + 1 == self.mean.len() { 0 } else { self.at + 1 };
        (context, s)
    }
}

/// Octiles of the running means, so that contexts are about equally used.
fn thresholds(symbols: &[u8], alphabet: usize, columns: usize) -> [u16; CONTEXTS - 1] {
    let centre = alphabet as i64 / 2;
    let total: i64 = symbols.iter().map(|s| (i64::from(*s) - centre).abs()).sum();
    let start = total * i64::from(UNIT) / symbols.len().max(1) as i64;
    let mut walk = Columns::new(columns, alphabet, [start as u16; CONTEXTS - 1]);
    let every = symbols.len() / 65_536 + 1;
    let mut means = Vec::with_capacity(symbols.len() / every + 1);
    for (i, &s) in symbols.iter().enumerate() {
        if i % every == 0 {
            means.push(walk.mean[walk.at]);
        }
        walk.step(|_| s);
    }
    means.sort_unstable();
    std::array::from_fn(|i| means.get((i + 1) * means.len() / CONTEXTS).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, alphabet: u64) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) % alphabet
        };
        (0..n).map(|_| ((next() + next() + next()) / 3) as u8).collect()
    }

    #[test]
    fn round_trips() {
        for alphabet in [2, 3, 15, 63, 255, 256] {
            for n in [2, 3, 100, 10_000] {
                let symbols = noise(n, alphabet as u64);
                for columns in [None, Some(1), Some(7), Some(4096)] {
                    if let Some(coded) = encode(&symbols, alphabet, columns) {
                        let read = decode(&coded, n, alphabet, columns);
                        assert_eq!(read.as_ref(), Some(&symbols), "{alphabet} {n} {columns:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn skewed_counts_still_sum() {
        for counts in
            [vec![1_000_000_000, 1], vec![0, 0], vec![1; 256], [vec![1 << 40], vec![0; 255]].concat()]
        {
            let f = normalise(&counts);
            assert!(f.iter().all(|f| *f > 0));
            assert_eq!(f.iter().map(|f| u64::from(*f)).sum::<u64>(), TOTAL);
        }
    }

    #[test]
    fn contexts_find_columns_of_different_size() {
        let columns = 64;
        let symbols: Vec<u8> = noise(64 * 512, 63)
            .iter()
            .enumerate()
            .map(|(i, s)| if i % columns < 32 { 31 + (i32::from(*s) - 31).div_euclid(8) } else { (*s).into() } as u8)
            .collect();
        let plain = encode(&symbols, 63, None).unwrap().len();
        let context = encode(&symbols, 63, Some(columns)).unwrap().len();
        assert!(context * 20 < plain * 19, "{context} {plain}");
    }

    #[test]
    fn damaged_payloads_do_not_panic() {
        let symbols = noise(500, 63);
        for columns in [None, Some(16)] {
            let coded = encode(&symbols, 63, columns).unwrap();
            for i in 0..coded.len() {
                let mut damaged = coded.clone();
                damaged[i] ^= 0x55;
                let _ = decode(&damaged, 500, 63, columns);
                let _ = decode(&coded[..i], 500, 63, columns);
            }
            assert_eq!(decode(&coded, 499, 63, columns), None, "leftover words are an error");
        }
    }
}
