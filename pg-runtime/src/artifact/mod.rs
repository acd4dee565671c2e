//! The artifact: one file with everything that scoring a model needs but the program.
//!
//! ```text
//! offset size
//!      0    8  magic
//!      8    4  format version
//!     12    4  bytes of the coded manifest
//!     16    8  bytes of the whole file
//!     24    4  bytes of the manifest before coding
//!     28   32  blake3 of all other bytes
//!     60    .  manifest: JSON, brotli
//!      .    .  streams, one after another
//! ```
//!
//! Little endian. The manifest holds the model's name, text, settings and hashes, the tensor table, and the codec
//! and length of every stream. Tensors of one role (their name without numbers), row length and grid form a group;
//! a group is three streams (codes, high and low bytes of the scales) or two (high and low bytes of float16
//! values), each under whichever [`Codec`] makes it smallest. The reader derives groups from the table.
//!
//! A reader trusts nothing: the hash covers every byte, lengths are checked against the file and against
//! [`MAX_VALUES`] before anything is allocated, and each failure is one [`ArtifactError`]. A few bytes may stand for
//! that many values, so who reads a model compares an [`Opened`] file's shapes with it before they are decoded. The
//! same input gives the same bytes on every machine.

mod ans;
mod atomic;
mod codec;
mod container;
mod error;
mod streams;

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use pg_ir::quant::{self, Grid, MAX_CLIP, Method};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::atomic::{TEMPORARY, sync_folder, write_atomically, write_atomically_with};
pub use self::codec::Codec;
pub use self::container::{FORMAT_VERSION, Opened, decode, encode};
pub use self::error::{ArtifactError, FileError};

/// Most values in an artifact, all tensors together: 268 million, ten times what 16,000,000 bytes can usefully
/// hold. Bounds what a reader allocates.
pub const MAX_VALUES: usize = 1 << 28;

/// One tensor as stored.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor {
    /// Canonical name, unique in the artifact.
    pub name: String,
    /// Axis lengths; empty for a scalar. The last axis is a row.
    pub shape: Vec<usize>,
    /// The stored values, row major.
    pub data: TensorData,
}

/// The values of a [`Tensor`].
#[derive(Clone, PartialEq, Debug)]
pub enum TensorData {
    /// Integer codes and one scale a row.
    Codes {
        /// The grid that the codes are on.
        grid: Grid,
        /// `[rows, cols]`, each within `-clip..=clip`.
        codes: Vec<i8>,
        /// `[rows]`.
        scales: Vec<f16>,
    },
    /// Float16 values.
    F16(Vec<f16>),
}

impl Tensor {
    /// Quantises float32 weights, row major.
    ///
    /// # Errors
    /// [`ArtifactError::Tensor`] where `weights` does not have the shape's length or is not finite.
    pub fn quantized(
        name: &str,
        shape: &[usize],
        weights: &[f32],
        grid: Grid,
        method: Method,
    ) -> Result<Tensor, ArtifactError> {
        check_weights(name, shape, weights)?;
        let data = TensorData::Codes { grid, codes: Vec::new(), scales: Vec::new() };
        let mut tensor = Tensor { name: name.to_owned(), shape: shape.to_vec(), data };
        if !(1..=MAX_CLIP).contains(&grid.clip) {
            return Err(tensor.unfit(grid));
        }
        let (codes, scales) = quant::quantize(weights, tensor.rows(), tensor.cols(), grid, method);
        tensor.data = TensorData::Codes { grid, codes, scales };
        Ok(tensor)
    }

    /// Rounds float32 weights to float16.
    ///
    /// # Errors
    /// [`ArtifactError::Tensor`] where `weights` does not have the shape's length, or is not finite in float16.
    pub fn half(name: &str, shape: &[usize], weights: &[f32]) -> Result<Tensor, ArtifactError> {
        check_weights(name, shape, weights)?;
        let data = TensorData::F16(weights.iter().map(|w| f16::from_f32(*w)).collect());
        let tensor = Tensor { name: name.to_owned(), shape: shape.to_vec(), data };
        tensor.check()?;
        Ok(tensor)
    }

    /// Values in a row: the last axis, 1 for a scalar.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows: the product of all axes but the last, 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// The float32 weights, `codes * scale` or the widened float16 values.
    pub fn dequantize(&self) -> Vec<f32> {
        match &self.data {
            TensorData::Codes { codes, scales, .. } => quant::dequantize(codes, scales, self.cols()),
            TensorData::F16(values) => values.iter().map(|v| v.to_f32()).collect(),
        }
    }

    /// Bytes without entropy coding, as [`pg_ir::lang::budget`] counts them.
    pub fn raw_bytes(&self) -> u64 {
        match &self.data {
            TensorData::Codes { grid, codes, scales } => {
                (codes.len() as u64 * u64::from(grid.bits())).div_ceil(8) + 2 * scales.len() as u64
            }
            TensorData::F16(values) => 2 * values.len() as u64,
        }
    }

