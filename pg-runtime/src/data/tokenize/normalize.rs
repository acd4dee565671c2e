//! SentencePiece's normalisation: rewriting by the model's rules, then white space.

use super::error::EncodeError;
use super::trie::DoubleArray;
use crate::data::proto::{NormalizerProto, TrainerProto};

/// How many times as long a text's normal form may be. Of Unicode's own rules, NFKC makes 11 times as much of U+FDFA,
/// and a space becomes three bytes.
const MAX_GROWTH: usize = 16;
/// What stands for a space in pieces: U+2581.
const SPACE_SYMBOL: &str = "\u{2581}";

/// The normaliser of a model. It works on bytes, as the original does: a rule may end anywhere.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Normalizer {
    rules: Option<Rules>,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    escape_whitespaces: bool,
    whitespace_as_suffix: bool,
}

/// Rewriting rules: a trie from text to the index in `texts` of its replacement, which ends at a NUL.
#[derive(Clone, PartialEq, Debug)]
struct Rules {
    trie: DoubleArray,
    texts: Vec<u8>,
}

/// Text that takes precedence over all rules: the model's user-defined symbols.
pub(super) trait Protected {
    /// Length of the longest protected text that `text` begins with; 0 where there is none.
    fn prefix(&self, text: &[u8]) -> usize;
}

impl Normalizer {
    /// The normaliser that a model describes.
    ///
    /// # Errors
    /// What is wrong with its rules, in words.
    pub(super) fn new(
        spec: Option<&NormalizerProto>,
        trainer: Option<&TrainerProto>,
    ) -> Result<Normalizer, String> {
        let blob = spec.and_then(|s| s.precompiled_charsmap.as_deref()).unwrap_or_default();
        let on = |field: fn(&NormalizerProto) -> Option<bool>| spec.and_then(field).unwrap_or(true);
        Ok(Normalizer {
            rules: if blob.is_empty() { None } else { Some(Rules::new(blob)?) },
            add_dummy_prefix: on(|s| s.add_dummy_prefix),
            remove_extra_whitespaces: on(|s| s.remove_extra_whitespaces),
            escape_whitespaces: on(|s| s.escape_whitespaces),
            whitespace_as_suffix: trainer.and_then(|t| t.treat_whitespace_as_suffix).unwrap_or(false),
        })
    }

    /// What a space becomes.
    pub(super) fn space(&self) -> &'static str {
        if self.escape_whitespaces { SPACE_SYMBOL } else { " " }
    }

    /// Replaces `out` by the normal form of `text`.
    ///
    /// # Errors
    /// [`EncodeError::Rules`] where that is far longer.
    pub(super) fn normalize(
        &self,
        text: &str,
        protected: &impl Protected,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let most = text.len().saturating_mul(MAX_GROWTH).saturating_add(64);
        out.clear();
        let space = self.space().as_bytes();
        let mut rest = Rest { text, at: 0 };
        if self.remove_extra_whitespaces {
            while !rest.is_empty() {
                let mut next = rest;
                if self.next(&mut next, protected) != b" " {
                    break;
                }
                rest = next;
            }
        }
        if rest.is_empty() {
            return Ok(());
        }
        out.reserve(text.len() + text.len() / 2);
        if self.add_dummy_prefix && !self.whitespace_as_suffix {
            out.extend_from_slice(space);
        }
        let mut after_space = self.remove_extra_whitespaces;
        while !rest.is_empty() {
            let mut part = self.next(&mut rest, protected);
            while after_space && let [b' ', tail @ ..] = part {
                part = tail;
            }
            if let Some(last) = part.last() {
                for &byte in part {
                    if byte == b' ' { out.extend_from_slice(space) } else { out.push(byte) }
                }
                after_space = *last == b' ';
            }
            after_space &= self.remove_extra_whitespaces;
            if out.len() > most {
                return Err(EncodeError::Rules { bytes: text.len(), most });
            }
        }
        if self.remove_extra_whitespaces {
            while out.ends_with(space) {
                out.truncate(out.len() - space.len());
            }
        }
        if self.add_dummy_prefix && self.whitespace_as_suffix {
            out.extend_from_slice(space);
        }
        Ok(())
    }

    /// Takes the longest text off `rest` that is protected or that a rule rewrites, else one character, and gives
    /// what it becomes.
    fn next<'a>(&'a self, rest: &mut Rest<'a>, protected: &impl Protected) -> &'a [u8] {
        let bytes = &rest.text.as_bytes()[rest.at..];
        let length = protected.prefix(bytes);
        if length > 0 {
            rest.at += length;
            return &bytes[..length];
        }
        if let Some((length, text)) = self.rules.as_ref().and_then(|r| r.apply(bytes)) {
            rest.at += length;
            return text;
        }
        let Some(character) = rest.text.get(rest.at..).and_then(|t| t.chars().next()) else {
            // A rule or symbol ended inside a character.
            rest.at += 1;
            return "\u{fffd}".as_bytes();
        };
        rest.at += character.len_utf8();
        &bytes[..character.len_utf8()]
    }
}

