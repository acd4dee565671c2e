//! A SentencePiece `.model` file: pieces and their kinds. Scoring needs no more of a tokenizer than the bytes
//! that each piece stands for.

use std::path::{Path, PathBuf};

use pg_ir::input::Kind;

use super::bytes::{ByteTables, Whitespace};
use super::error::DataError;
use super::proto;

/// What a piece is (`sentencepiece.ModelProto.SentencePiece.Type`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PieceKind {
    /// Text.
    Normal,
    /// What stands for text that no piece covers.
    Unknown,
    /// BOS, EOS, padding.
    Control,
    /// Text that is never split.
    UserDefined,
    /// Never produced.
    Unused,
    /// One byte of text that no piece covers.
    Byte,
}

/// The pieces of a tokenizer.
#[derive(Clone, PartialEq, Debug)]
pub struct Tokenizer {
    path: PathBuf,
    pieces: Vec<(String, PieceKind)>,
    bos: Option<u16>,
    tables: ByteTables,
    hash: String,
}

impl Tokenizer {
    /// Reads a `.model` file.
    ///
    /// # Errors
    /// [`DataError::Io`] or [`DataError::Tokenizer`].
    pub fn open(path: &Path) -> Result<Tokenizer, DataError> {
        Tokenizer::from_bytes(path, &read(path)?)
    }

    /// Reads a `.model` file's bytes; `path` is for messages.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] where they are not a SentencePiece model with at most 65,536 pieces.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Tokenizer, DataError> {
        let fail = |what: String| DataError::Tokenizer { path: path.to_owned(), what };
        let proto = proto::decode(bytes).map_err(fail)?;
        let mut pieces = Vec::with_capacity(proto.pieces.len());
        for (id, p) in proto.pieces.into_iter().enumerate() {
            let kind = match p.kind.unwrap_or(1) {
                1 => PieceKind::Normal,
                2 => PieceKind::Unknown,
                3 => PieceKind::Control,
                4 => PieceKind::UserDefined,
                5 => PieceKind::Unused,
                6 => PieceKind::Byte,
                k => return Err(fail(format!("piece {id} is of unknown type {k}"))),
            };
            pieces.push((p.piece.unwrap_or_default(), kind));
        }
        // Protobuf's default is 1; a negative id means that there is none.
        let trainer = proto.trainer.unwrap_or_default();
        let suffix = trainer.treat_whitespace_as_suffix.unwrap_or(false);
        let bos = trainer.bos_id.unwrap_or(1);
        let bos = u16::try_from(bos)
            .ok()
            .filter(|b| pieces.get(usize::from(*b)).is_some_and(|(_, kind)| *kind == PieceKind::Control));
        let space = Whitespace::new(proto.normalizer.as_ref(), suffix);
        let tables = ByteTables::new(pieces.iter().map(|(text, kind)| (text.as_str(), *kind)), space);
        let hash = blake3::hash(bytes).to_hex().to_string();
        Ok(Tokenizer { path: path.to_owned(), pieces, bos, tables, hash })
    }

    /// Number of pieces.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    /// Text and kind of a piece. U+2581 stands for a space.
    pub fn piece(&self, id: usize) -> Option<(&str, PieceKind)> {
        self.pieces.get(id).map(|(text, kind)| (text.as_str(), *kind))
    }

    /// The token that begins a document, if the tokenizer has one.
    pub fn bos(&self) -> Option<u16> {
        self.bos
    }

    /// Bytes of each token.
    pub fn tables(&self) -> &ByteTables {
        &self.tables
    }

    /// blake3 of the file, in hexadecimal: scores are comparable only under the same tokenizer.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Checks that this is the tokenizer of a model with `vocab` embeddings.
    ///
    /// # Errors
    /// [`DataError::Vocabulary`] where the sizes differ.
    pub fn check_vocabulary(&self, vocab: usize) -> Result<(), DataError> {
        let found = self.vocab_size();
        if found == vocab {
            return Ok(());
        }
        Err(DataError::Vocabulary { path: self.path.clone(), found, vocab })
    }
}

/// The bytes of a `.model` file.
///
/// # Errors
/// [`DataError::Io`].
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    Kind::TOKENIZER.read(path).map_err(|error| DataError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn reads_the_sample_tokenizer() {
        let t = sample::tokenizer();
        assert_eq!((t.vocab_size(), t.bos()), (1024, Some(1)));
        let kinds: Vec<_> = (0..4).map(|i| t.piece(i).unwrap().1).collect();
        use PieceKind::{Byte, Control, Normal, Unknown};
        assert_eq!(kinds, [Control, Control, Control, Unknown]);
        assert!((4..260).all(|i| t.piece(i).unwrap().1 == Byte));
        assert!((260..1024).all(|i| t.piece(i).unwrap().1 == Normal));
        assert_eq!(t.piece(1024), None);
        assert!(t.check_vocabulary(1024).is_ok());
        let e = t.check_vocabulary(2048).unwrap_err().to_string();
        assert!(e.contains("1024 pieces") && e.contains("2048"), "{e}");
    }

    #[test]
    fn other_files_are_refused() {
        let path = Path::new("x.model");
        let refused = |bytes: &[u8]| {
            let e = Tokenizer::from_bytes(path, bytes).unwrap_err();
            assert!(matches!(e, DataError::Tokenizer { .. }), "{e}");
        };
        refused(b"");
        refused(b"hello, this is text");
        refused(&sample::TOKENIZER[..1000]);
        // One piece of type 9.
        refused(&[0x0a, 0x05, 0x0a, 0x01, b'a', 0x18, 0x09]);
        assert!(matches!(Tokenizer::open(Path::new("/none")), Err(DataError::Io { .. })));
    }
}
