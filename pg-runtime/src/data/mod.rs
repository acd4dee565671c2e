//! Tokens, their order in training, and the bytes that they stand for.
//!
//! A [`Dataset`] is the shards of a glob, checked, as one stream of token ids; a [`Loader`]
//! walks it in batches. A [`Tokenizer`] gives the [`ByteTables`] that turn a loss in nats per token into bits
//! per byte; [`tokenize`] makes shards from text. The [`sample`] corpus is part of the program and runs without any file.

mod bytes;
mod counts;
mod error;
mod loader;
mod overlap;
mod proto;
pub mod sample;
mod shard;
mod stats;
pub mod tokenize;
mod tokenizer;

pub use self::bytes::{ByteTables, Score, bits_per_byte};
pub use self::counts::check_counts;
pub use self::error::DataError;
pub use self::loader::{Batch, Dataset, Loader, Tokens, whole_sequences};
pub use self::overlap::{Overlap, overlap};
pub use self::shard::{HEADER_BYTES, MAGIC, Shard, VERSION, shard_bytes, shard_header};
pub use self::stats::{Stats, stats};
pub use self::tokenizer::{PieceKind, Tokenizer};
