//! Bytes of text that tokens stand for, and bits per byte.
//!
//! A token stands for what SentencePiece's decoder would write for it: U+2581 is a space wherever in a piece it is, also
//! where three byte pieces spell it, and the space that the encoder put before a document is not text. Bytes must
//! never be more than the text has: a score would be too good.

use super::proto::NormalizerProto;
use super::tokenizer::PieceKind;

/// What stands for a space in a piece.
const SPACE: char = '\u{2581}';
/// [`SPACE`] as a tokenizer without a piece for it spells it.
const SPACE_BYTES: [u8; 3] = [0xe2, 0x96, 0x81];

/// Bytes by token id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ByteTables {
    pieces: Vec<Piece>,
    /// Whether the encoder puts a space before a document, or removes one: the decoder writes none there.
    drops_first_space: bool,
    /// Whether the encoder puts a space after a document.
    drops_last_space: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    /// Ends one document and begins another, and stands for nothing (control, unknown, unused).
    Boundary,
    /// One byte of a character.
    Byte(u8),
    /// UTF-8 bytes, its spaces as one byte each, and whether it begins and ends with one.
    Text { bytes: u32, first_space: bool, last_space: bool },
}

/// How a tokenizer treats white space (`sentencepiece.NormalizerSpec` and `TrainerSpec`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Whitespace {
    /// Spaces are U+2581 in pieces.
    pub(super) escaped: bool,
    /// The decoder drops a space that a document begins with.
    pub(super) drops_first: bool,
    /// The space that marks a word stands after it.
    pub(super) suffix: bool,
}

impl Whitespace {
    /// What the two records of a `.model` file say; each switch of a record has SentencePiece's default.
    pub(super) fn new(normalizer: Option<&NormalizerProto>, suffix: bool) -> Whitespace {
        let on = |field: fn(&NormalizerProto) -> Option<bool>| normalizer.and_then(field).unwrap_or(true);
        let drops = on(|n| n.add_dummy_prefix) || on(|n| n.remove_extra_whitespaces);
        Whitespace { escaped: on(|n| n.escape_whitespaces), drops_first: drops && !suffix, suffix }
    }
}

impl ByteTables {
    /// The tables of a tokenizer's pieces, in id order.
    pub(super) fn new<'a>(
        pieces: impl IntoIterator<Item = (&'a str, PieceKind)>,
        space: Whitespace,
    ) -> ByteTables {
        let piece = |(text, kind): (&str, PieceKind)| match kind {
            PieceKind::Control | PieceKind::Unknown | PieceKind::Unused => Piece::Boundary,
            PieceKind::Byte => byte_of(text).map_or(Piece::Boundary, Piece::Byte),
            PieceKind::Normal | PieceKind::UserDefined => {
                let spaces = if space.escaped { text.matches(SPACE).count() } else { 0 };
                let bytes = (text.len() - spaces * (SPACE.len_utf8() - 1)) as u32;
                let [first_space, last_space] = [text.starts_with(SPACE), text.ends_with(SPACE)]
                    .map(|is_there| space.escaped && is_there);
                Piece::Text { bytes, first_space, last_space }
            }
        };
        ByteTables {
            pieces: pieces.into_iter().map(piece).collect(),
            drops_first_space: space.drops_first,
            drops_last_space: space.suffix,
        }
    }

    /// Bytes of each target of a stream: of every token but the first. `[tokens - 1]`
    ///
    /// An id outside the vocabulary has none. Where three byte pieces spell a space, the third has its byte.
    pub fn target_bytes(&self, tokens: impl IntoIterator<Item = u16>) -> Vec<u32> {
        let tokens = tokens.into_iter();
        let mut bytes = Vec::with_capacity(tokens.size_hint().0);
        self.walk(tokens, |index, change| {
            bytes.resize(bytes.len().max(index + 1), 0u32);
            bytes[index] = bytes[index].saturating_add_signed(change);
        });
        bytes.drain(..bytes.len().min(1));
        bytes
    }

    /// Bytes of all targets of a stream.
    pub fn stream_bytes(&self, tokens: impl IntoIterator<Item = u16>) -> u64 {
        let mut sum = 0i64;
        self.walk(tokens, |index, change| sum += if index == 0 { 0 } else { i64::from(change) });
        sum.max(0).cast_unsigned()
    }

    /// Counts a stream from its first token on: `count(index, change)` for every token, again for one before it where what
    /// follows changes what it stands for.
    fn walk(&self, tokens: impl IntoIterator<Item = u16>, mut count: impl FnMut(usize, i32)) {
        // Whether nothing of the document has been written, at this token and at the first byte of a spelled space.
        let (mut first, mut spelled_first) = (true, true);
        // How many bytes of a spelled space the tokens before this one are.
        let mut spelled = 0;
        let mut ends_with_space = false;
        for (index, token) in tokens.into_iter().enumerate() {
            let piece = self.pieces.get(usize::from(token)).copied().unwrap_or(Piece::Boundary);
            let drops = self.drops_first_space && first;
            match piece {
                Piece::Boundary => {
                    if self.drops_last_space && ends_with_space {
                        count(index - 1, -1);
                    }
                    count(index, 0);
                    (first, spelled, ends_with_space) = (true, 0, false);
                }
                Piece::Text { bytes, first_space, last_space } => {
                    count(index, bytes as i32 - i32::from(drops && first_space));
                    (first, spelled, ends_with_space) = (false, 0, last_space);
                }
                Piece::Byte(byte) => {
                    if byte == SPACE_BYTES[0] {
                        (spelled, spelled_first) = (0, drops);
                    }
                    count(index, 1);
                    ends_with_space = false;
                    spelled = if byte == SPACE_BYTES[spelled] { spelled + 1 } else { 0 };
                    if spelled == SPACE_BYTES.len() {
                        count(index - 2, -1);
                        count(index - 1, -1);
                        count(index, -i32::from(spelled_first));
                        (spelled, ends_with_space) = (0, !spelled_first);
                    }
                    first = false;
                }
            }
        }
    }
}

