//! Byte-pair merging: the best pair of neighbours first, until no pair is a piece.

use std::collections::{BinaryHeap, HashMap};

use crate::data::PieceKind;

use super::error::EncodeError;
use super::normalize::Protected;

/// The pieces of a model, by text.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Pieces {
    /// What merging can make, and its score: normal, user-defined and unused pieces.
    pub(super) mergeable: HashMap<Box<[u8]>, (u16, f32)>,
    /// All others; they take precedence when a finished piece is looked up.
    pub(super) reserved: HashMap<Box<[u8]>, u16>,
    /// By id.
    pub(super) kinds: Vec<PieceKind>,
    /// The id of text that is no piece.
    pub(super) unknown: u16,
    /// The byte pieces, where unknown text becomes its bytes.
    pub(super) bytes: Option<Box<[u16; 256]>>,
    /// User-defined pieces, never split.
    pub(super) symbols: Symbols,
}

/// User-defined symbols: few, and matched at every position.
#[derive(Clone, PartialEq, Default, Debug)]
pub(super) struct Symbols {
    longest_first: Vec<Box<[u8]>>,
}

impl Symbols {
    pub(super) fn new(mut symbols: Vec<Box<[u8]>>) -> Symbols {
        symbols.sort_by_key(|s| std::cmp::Reverse(s.len()));
        Symbols { longest_first: symbols }
    }
}

impl Protected for Symbols {
    fn prefix(&self, text: &[u8]) -> usize {
        self.longest_first.iter().find(|s| text.starts_with(s)).map_or(0, |s| s.len())
    }
}

/// A run of characters on the way to become a piece: `text[start..start + length]`; a length of 0 is one that was
/// merged into its left neighbour.
#[derive(Clone, Copy)]
struct Symbol {
    start: u32,
    length: u32,
    /// Neighbours, by index; `NONE` at the ends.
    previous: u32,
    next: u32,
    /// A user-defined symbol: not merged further.
    frozen: bool,
}

impl Symbol {
    fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..][..self.length as usize]
    }
}

const NONE: u32 = u32::MAX;

/// Most bytes that are merged together: a novel without a space. Each takes 36 bytes of working memory, twice that
/// where vectors have grown.
pub(super) const MAX_WORD: usize = 8 << 20;

/// Two neighbours that together are a piece. Ordered by score, then the leftmost first.
#[derive(Clone, Copy, PartialEq)]
struct Pair {
    score: f32,
    left: u32,
    right: u32,
    /// Length of both when the pair was found: it is out of date when they have changed.
    length: u32,
}

impl Eq for Pair {}

impl Ord for Pair {
    fn cmp(&self, other: &Pair) -> std::cmp::Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Pair) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Working memory of [`Pieces::merge`], kept between calls.
#[derive(Default)]
pub(super) struct Work {
    symbols: Vec<Symbol>,
    pairs: BinaryHeap<Pair>,
    /// How each unused piece came about: bytes of its left part.
    splits: HashMap<Box<[u8]>, u32>,
}

impl Work {
    /// Bytes that it holds, but for a few.
    pub(super) fn bytes(&self) -> usize {
        self.symbols.capacity() * size_of::<Symbol>() + self.pairs.capacity() * size_of::<Pair>()
    }
}

impl Pieces {
    /// Appends the ids of normalised text. `O(n log n)`.
    ///
    /// # Errors
    /// [`EncodeError::Word`] for more than [`MAX_WORD`] bytes.
    pub(super) fn merge(&self, text: &[u8], work: &mut Work, out: &mut Vec<u16>) -> Result<(), EncodeError> {
        if text.len() > MAX_WORD {
            return Err(EncodeError::Word { bytes: text.len() });
        }
        work.symbols.clear();
        work.pairs.clear();
        work.splits.clear();
        let mut start = 0;
        while start < text.len() {
            let protected = self.symbols.prefix(&text[start..]);
            let length = if protected > 0 { protected } else { character(&text[start..]) };
            let index = work.symbols.len() as u32;
            work.symbols.push(Symbol {
                start: start as u32,
                length: length as u32,
                previous: index.checked_sub(1).unwrap_or(NONE),
                next: index + 1,
                frozen: protected > 0,
            });
            start += length;
        }
        let Some(last) = work.symbols.last_mut() else { return Ok(()) };
        last.next = NONE;
        for right in 1..work.symbols.len() as u32 {
            self.consider(text, right - 1, right, work);
        }
        while let Some(pair) = work.pairs.pop() {
            let [l, r] = [pair.left, pair.right].map(|i| i as usize);
            let (left, right) = (work.symbols[l], work.symbols[r]);
            if left.length == 0 || right.length == 0 || left.length + right.length != pair.length {
                continue;
            }
            work.symbols[l].length = pair.length;
            work.symbols[l].next = right.next;
            work.symbols[r].length = 0;
            if let Some(next) = work.symbols.get_mut(right.next as usize) {
                next.previous = pair.left;
            }
            self.consider(text, left.previous, pair.left, work);
            self.consider(text, pair.left, right.next, work);
        }
        let mut index = 0;
        while let Some(symbol) = work.symbols.get(index) {
            self.emit(symbol.of(text), &work.splits, out);
            index = symbol.next as usize;
        }
        Ok(())
    }

