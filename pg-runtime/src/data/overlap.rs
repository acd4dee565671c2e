//! Whether text that is scored was trained on: windows of tokens that occur in both.
//!
//! A window is looked for wherever it may stand, so a copied, renamed, cut or shifted shard is found. Of all windows
//! a sixteenth is looked for, chosen by their own hash: the same in both texts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::error::DataError;
use super::loader::Dataset;

/// Tokens of a window: longer than phrases that honest texts share.
const WINDOW: usize = 64;
/// One hash in so many is looked for.
const SAMPLE: u64 = 16;
/// Odd, and of no short period: the base of the rolling hash.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
/// Tokens that one task walks.
const STRETCH: usize = 1 << 22;

/// Windows of the scored text that were looked for, and how many of them occur in the training text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Overlap {
    /// Windows looked for.
    pub windows: u64,
    /// Windows found.
    pub found: u64,
}

impl Overlap {
    /// Share of the scored text that was trained on, 0 … 1.
    pub fn share(&self) -> f64 {
        self.found as f64 / self.windows.max(1) as f64
    }
}

/// Looks for the windows of `scored` in `train`. Reads all of it, once, on all cores.
///
/// # Errors
/// As [`Dataset::scan`].
pub fn overlap(train: &Dataset, scored: &[i32]) -> Result<Overlap, DataError> {
    // A token that is not one matches none.
    let scored = scored.iter().map(|&token| u16::try_from(token).unwrap_or(u16::MAX));
    let mut looked_for: HashMap<u64, (u64, AtomicBool)> = HashMap::new();
    sampled_windows(scored, |hash| looked_for.entry(hash).or_default().0 += 1);

    let starts: Vec<usize> = (0..train.len()).step_by(STRETCH).collect();
    starts.into_par_iter().try_for_each(|start| {
        train.scan(start, |tokens| {
            sampled_windows(tokens.take(STRETCH + WINDOW - 1), |hash| {
                if let Some((_, is_found)) = looked_for.get(&hash) {
                    is_found.store(true, Ordering::Relaxed);
                }
            });
        })
    })?;
    let mut overlap = Overlap::default();
    for (count, is_found) in looked_for.into_values() {
        overlap.windows += count;
        overlap.found += if is_found.into_inner() { count } else { 0 };
    }
    Ok(overlap)
}

/// Calls `each` with the hash of each window that is looked for.
fn sampled_windows(tokens: impl Iterator<Item = u16>, mut each: impl FnMut(u64)) {
    let leaving_factor = BASE.wrapping_pow(WINDOW as u32);
    let mut ring = [0u64; WINDOW];
    let mut hash = 0u64;
    for (index, token) in tokens.enumerate() {
        let entering = u64::from(token) + 1;
        let leaving = std::mem::replace(&mut ring[index % WINDOW], entering);
        hash =
            hash.wrapping_mul(BASE).wrapping_add(entering).wrapping_sub(leaving.wrapping_mul(leaving_factor));
        // The low bits of a polynomial hash depend on few bits of each token.
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(BASE);
        if index + 1 >= WINDOW && (mixed >> 32).is_multiple_of(SAMPLE) {
            each(mixed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shard::{Shard, shard_bytes};
    use super::*;

    fn dataset(shards: &[&[u16]]) -> Dataset {
        let shard = |tokens: &&[u16]| Shard::embedded("x", shard_bytes(tokens)).unwrap();
        Dataset::new("x", shards.iter().map(shard).collect(), 1 << 16).unwrap()
    }

    fn noise(seed: u64, length: usize) -> Vec<u16> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 48) as u16
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn ids(tokens: &[u16]) -> Vec<i32> {
        tokens.iter().map(|&t| i32::from(t)).collect()
    }

    #[test]
    fn other_text_does_not_overlap() {
        let overlap = overlap(&dataset(&[&noise(1, 20_000)]), &ids(&noise(2, 20_000))).unwrap();
        assert!(overlap.windows > 1000, "{overlap:?}");
        assert_eq!(overlap.found, 0);
    }

    #[test]
    fn a_copy_is_found_wherever_it_stands() {
        let scored = noise(1, 10_000);
        // Behind other text, and across two shards.
        let (before, after) = scored.split_at(4321);
        let train = dataset(&[&[noise(3, 777), before.to_vec()].concat(), after]);
        let all = overlap(&train, &ids(&scored)).unwrap();
        assert!(all.found == all.windows && all.windows > 500, "{all:?}");
        let half = overlap(&dataset(&[&scored[..5000]]), &ids(&scored)).unwrap();
        assert!((half.share() - 0.5).abs() < 0.1, "{half:?}");
    }

    #[test]
    fn short_texts_have_no_windows() {
        let train = dataset(&[&[1, 2, 3]]);
        assert_eq!(overlap(&train, &[1, 2, 3]).unwrap(), Overlap::default());
    }
}