    /// Checks that the data is what the shape says, and finite.
    ///
    /// # Errors
    /// [`ArtifactError::Tensor`], naming the tensor.
    pub fn check(&self) -> Result<(), ArtifactError> {
        let fail = |what: String| Err(ArtifactError::Tensor { name: self.name.clone(), what });
        let Some(values) = count(&self.shape) else {
            return fail(format!("shape {:?} is over {MAX_VALUES} values", self.shape));
        };
        match &self.data {
            TensorData::Codes { grid, codes, scales } => {
                if !(1..=MAX_CLIP).contains(&grid.clip) {
                    return Err(self.unfit(*grid));
                }
                if codes.len() != values || scales.len() != self.rows() {
                    return fail(format!(
                        "shape {:?} needs {values} codes and {} scales, found {} and {}",
                        self.shape,
                        self.rows(),
                        codes.len(),
                        scales.len()
                    ));
                }
                if let Some(k) = codes.iter().find(|k| u16::from(k.unsigned_abs()) > grid.clip) {
                    return fail(format!("code {k} is not on its grid {grid}"));
                }
                if let Some(s) = scales.iter().find(|s| !s.is_finite()) {
                    return fail(format!("a scale is {s}"));
                }
            }
            TensorData::F16(stored) => {
                if stored.len() != values {
                    return fail(format!(
                        "shape {:?} needs {values} values, found {}",
                        self.shape,
                        stored.len()
                    ));
                }
                if let Some(v) = stored.iter().find(|v| !v.is_finite()) {
                    return fail(format!("a value is {v} in float16"));
                }
            }
        }
        Ok(())
    }

    fn unfit(&self, grid: Grid) -> ArtifactError {
        let what = format!("its grid {grid} does not fit 8-bit codes");
        ArtifactError::Tensor { name: self.name.clone(), what }
    }
}

/// Checks length and finiteness: a quantiser would turn NaN into 0 without a word.
fn check_weights(name: &str, shape: &[usize], weights: &[f32]) -> Result<(), ArtifactError> {
    let fail = |what| Err(ArtifactError::Tensor { name: name.to_owned(), what });
    if count(shape) != Some(weights.len()) {
        return fail(format!("shape {shape:?} does not hold {} values", weights.len()));
    }
    match weights.iter().find(|w| !w.is_finite()) {
        Some(w) => fail(format!("a weight is {w}")),
        None => Ok(()),
    }
}

/// Values and rows of a shape, if either is at most [`MAX_VALUES`]; the number of values.
fn count(shape: &[usize]) -> Option<usize> {
    let product = |axes: &[usize]| {
        axes.iter().try_fold(1usize, |n, axis| n.checked_mul(*axis)).filter(|n| *n <= MAX_VALUES)
    };
    // An axis of 0 must not hide an absurd one, and rows have scales even where they have no values.
    let rows = product(&shape[..shape.len().saturating_sub(1)])?;
    product(&[rows, shape.last().copied().unwrap_or(1)])
}

/// What an artifact says about itself.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The model's name.
    pub model: String,
    /// The model file's text: enough, with the standard library, to compile the scoring program again.
    pub text: String,
    /// Overrides and settings of the run.
    pub settings: Value,
    /// Content hashes by purpose (standard library, graph, tokenizer, …).
    pub hashes: BTreeMap<String, String>,
}

/// An artifact read back.
#[derive(Clone, PartialEq, Debug)]
pub struct Artifact {
    /// What it says about itself.
    pub manifest: Manifest,
    /// Its tensors, in the order in which they were written.
    pub tensors: Vec<Tensor>,
    /// The file's blake3 hash, in hexadecimal: identifies the artifact.
    pub hash: String,
    /// Where its bytes are.
    pub sizes: Sizes,
}

/// Where the bytes of an artifact are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Sizes {
    /// The whole file.
    pub total_bytes: u64,
    /// Header and coded manifest.
    pub manifest_bytes: u64,
    /// Codes, scales and float16 values without entropy coding.
    pub raw_bytes: u64,
    /// Every stream, in file order.
    pub streams: Vec<StreamSize>,
}

/// One coded stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StreamSize {
    /// The tensors' common role, as `blocks.#.mlp.fc.weight`.
    pub role: String,
    /// `codes`, `scales.high`, `scales.low`, `f16.high` or `f16.low`.
    pub part: &'static str,
    /// How it is coded.
    pub codec: Codec,
    /// Symbols.
    pub values: usize,
    /// Coded bytes.
    pub bytes: u64,
}

/// Writes an artifact, replacing `path` at once or not at all.
///
/// # Errors
/// Inconsistent tensors, or an input/output error; `path` is then as before.
pub fn write(path: &Path, manifest: &Manifest, tensors: &[Tensor]) -> Result<Sizes, FileError> {
    let located = |error| FileError { path: path.to_owned(), error };
    let (bytes, sizes) = encode(manifest, tensors).map_err(located)?;
    write_atomically(path, &bytes).map_err(|e| located(ArtifactError::Io(e)))?;
    Ok(sizes)
}

/// Reads an artifact.
///
/// # Errors
/// [`ArtifactError`], with the path: not an artifact, another version, truncated, damaged, inconsistent.
pub fn read(path: &Path) -> Result<Artifact, FileError> {
    open(path)?.decode().map_err(|error| FileError { path: path.to_owned(), error })
}

/// Reads all of an artifact but the values: a small file may stand for many.
///
/// # Errors
/// As [`read`].
pub fn open(path: &Path) -> Result<Opened<'static>, FileError> {
    container::open(path).map_err(|error| FileError { path: path.to_owned(), error })
}
