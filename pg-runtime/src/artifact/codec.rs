//! The codecs of a stream of symbols, and the choice among them.

use std::fmt;
use std::io::{Read, Write};

use lzma_rust2::{LzmaOptions, LzmaReader, LzmaWriter};
use serde::{Deserialize, Serialize};

use super::ans;

/// How a stream of symbols is coded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// One symbol throughout, stored once.
    Constant,
    /// Symbols in `ceil(log2(alphabet))` bits each.
    Packed,
    /// Asymmetric numeral systems, one histogram.
    Ans,
    /// Asymmetric numeral systems, histograms chosen by the recent magnitudes of the column.
    AnsColumns,
    /// Brotli over one symbol a byte.
    Brotli,
    /// Brotli over packed symbols.
    BrotliPacked,
    /// LZMA over one symbol a byte.
    Lzma,
    /// LZMA over packed symbols.
    LzmaPacked,
}

impl Codec {
    /// Every codec, in the order in which equals win.
    pub const ALL: [Codec; 8] = [
        Codec::Constant,
        Codec::Packed,
        Codec::Ans,
        Codec::AnsColumns,
        Codec::Brotli,
        Codec::BrotliPacked,
        Codec::Lzma,
        Codec::LzmaPacked,
    ];

    /// The name that a manifest records.
    pub fn name(self) -> &'static str {
        match self {
            Codec::Constant => "constant",
            Codec::Packed => "packed",
            Codec::Ans => "ans",
            Codec::AnsColumns => "ans-columns",
            Codec::Brotli => "brotli",
            Codec::BrotliPacked => "brotli-packed",
            Codec::Lzma => "lzma",
            Codec::LzmaPacked => "lzma-packed",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a stream holds: needed to code it, and known to the decoder from the tensor table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Symbols in the stream.
    pub(super) count: usize,
    /// Symbols are below this; at most 256.
    pub(super) alphabet: usize,
    /// Row length.
    pub(super) columns: usize,
}

impl Layout {
    fn bits(self) -> usize {
        (usize::BITS - self.alphabet.saturating_sub(1).leading_zeros()) as usize
    }

