//! Text to tokens, id for id as SentencePiece's own BPE encoder.

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::error::{EncodeError, TokenizeError};
use super::merge::{Pieces, Symbols, Work};
use super::normalize::Normalizer;
use crate::data::proto::{self, TrainerProto};
use crate::data::{DataError, PieceKind, Tokenizer, tokenizer};

/// The encoder of a SentencePiece BPE model. Threads may share one.
#[derive(Debug)]
pub struct Encoder {
    tokenizer: Tokenizer,
    normalizer: Normalizer,
    pieces: Pieces,
    /// Whether no merge crosses the beginning of a word, so that words can be encoded, and remembered, one by one.
    by_word: bool,
    idle: Mutex<Vec<Scratch>>,
}

/// What encoding keeps from one text to the next.
#[derive(Default)]
struct Scratch {
    normal: Vec<u8>,
    work: Work,
    words: Words,
}

impl std::fmt::Debug for Scratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scratch").field("words", &self.words.ids.len()).finish_non_exhaustive()
    }
}

/// Words seen before and their tokens.
#[derive(Default)]
struct Words {
    ids: HashMap<Box<[u8]>, Range<usize>>,
    tokens: Vec<u16>,
}

/// Words remembered before all are forgotten.
const MAX_WORDS: usize = 1 << 16;
/// Bytes of the longest word that is remembered.
const MAX_WORD_BYTES: usize = 48;
/// Bytes of working memory that are kept from one text to the next.
const MAX_SCRATCH: usize = 1 << 24;

impl Encoder {
    /// Reads a `.model` file.
    ///
    /// # Errors
    /// As [`Encoder::from_bytes`], and `Data` where the file cannot be read.
    pub fn open(path: &Path) -> Result<Encoder, TokenizeError> {
        Encoder::from_bytes(path, &tokenizer::read(path)?)
    }

    /// Reads a `.model` file's bytes; `path` is for messages.
    ///
    /// # Errors
    /// [`TokenizeError::Data`] where they are not a sound SentencePiece model, [`TokenizeError::Kind`] where the
    /// model is of another kind than BPE.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Encoder, TokenizeError> {
        let tokenizer = Tokenizer::from_bytes(path, bytes)?;
        let fail = |what: String| DataError::Tokenizer { path: path.to_owned(), what };
        let proto = proto::decode(bytes).map_err(fail)?;
        let trainer = proto.trainer.unwrap_or_default();
        // Protobuf's default, and so what an absent field means, is 1.
        let kind = match trainer.model_type.unwrap_or(1) {
            2 => None,
            1 => Some("unigram"),
            3 => Some("word"),
            4 => Some("character"),
            _ => Some("unknown"),
        };
        if let Some(found) = kind {
            return Err(TokenizeError::Kind { path: path.to_owned(), found });
        }
        let normalizer = Normalizer::new(proto.normalizer.as_ref(), Some(&trainer)).map_err(fail)?;
        let scores = proto.pieces.iter().map(|p| p.score.unwrap_or(0.0));
        let pieces = pieces(&tokenizer, scores, &trainer).map_err(fail)?;
        // A word is a space and what follows up to the next one. How an unused piece comes apart depends on the
        // whole text.
        let space = normalizer.space().as_bytes();
        let inside = |piece: &[u8]| piece.windows(space.len()).skip(1).any(|w| w == space);
        let by_word =
            !pieces.mergeable.keys().any(|p| inside(p)) && !pieces.kinds.contains(&PieceKind::Unused);
        Ok(Encoder { tokenizer, normalizer, pieces, by_word, idle: Mutex::default() })
    }

    /// The pieces of the model.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens of a text, without BOS or EOS.
    ///
    /// # Errors
    /// As [`Self::encode_into`].
    pub fn encode(&self, text: &str) -> Result<Vec<u16>, EncodeError> {
        let mut out = Vec::new();
        self.encode_into(text, &mut out)?;
        Ok(out)
    }

    /// Appends the tokens of a text.
    ///
    /// # Errors
    /// [`EncodeError`] where they would take more memory than a text should.
    pub fn encode_into(&self, text: &str, out: &mut Vec<u16>) -> Result<(), EncodeError> {
        let mut scratch = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        self.encode_with(text, &mut scratch, out)?;
        // One huge text must not hold its memory for ever.
        if scratch.normal.capacity() + scratch.work.bytes() <= MAX_SCRATCH {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        }
        Ok(())
    }

    fn encode_with(&self, text: &str, scratch: &mut Scratch, out: &mut Vec<u16>) -> Result<(), EncodeError> {
        let Scratch { normal, work, words } = scratch;
        self.normalizer.normalize(text, &self.pieces.symbols, normal)?;
        let start = out.len();
        if self.by_word {
            for word in split_before(normal, self.normalizer.space().as_bytes()) {
                words.append(word, out, |tokens| self.pieces.merge(word, work, tokens))?;
            }
        } else {
            self.pieces.merge(normal, work, out)?;
        }
        if self.pieces.bytes.is_none() {
            join_unknown(out, start, self.pieces.unknown);
        }
        Ok(())
    }
}

