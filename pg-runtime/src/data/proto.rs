//! `sentencepiece_model.proto`: the fields that are used.

use prost::encoding::{DecodeContext, decode_key, skip_field};
use prost::{DecodeError, Message};

/// Most pieces that a 16-bit token can name.
const MAX_PIECES: usize = 1 << 16;

/// Reads a `.model` file's bytes.
///
/// # Errors
/// What is wrong with them, in words: no such message, or other than 1 to 65,536 pieces.
pub(super) fn decode(bytes: &[u8]) -> Result<ModelProto, String> {
    // An empty piece takes two bytes in the file and forty in memory: they are counted before any is made.
    let pieces = count_pieces(bytes).map_err(|e| e.to_string())?;
    if !(1..=MAX_PIECES).contains(&pieces) {
        return Err(format!("it has {pieces} pieces, expected 1 to {MAX_PIECES}"));
    }
    ModelProto::decode(bytes).map_err(|e| e.to_string())
}

fn count_pieces(mut bytes: &[u8]) -> Result<usize, DecodeError> {
    let mut pieces = 0;
    while !bytes.is_empty() {
        let (tag, wire_type) = decode_key(&mut bytes)?;
        pieces += usize::from(tag == 1);
        skip_field(wire_type, tag, &mut bytes, DecodeContext::default())?;
    }
    Ok(pieces)
}

/// `sentencepiece.ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pub pieces: Vec<PieceProto>,
    #[prost(message, optional, tag = "2")]
    pub trainer: Option<TrainerProto>,
    #[prost(message, optional, tag = "3")]
    pub normalizer: Option<NormalizerProto>,
}

/// `sentencepiece.ModelProto.SentencePiece`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PieceProto {
    #[prost(string, optional, tag = "1")]
    pub piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    pub score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    pub kind: Option<i32>,
}

/// `sentencepiece.TrainerSpec`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TrainerProto {
    /// 1 unigram (the default), 2 BPE, 3 word, 4 character.
    #[prost(int32, optional, tag = "3")]
    pub model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    pub treat_whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    pub byte_fallback: Option<bool>,
    #[prost(int32, optional, tag = "41")]
    pub bos_id: Option<i32>,
}

/// `sentencepiece.NormalizerSpec`. The three switches are on where they are absent.
#[derive(Clone, PartialEq, Message)]
pub(super) struct NormalizerProto {
    #[prost(bytes = "vec", optional, tag = "2")]
    pub precompiled_charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3")]
    pub add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    pub remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    pub escape_whitespaces: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_counted_before_they_are_made() {
        let pieces = |n: usize| decode(&[0x0a, 0x00].repeat(n)).map(|proto| proto.pieces.len());
        assert_eq!(pieces(MAX_PIECES), Ok(MAX_PIECES));
        assert_eq!(pieces(0), Err("it has 0 pieces, expected 1 to 65536".into()));
        assert_eq!(pieces(MAX_PIECES + 1), Err("it has 65537 pieces, expected 1 to 65536".into()));
    }
}