    fn packed_len(self) -> usize {
        (self.count * self.bits()).div_ceil(8)
    }
}

/// Codecs are tried on this much of a longer stream, in [`SAMPLES`] pieces.
const SAMPLE: usize = 64 << 10;
const SAMPLES: usize = 4;

/// Codes `symbols` with the smallest codec. Long streams try all codecs on a sample and the best ones, to
/// within 1 %, on the whole.
pub(super) fn encode(symbols: &[u8], layout: Layout) -> (Codec, Vec<u8>) {
    let mut candidates = Codec::ALL.to_vec();
    if symbols.len() > SAMPLE {
        let piece = SAMPLE / SAMPLES;
        let sample: Vec<u8> = (0..SAMPLES)
            .flat_map(|i| &symbols[(symbols.len() - piece) / (SAMPLES - 1) * i..][..piece])
            .copied()
            .collect();
        let sampled = Layout { count: sample.len(), ..layout };
        let sizes: Vec<_> =
            candidates.iter().filter_map(|c| Some((*c, encode_with(*c, &sample, sampled)?.len()))).collect();
        let best = sizes.iter().map(|(_, n)| *n).min().unwrap_or(0);
        candidates =
            sizes.into_iter().filter(|(_, n)| *n <= best + best / 100 + 64).map(|(c, _)| c).collect();
        // Contexts learn slowly and their histograms weigh on a sample.
        if candidates.contains(&Codec::Ans) && !candidates.contains(&Codec::AnsColumns) {
            candidates.push(Codec::AnsColumns);
        }
        // A sample may be constant where the stream is not.
        candidates.extend(
            [Codec::Ans, Codec::Packed]
                .iter()
                .filter(|c| best < 64 && !candidates.contains(c))
                .copied()
                .collect::<Vec<_>>(),
        );
    }
    let mut best: Option<(Codec, Vec<u8>)> = None;
    for codec in candidates {
        if let Some(bytes) = encode_with(codec, symbols, layout)
            && best.as_ref().is_none_or(|(_, b)| bytes.len() < b.len())
        {
            best = Some((codec, bytes));
        }
    }
    best.unwrap_or_else(|| (Codec::Packed, pack(symbols, layout.bits())))
}

/// Codes with one codec; none where it cannot code these symbols.
fn encode_with(codec: Codec, symbols: &[u8], layout: Layout) -> Option<Vec<u8>> {
    match codec {
        Codec::Constant => {
            let first = *symbols.first()?;
            symbols.iter().all(|s| *s == first).then(|| vec![first])
        }
        Codec::Packed => Some(pack(symbols, layout.bits())),
        Codec::Ans => ans::encode(symbols, layout.alphabet, None),
        Codec::AnsColumns => ans::encode(symbols, layout.alphabet, Some(layout.columns)),
        Codec::Brotli => brotli_encode(symbols),
        Codec::BrotliPacked if layout.bits() < 8 => brotli_encode(&pack(symbols, layout.bits())),
        Codec::Lzma => lzma_encode(symbols),
        Codec::LzmaPacked if layout.bits() < 8 => lzma_encode(&pack(symbols, layout.bits())),
        Codec::BrotliPacked | Codec::LzmaPacked => None,
    }
}

/// The inverse of [`encode`]. None where `bytes` does not code exactly what `layout` says. Allocates in
/// proportion to `layout.count` alone.
pub(super) fn decode(codec: Codec, bytes: &[u8], layout: Layout) -> Option<Vec<u8>> {
    let Layout { count, alphabet, columns } = layout;
    let symbols = match codec {
        Codec::Constant => match bytes {
            [symbol] => vec![*symbol; count],
            _ => return None,
        },
        Codec::Packed => unpack(bytes, layout)?,
        Codec::Ans => ans::decode(bytes, count, alphabet, None)?,
        Codec::AnsColumns => ans::decode(bytes, count, alphabet, Some(columns))?,
        Codec::Brotli => brotli_decode(bytes, count)?,
        Codec::BrotliPacked => unpack(&brotli_decode(bytes, layout.packed_len())?, layout)?,
        Codec::Lzma => lzma_decode(bytes, count)?,
        Codec::LzmaPacked => unpack(&lzma_decode(bytes, layout.packed_len())?, layout)?,
    };
    symbols.iter().all(|s| usize::from(*s) < alphabet).then_some(symbols)
}

/// Symbols in `bits` bits each, least significant first.
fn pack(symbols: &[u8], bits: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity((symbols.len() * bits).div_ceil(8));
    let (mut buffer, mut held) = (0u32, 0);
    for &s in symbols {
        buffer |= u32::from(s) << held;
        held += bits;
        while held >= 8 {
            out.push(buffer as u8);
            buffer >>= 8;
            held -= 8;
        }
    }
    if held > 0 {
        out.push(buffer as u8);
    }
    out
}

fn unpack(bytes: &[u8], layout: Layout) -> Option<Vec<u8>> {
    if bytes.len() != layout.packed_len() {
        return None;
    }
    let bits = layout.bits();
    let mask = (1u32 << bits) - 1;
    let (mut buffer, mut held) = (0u32, 0);
    let mut input = bytes.iter();
    let mut out = Vec::with_capacity(layout.count);
    for _ in 0..layout.count {
        while held < bits {
            buffer |= u32::from(*input.next()?) << held;
            held += 8;
        }
        out.push((buffer & mask) as u8);
        buffer >>= bits;
        held -= bits;
    }
    // Padding is zero: one stream, one spelling.
    (buffer == 0).then_some(out)
}

/// Brotli at its best quality (a step below for long inputs, where the best takes minutes).
pub(super) fn brotli_encode(bytes: &[u8]) -> Option<Vec<u8>> {
    let params = brotli::enc::BrotliEncoderParams {
        quality: if bytes.len() > 1 << 20 { 9 } else { 11 },
        lgwin: 22,
        size_hint: bytes.len(),
        ..Default::default()
    };
    let mut out = Vec::new();
    brotli::BrotliCompress(&mut &bytes[..], &mut out, &params).ok()?;
    Some(out)
}

/// Exactly `len` bytes, or none.
pub(super) fn brotli_decode(bytes: &[u8], len: usize) -> Option<Vec<u8>> {
    read_exactly(brotli::Decompressor::new(bytes, 4096), len)
}

/// Codes are independent of position and of their neighbours' high bits.
const LZMA_PROPS: (u32, u32, u32) = (0, 0, 0);

/// A dictionary as long as the data, within LZMA's limits and 8 MiB. The decoder derives the same.
fn lzma_dictionary(len: usize) -> u32 {
    len.next_power_of_two().clamp(4096, 8 << 20) as u32
}

fn lzma_encode(bytes: &[u8]) -> Option<Vec<u8>> {
    let (lc, lp, pb) = LZMA_PROPS;
    let options =
        LzmaOptions { lc, lp, pb, dict_size: lzma_dictionary(bytes.len()), ..LzmaOptions::with_preset(6) };
    let mut writer = LzmaWriter::new(Vec::new(), &options, false, false, Some(bytes.len() as u64)).ok()?;
    writer.write_all(bytes).ok()?;
    writer.finish().ok()
}

fn lzma_decode(bytes: &[u8], len: usize) -> Option<Vec<u8>> {
    let (lc, lp, pb) = LZMA_PROPS;
    let reader = LzmaReader::new(bytes, len as u64, lc, lp, pb, lzma_dictionary(len), None).ok()?;
    read_exactly(reader, len)
}

fn read_exactly(reader: impl Read, len: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(len as u64 + 1).read_to_end(&mut out).ok()?;
    (out.len() == len).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every codec on streams with short, long, constant and incompressible content.
    #[test]
    fn codecs_round_trip() {
        for alphabet in [1, 2, 15, 63, 255, 256] {
            for count in [0, 1, 2, 33, 5000] {
                let layout = Layout { count, alphabet, columns: 7 };
                let symbols: Vec<u8> = (0..count).map(|i| (i * i / 3 % alphabet) as u8).collect();
                for codec in Codec::ALL {
                    if let Some(bytes) = encode_with(codec, &symbols, layout) {
                        let read = decode(codec, &bytes, layout);
                        assert_eq!(read.as_ref(), Some(&symbols), "{codec} {alphabet} {count}");
                    }
                }
                let (codec, bytes) = encode(&symbols, layout);
                assert_eq!(decode(codec, &bytes, layout), Some(symbols), "{codec}");
            }
        }
    }

    #[test]
    fn names_are_what_serde_writes() {
        for codec in Codec::ALL {
            assert_eq!(serde_json::to_string(&codec).unwrap(), format!("\"{codec}\""));
        }
    }

    #[test]
    fn a_constant_sample_of_a_varying_stream_is_no_trap() {
        let mut symbols = vec![3; 400_000];
        symbols[200_001] = 4;
        let layout = Layout { count: symbols.len(), alphabet: 15, columns: 512 };
        let (codec, bytes) = encode(&symbols, layout);
        assert!(bytes.len() < 2000, "{codec}: {}", bytes.len());
        assert_eq!(decode(codec, &bytes, layout), Some(symbols));
    }

    #[test]
    fn wrong_payloads_are_refused() {
        let layout = Layout { count: 100, alphabet: 15, columns: 10 };
        let symbols: Vec<u8> = (0..100).map(|i| i % 15).collect();
        for codec in Codec::ALL {
            assert_eq!(decode(codec, &[], layout), None, "{codec}: empty");
            assert_eq!(decode(codec, &[0xff; 77], layout), None, "{codec}: noise");
            if let Some(bytes) = encode_with(codec, &symbols, layout) {
                for i in 0..bytes.len() {
                    let _ = decode(codec, &bytes[..i], layout);
                }
            }
        }
    }
}
