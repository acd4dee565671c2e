//! `sentencepiece_model.proto`: the fields that are used.

use prost::Message;

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
