//! The sample corpus: public-domain English prose and its tokenizer, inside the program. What runs without
//! `--data`.

use std::path::Path;

use super::loader::Dataset;
use super::shard::Shard;
use super::tokenize::Encoder;
use super::tokenizer::Tokenizer;

/// The tokenizer's `.model` file.
pub const TOKENIZER: &[u8] = include_bytes!("../../sample/sample_1024_bpe.model");
/// The training shard.
pub const TRAIN: &[u8] = include_bytes!("../../sample/sample_train_000000.bin");
/// The validation shard.
pub const VAL: &[u8] = include_bytes!("../../sample/sample_val_000000.bin");

/// Pieces of the sample's tokenizer.
pub const VOCAB: usize = 1024;

/// Scores on the validation shard in bits per byte, for comparison: a uniform guess over the vocabulary,
/// counted n-grams of the training shard, and `xz -9e` on the text.
pub const REFERENCE_POINTS: [(&str, f64); 4] =
    [("unigram", 3.428), ("xz -9e", 2.609), ("bigram", 2.359), ("trigram", 1.926)];

/// 1,579,228 training tokens.
pub fn train() -> Dataset {
    dataset("the sample's training text", TRAIN)
}

/// 166,011 validation tokens.
pub fn val() -> Dataset {
    dataset("the sample's validation text", VAL)
}

/// The tokenizer of both.
pub fn tokenizer() -> Tokenizer {
    Tokenizer::from_bytes(Path::new("the sample's tokenizer"), TOKENIZER).expect("a test reads this constant")
}

/// What made its tokens of its text.
pub fn encoder() -> Encoder {
    Encoder::from_bytes(Path::new("the sample's tokenizer"), TOKENIZER).expect("a test reads this constant")
}

fn dataset(name: &str, bytes: &'static [u8]) -> Dataset {
    Shard::embedded(name, bytes)
        .and_then(|shard| Dataset::new(name, vec![shard], VOCAB))
        .expect("a test reads this constant")
}

#[cfg(test)]
mod tests {
    use super::super::stats;
    use super::*;

    #[test]
    fn the_sample_is_whole() {
        let tokenizer = tokenizer();
        let train = stats(&train(), &tokenizer).unwrap();
        let val = stats(&val(), &tokenizer).unwrap();
        assert_eq!((train.tokens, val.tokens), (1_579_228, 166_011));
        assert_eq!(tokenizer.vocab_size(), VOCAB);
        assert_eq!(encoder().tokenizer().hash(), tokenizer.hash());
        // Documents and text bytes as `data/DATA.md` counts them.
        assert_eq!(train.documents, 354 + 349 + 201 + 623 + 106 + 121);
        assert_eq!(val.documents, 175);
    }
}