impl Words {
    /// Appends the tokens of a word, made by `encode` if they are not known.
    fn append<E>(
        &mut self,
        word: &[u8],
        out: &mut Vec<u16>,
        encode: impl FnOnce(&mut Vec<u16>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(known) = self.ids.get(word) {
            out.extend_from_slice(&self.tokens[known.clone()]);
            return Ok(());
        }
        let start = out.len();
        encode(out)?;
        if word.len() > MAX_WORD_BYTES {
            return Ok(());
        }
        if self.ids.len() >= MAX_WORDS {
            self.ids.clear();
            self.tokens.clear();
        }
        let at = self.tokens.len();
        self.tokens.extend_from_slice(&out[start..]);
        self.ids.insert(word.into(), at..self.tokens.len());
        Ok(())
    }
}

/// Cuts before each `space`, so that every part but perhaps the first begins with one.
fn split_before<'a>(text: &'a [u8], space: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let first = space.first()?;
        let starts = rest.iter().enumerate().skip(1);
        let next =
            starts.filter(|(_, b)| *b == first).map(|(i, _)| i).find(|i| rest[*i..].starts_with(space));
        let (word, after) = rest.split_at(next.unwrap_or(rest.len()));
        rest = after;
        Some(word)
    })
}

/// A run of unknown pieces is one token.
fn join_unknown(tokens: &mut Vec<u16>, start: usize, unknown: u16) {
    let mut kept = start;
    for i in start..tokens.len() {
        if tokens[i] == unknown && kept > start && tokens[kept - 1] == unknown {
            continue;
        }
        tokens[kept] = tokens[i];
        kept += 1;
    }
    tokens.truncate(kept);
}

/// The pieces by text, checked as SentencePiece checks them when it loads a model.
fn pieces(
    tokenizer: &Tokenizer,
    scores: impl Iterator<Item = f32>,
    trainer: &TrainerProto,
) -> Result<Pieces, String> {
    let (mut mergeable, mut reserved) = (HashMap::new(), HashMap::new());
    let mut kinds = Vec::new();
    let mut unknown = None;
    let mut bytes = [None; 256];
    let mut symbols = Vec::<Box<[u8]>>::new();
    for (id, score) in scores.enumerate() {
        let Some((text, kind)) = tokenizer.piece(id) else { break };
        let id16 = u16::try_from(id).map_err(|_| "it has more than 65536 pieces")?;
        if text.is_empty() {
            return Err(format!("piece {id} is empty"));
        }
        let key: Box<[u8]> = text.as_bytes().into();
        let twice = match kind {
            PieceKind::Normal | PieceKind::UserDefined | PieceKind::Unused => {
                if score.is_nan() {
                    return Err(format!("the score of piece {id} is not a number"));
                }
                if kind == PieceKind::UserDefined {
                    symbols.push(key.clone());
                }
                // Adding 0 makes -0, which trained models have as their first score, equal to 0.
                mergeable.insert(key, (id16, score + 0.0)).is_some()
            }
            PieceKind::Unknown if unknown.is_some() => return Err("it has two unknown pieces".into()),
            PieceKind::Unknown | PieceKind::Control => reserved.insert(key, id16).is_some(),
            PieceKind::Byte => {
                let byte = text.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
                let byte = byte.filter(|t| t.len() == 2).and_then(|t| u8::from_str_radix(t, 16).ok());
                let byte = byte.ok_or_else(|| format!("byte piece {id} is `{text}`"))?;
                bytes[usize::from(byte)] = Some(id16);
                reserved.insert(key, id16).is_some()
            }
        };
        if twice {
            return Err(format!("piece {id}, `{text}`, is in it twice"));
        }
        if kind == PieceKind::Unknown {
            unknown = Some(id16);
        }
        kinds.push(kind);
    }
    let fallback = trainer.byte_fallback.unwrap_or(false);
    let bytes = match bytes.into_iter().collect::<Option<Vec<u16>>>() {
        Some(all) if fallback => all.try_into().ok(),
        None if fallback => return Err("it has byte fallback, but not all 256 byte pieces".into()),
        _ => None,
    };
    Ok(Pieces {
        mergeable,
        reserved,
        kinds,
        unknown: unknown.ok_or("it has no unknown piece")?,
        bytes,
        symbols: Symbols::new(symbols),
    })
}