    /// Adds the pair of two neighbours if together they are a piece.
    fn consider(&self, text: &[u8], left: u32, right: u32, work: &mut Work) {
        let symbol = |i: u32| work.symbols.get(i as usize);
        let (Some(l), Some(r)) = (symbol(left), symbol(right)) else { return };
        if l.frozen || r.frozen {
            return;
        }
        let length = l.length + r.length;
        let merged = Symbol { length, ..*l }.of(text);
        let Some(&(id, score)) = self.mergeable.get(merged) else { return };
        if self.kinds[usize::from(id)] == PieceKind::Unused {
            work.splits.insert(merged.into(), l.length);
        }
        work.pairs.push(Pair { score, left, right, length });
    }

    /// Appends a finished piece; an unused one as what it was made of.
    fn emit(&self, piece: &[u8], splits: &HashMap<Box<[u8]>, u32>, out: &mut Vec<u16>) {
        // A stack of its own: a chain of unused pieces may be as deep as the longest one has characters.
        let mut stack = vec![piece];
        while let Some(piece) = stack.pop() {
            let id = self.id(piece);
            let kind = self.kinds[usize::from(id)];
            if kind == PieceKind::Unused
                && let Some(&left) = splits.get(piece)
            {
                let (left, right) = piece.split_at(left as usize);
                stack.push(right);
                stack.push(left);
                continue;
            }
            match &self.bytes {
                Some(bytes) if kind == PieceKind::Unknown => {
                    out.extend(piece.iter().map(|b| bytes[usize::from(*b)]));
                }
                _ => out.push(id),
            }
        }
    }

    fn id(&self, piece: &[u8]) -> u16 {
        let reserved = self.reserved.get(piece).copied();
        reserved.or_else(|| self.mergeable.get(piece).map(|(id, _)| *id)).unwrap_or(self.unknown)
    }
}

/// Length of the character that `text` begins with, by its first byte alone, as the original reads it.
fn character(text: &[u8]) -> usize {
    let length = match text.first() {
        Some(0xc0..0xe0) => 2,
        Some(0xe0..0xf0) => 3,
        Some(0xf0..) => 4,
        _ => 1,
    };
    length.min(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(list: &[(&str, f32, PieceKind)]) -> Pieces {
        let mut pieces = Pieces {
            mergeable: HashMap::new(),
            reserved: HashMap::new(),
            kinds: vec![PieceKind::Unknown],
            unknown: 0,
            bytes: None,
            symbols: Symbols::default(),
        };
        let mut symbols = Vec::new();
        for (text, score, kind) in list {
            let id = pieces.kinds.len() as u16;
            pieces.kinds.push(*kind);
            pieces.mergeable.insert(text.as_bytes().into(), (id, *score));
            if *kind == PieceKind::UserDefined {
                symbols.push(text.as_bytes().into());
            }
        }
        pieces.symbols = Symbols::new(symbols);
        pieces
    }

    fn merged(pieces: &Pieces, text: &str) -> Vec<u16> {
        let mut out = Vec::new();
        pieces.merge(text.as_bytes(), &mut Work::default(), &mut out).unwrap();
        out
    }

    use PieceKind::{Normal, Unused, UserDefined};

    #[test]
    fn a_word_without_end_is_refused() {
        let p = pieces(&[("a", -9.0, Normal)]);
        let (mut work, mut out) = (Work::default(), Vec::new());
        let error = p.merge(&vec![b'a'; MAX_WORD + 1], &mut work, &mut out);
        assert_eq!(error, Err(EncodeError::Word { bytes: MAX_WORD + 1 }));
        assert_eq!((work.bytes(), out.len()), (0, 0), "before anything is allocated");
    }

    #[test]
    fn the_best_pair_goes_first_and_the_leftmost_of_equals() {
        let p =
            pieces(&[("a", -9.0, Normal), ("b", -9.0, Normal), ("ab", -1.0, Normal), ("ba", 0.0, Normal)]);
        assert_eq!(merged(&p, "aba"), [1, 4]);
        let p = pieces(&[("a", -9.0, Normal), ("aa", -1.0, Normal)]);
        assert_eq!(merged(&p, "aaaaa"), [2, 2, 1]);
        assert_eq!(merged(&p, ""), [0u16; 0]);
        assert_eq!(merged(&p, "xaé"), [0, 1, 0]);
    }

    #[test]
    fn unused_pieces_come_apart_again() {
        let p = pieces(&[
            ("a", -9.0, Normal),
            ("b", -9.0, Normal),
            ("ab", -1.0, Unused),
            ("abab", -2.0, Unused),
            ("c", 0.0, Normal),
        ]);
        assert_eq!(merged(&p, "ababc"), [1, 2, 1, 2, 5]);
    }

    #[test]
    fn symbols_do_not_merge() {
        let p = pieces(&[("a", -9.0, Normal), ("aa", -1.0, UserDefined), ("aaa", 0.0, Normal)]);
        assert_eq!(merged(&p, "aaaaa"), [2, 2, 1]);
    }
}