/// What is left of a text.
#[derive(Clone, Copy)]
struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl Rest<'_> {
    fn is_empty(&self) -> bool {
        self.at >= self.text.len()
    }
}

impl Rules {
    /// Length of the trie in bytes, the trie, the texts.
    fn new(blob: &[u8]) -> Result<Rules, String> {
        let broken = || "its normalisation rules are damaged".to_owned();
        let (length, rest) = blob.split_first_chunk::<4>().ok_or_else(broken)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length >= rest.len() {
            return Err(broken());
        }
        let (trie, texts) = rest.split_at(length);
        Ok(Rules { trie: DoubleArray::from_bytes(trie), texts: texts.to_vec() })
    }

    fn apply(&self, text: &[u8]) -> Option<(usize, &[u8])> {
        let (length, value) = self.trie.longest_prefix(text)?;
        let text = self.texts.get(value as usize..).unwrap_or_default();
        Some((length, text.split(|b| *b == 0).next().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Protected for Nothing {
        fn prefix(&self, _: &[u8]) -> usize {
            0
        }
    }

    struct Symbol(&'static str);

    impl Protected for Symbol {
        fn prefix(&self, text: &[u8]) -> usize {
            if text.starts_with(self.0.as_bytes()) { self.0.len() } else { 0 }
        }
    }

    fn plain() -> Normalizer {
        Normalizer::new(None, None).unwrap()
    }

    fn normal(normalizer: &Normalizer, text: &str) -> String {
        let mut out = b"left over".to_vec();
        normalizer.normalize(text, &Nothing, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn white_space_is_folded() {
        let n = plain();
        assert_eq!(normal(&n, "  a  b c "), "▁a▁b▁c");
        assert_eq!(normal(&n, ""), "");
        assert_eq!(normal(&n, "   "), "");
        assert_eq!(normal(&n, "a▁ "), "▁a", "what looks like a space at the end goes, as in the original");
        let n = Normalizer { remove_extra_whitespaces: false, ..plain() };
        assert_eq!(normal(&n, " a  "), "▁▁a▁▁");
        assert_eq!(normal(&n, "   "), "▁▁▁▁");
        let n = Normalizer { add_dummy_prefix: false, escape_whitespaces: false, ..plain() };
        assert_eq!(normal(&n, " a  b "), "a b");
        let n = Normalizer { whitespace_as_suffix: true, ..plain() };
        assert_eq!(normal(&n, " a b"), "a▁b▁");
    }

    #[test]
    fn symbols_are_protected() {
        let mut out = Vec::new();
        plain().normalize("x  <  >  y", &Symbol("<  >"), &mut out).unwrap();
        assert_eq!(out, "▁x▁<▁▁>▁y".as_bytes());
    }

    #[test]
    fn rules_that_blow_text_up_are_refused() {
        // A trie of the one key "a", whose value is the index 0 in the texts: a thousand bytes.
        let mut units = vec![0u32; 1024];
        units[0] = 256 << 10;
        units[256 ^ 97] = (256 ^ 97 ^ 512) << 10 | 1 << 8 | 97;
        units[512] = 1 << 31;
        let trie: Vec<u8> = units.iter().flat_map(|u| u.to_le_bytes()).collect();
        let blob = [&(trie.len() as u32).to_le_bytes()[..], &trie, &[b'x'; 1000], &[0]].concat();
        let spec = NormalizerProto { precompiled_charsmap: Some(blob), ..Default::default() };
        let n = Normalizer::new(Some(&spec), None).unwrap();
        let long = |text: &str| n.normalize(text, &Nothing, &mut Vec::new());
        assert_eq!(long(&"a".repeat(100)), Err(EncodeError::Rules { bytes: 100, most: 1664 }));
        assert_eq!(long(&"b".repeat(100)), Ok(()));
    }

    #[test]
    fn damaged_rules_are_refused() {
        let with = |blob: &[u8]| {
            let spec = NormalizerProto { precompiled_charsmap: Some(blob.to_vec()), ..Default::default() };
            Normalizer::new(Some(&spec), None)
        };
        for blob in [&b"abc"[..], &[0, 0, 0, 0], &[4, 0, 0, 0, 1, 2, 3, 4], &[255, 255, 255, 255, 1]] {
            assert!(with(blob).unwrap_err().contains("damaged"));
        }
        assert_eq!(normal(&with(&[4, 0, 0, 0, 1, 2, 3, 4, 0]).unwrap(), "ab"), "▁ab");
    }
}
