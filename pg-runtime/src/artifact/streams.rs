//! Tensors to streams of symbols and back.

use std::collections::BTreeMap;

use half::f16;
use pg_ir::lang::budget::role;
use pg_ir::quant::Grid;

use super::codec::Layout;
use super::{Tensor, TensorData, count};

/// A tensor as the manifest lists it: all but its values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) grid: Option<Grid>,
}

impl Entry {
    pub(super) fn of(t: &Tensor) -> Entry {
        let grid = match t.data {
            TensorData::Codes { grid, .. } => Some(grid),
            TensorData::F16(_) => None,
        };
        Entry { name: t.name.clone(), shape: t.shape.clone(), grid }
    }

    fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }
}

/// What a stream holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Codes,
    ScalesHigh,
    ScalesLow,
    F16High,
    F16Low,
}

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Part::Codes => "codes",
            Part::ScalesHigh => "scales.high",
            Part::ScalesLow => "scales.low",
            Part::F16High => "f16.high",
            Part::F16Low => "f16.low",
        }
    }
}

/// Most bytes that reading streams takes: their symbols, once as tensors and once, of one stream at a time, as decoded
/// and as coded without entropy.
pub(super) fn bytes(plan: &[Stream]) -> u64 {
    let symbols = |stream: &Stream| stream.layout.count as u64;
    plan.iter().map(symbols).sum::<u64>() + 2 * plan.iter().map(symbols).max().unwrap_or(0)
}

/// One stream: which part of which tensors, one after another.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) role: String,
    pub(super) part: Part,
    /// Indices into the tensor table.
    pub(super) tensors: Vec<usize>,
    pub(super) layout: Layout,
}

/// The streams of a tensor table, in file order. A function of the table alone, so that the reader and the
/// writer agree. Shapes must have been checked with [`count`].
pub(super) fn plan(entries: &[Entry]) -> Vec<Stream> {
    // Clip 0 stands for float16. The rule does not matter to the distribution of one role's codes.
    let mut groups = BTreeMap::<(String, usize, u16), Vec<usize>>::new();
    for (i, e) in entries.iter().enumerate() {
        groups.entry((role(&e.name), e.cols(), e.grid.map_or(0, |g| g.clip))).or_default().push(i);
    }
    let mut streams = Vec::with_capacity(groups.len() * 3);
    for ((role, columns, clip), tensors) in groups {
        let rows = tensors.iter().map(|t| entries[*t].rows()).sum();
        let values = tensors.iter().map(|t| count(&entries[*t].shape).unwrap_or(0)).sum();
        let mut add = |part, count, alphabet| {
            let layout = Layout { count, alphabet, columns };
            streams.push(Stream { role: role.clone(), part, tensors: tensors.clone(), layout });
        };
        if clip == 0 {
            add(Part::F16High, values, 256);
            add(Part::F16Low, values, 256);
        } else {
            add(Part::Codes, values, 2 * usize::from(clip) + 1);
            add(Part::ScalesHigh, rows, 256);
            add(Part::ScalesLow, rows, 256);
        }
    }
    streams
}

/// The symbols of a stream.
pub(super) fn symbols(stream: &Stream, tensors: &[Tensor]) -> Vec<u8> {
    let mut out = Vec::with_capacity(stream.layout.count);
    for t in stream.tensors.iter().map(|t| &tensors[*t]) {
        match (&t.data, stream.part) {
            (TensorData::Codes { grid, codes, .. }, Part::Codes) => {
                out.extend(codes.iter().map(|k| (i16::from(*k) + grid.clip as i16) as u8));
            }
            (TensorData::Codes { scales: halves, .. }, part) | (TensorData::F16(halves), part) => {
                let high = matches!(part, Part::ScalesHigh | Part::F16High);
                out.extend(halves.iter().map(|h| h.to_le_bytes()[usize::from(high)]));
            }
        }
    }
    out
}

/// Puts decoded streams, in the order of [`plan`], back into tensors.
pub(super) struct Assembly {
    entries: Vec<Entry>,
    codes: Vec<Vec<i8>>,
    halves: Vec<Vec<f16>>,
}

impl Assembly {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let n = entries.len();
        Assembly { entries, codes: vec![Vec::new(); n], halves: vec![Vec::new(); n] }
    }

    /// Adds one stream; `symbols` is as long as its layout says and within its alphabet.
    pub(super) fn add(&mut self, stream: &Stream, symbols: &[u8]) {
        let mut rest = symbols;
        for &t in &stream.tensors {
            let e = &self.entries[t];
            let n = match stream.part {
                Part::ScalesHigh | Part::ScalesLow => e.rows(),
                _ => e.rows() * e.cols(),
            };
            let (mine, after) = rest.split_at(n.min(rest.len()));
            rest = after;
            match stream.part {
                Part::Codes => {
                    let clip = e.grid.map_or(0, |g| g.clip as i16);
                    self.codes[t] = mine.iter().map(|s| (i16::from(*s) - clip) as i8).collect();
                }
                // The high bytes come first.
                Part::ScalesHigh | Part::F16High => {
                    self.halves[t] = mine.iter().map(|s| f16::from_le_bytes([0, *s])).collect();
                }
                Part::ScalesLow | Part::F16Low => {
                    for (h, s) in self.halves[t].iter_mut().zip(mine) {
                        *h = f16::from_le_bytes([*s, h.to_le_bytes()[1]]);
                    }
                }
            }
        }
    }

    pub(super) fn finish(self) -> Vec<Tensor> {
        let parts = self.entries.into_iter().zip(self.codes.into_iter().zip(self.halves));
        parts
            .map(|(e, (codes, halves))| {
                let data = match e.grid {
                    Some(grid) => TensorData::Codes { grid, codes, scales: halves },
                    None => TensorData::F16(halves),
                };
                Tensor { name: e.name, shape: e.shape, data }
            })
            .collect()
    }
}