/// The byte of a byte piece, `<0x41>`.
fn byte_of(text: &str) -> Option<u8> {
    u8::from_str_radix(text.strip_prefix("<0x")?.strip_suffix('>')?, 16).ok()
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
    /// Targets scored, as often as they were.
    pub targets: u64,
    /// Bytes that they stand for.
    pub bytes: u64,
}

impl Score {
    /// Adds targets: `losses[i]` in nats of a target that stands for `bytes[i]`. A BOS target has a loss and no
    /// bytes, and counts.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&mut self, bytes: &[u32], losses: &[f32]) {
        assert!(bytes.len() == losses.len(), "one loss a target");
        self.nats += losses.iter().map(|&loss| f64::from(loss)).sum::<f64>();
        self.bytes += bytes.iter().map(|&bytes| u64::from(bytes)).sum::<u64>();
        self.targets += losses.len() as u64;
    }

    /// Bits per byte; NaN before anything has been scored.
    pub fn bits_per_byte(&self) -> f64 {
        bits_per_byte(self.nats, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: Whitespace = Whitespace { escaped: true, drops_first: true, suffix: false };

    fn tables(space: Whitespace) -> ByteTables {
        let pieces = [
            ("<s>", PieceKind::Control),
            ("<unk>", PieceKind::Unknown),
            ("<0x41>", PieceKind::Byte),
            ("\u{2581}the", PieceKind::Normal),
            ("é", PieceKind::Normal),
            ("\u{2581}", PieceKind::Normal),
            ("a\u{2581}", PieceKind::UserDefined),
            ("x", PieceKind::Unused),
            ("\u{2581}of\u{2581}the", PieceKind::Normal),
            ("<0xE2>", PieceKind::Byte),
            ("<0x96>", PieceKind::Byte),
            ("<0x81>", PieceKind::Byte),
        ];
        ByteTables::new(pieces, space)
    }

    #[test]
    fn spaces_are_one_byte_wherever_they_are() {
        let t = tables(PREFIX);
        let of = |tokens: &[u16]| t.target_bytes(tokens.iter().copied());
        assert_eq!(of(&[0, 3, 3, 4, 0, 5, 6, 8]), [3, 4, 2, 0, 0, 2, 7]);
        assert_eq!(of(&[2, 3, 99, 3]), [4, 0, 3], "an unknown id is a boundary of no bytes");
        assert_eq!(of(&[0, 8, 2]), [6, 1]);
        assert_eq!((of(&[]), of(&[3])), (vec![], vec![]));
    }

    #[test]
    fn byte_pieces_that_spell_a_space_are_one_byte() {
        let t = tables(PREFIX);
        let of = |tokens: &[u16]| t.target_bytes(tokens.iter().copied());
        assert_eq!(of(&[0, 2, 9, 10, 11, 2]), [1, 0, 0, 1, 1]);
        assert_eq!(of(&[0, 9, 10, 11, 2]), [0, 0, 0, 1], "it is the encoder's own");
        assert_eq!(of(&[0, 2, 9, 9, 10, 11]), [1, 1, 0, 0, 1]);
        assert_eq!(of(&[0, 2, 9, 10, 3, 11]), [1, 1, 1, 4, 1], "nothing but bytes joins");
        assert_eq!(of(&[0, 2, 9, 10]), [1, 1, 1]);
    }

    #[test]
    fn a_tokenizer_says_which_spaces_are_text() {
        let kept = tables(Whitespace { drops_first: false, ..PREFIX });
        assert_eq!(kept.target_bytes([0, 3, 9, 10, 11]), [4, 0, 0, 1]);
        let suffix = tables(Whitespace { drops_first: false, suffix: true, ..PREFIX });
        assert_eq!(suffix.target_bytes([0, 6, 6, 0, 3]), [2, 1, 0, 4]);
        let literal = tables(Whitespace { escaped: false, ..PREFIX });
        assert_eq!(literal.target_bytes([0, 3, 6]), [6, 4]);
        assert_eq!(Whitespace::new(None, false), PREFIX);
    }

    #[test]
    fn a_stream_has_the_bytes_of_its_targets() {
        let t = tables(PREFIX);
        for length in 0..9 {
            let tokens = (0..length).map(|i| [9, 10, 11, 3, 0, 8, 2, 9, 10][i]);
            let sum: u64 = t.target_bytes(tokens.clone()).iter().map(|&bytes| u64::from(bytes)).sum();
            assert_eq!(t.stream_bytes(tokens), sum);
        }
    }

    #[test]
    fn scores_add_up() {
        let mut score = Score::default();
        assert!(score.bits_per_byte().is_nan());
        score.add(&[3, 2], &[1.0, 2.5]);
        score.add(&[0], &[0.5]);
        assert_eq!(score, Score { nats: 4.0, targets: 3, bytes: 5 });
        assert!((score.bits_per_byte() - 4.0 / 2f64.ln() / 5.0).abs() < 1e-12);
    }
}
