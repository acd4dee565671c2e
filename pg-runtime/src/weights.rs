//! Parameter values by name, and their safetensors files (`--init`, `pg export --safetensors`).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use half::{bf16, f16};
use indexmap::IndexMap;
use pg_ir::input::Kind;
use pg_ir::lang::model::Param;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// Values by parameter name, row-major, in the order of first use.
pub type Weights = IndexMap<String, Vec<f32>>;

/// Longest header that a file may have; the format itself allows 100 MB.
const MAX_HEADER: u64 = 4 << 20;

/// Why a weights file was refused or not written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read or written.
    #[error("cannot {verb} {path}: {source}")]
    File {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bytes are not a safetensors file.
    #[error("{path} is not a whole safetensors file: {what}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The tensors are not those of the model.
    #[error("{path} does not hold this model's weights:{problems}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong.
        problems: Problems,
    },
}

/// What is wrong with a file's tensors, one line each, the first few of each kind.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Problems {
    /// Parameters without a tensor.
    pub missing: Vec<String>,
    /// Tensors without a parameter.
    pub extra: Vec<String>,
    /// Tensors of another shape or type, or with values that are not finite: name and reason.
    pub bad: Vec<(String, String)>,
}

impl Problems {
    fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.bad.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 6;
        let names = |list: &[String]| -> String {
            let rest = list.len().saturating_sub(SHOWN);
            let shown = list[..list.len() - rest].join(", ");
            if rest > 0 { format!("{shown} and {rest} more") } else { shown }
        };
        if !self.missing.is_empty() {
            write!(f, "\n  missing: {}", names(&self.missing))?;
        }
        if !self.extra.is_empty() {
            write!(f, "\n  not in the model: {}", names(&self.extra))?;
        }
        for (name, reason) in self.bad.iter().take(SHOWN) {
            write!(f, "\n  {name}: {reason}")?;
        }
        if self.bad.len() > SHOWN {
            write!(f, "\n  and {} more of the kind", self.bad.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// Reads the weights of a model. Every parameter must be there with its shape, and nothing else; those that no score depends
/// on may be missing, as they are from an artifact. float32, float16 and bfloat16 are accepted, and so is `[1]` for a
/// scalar.
pub fn load(path: &Path, params: &IndexMap<String, Param>) -> Result<Weights, WeightsError> {
    let values: u64 = params.values().map(|p| p.len() as u64).fold(0, u64::saturating_add);
    let most = values.saturating_mul(4).saturating_add(MAX_HEADER);
    from_bytes(path, &read_bounded(path, most)?, params)
}

/// As [`load`], of a file's bytes; `path` is for messages.
pub fn from_bytes(
    path: &Path,
    bytes: &[u8],
    params: &IndexMap<String, Param>,
) -> Result<Weights, WeightsError> {
    let format = |what: String| WeightsError::Format { path: path.to_owned(), what };
    let file = SafeTensors::deserialize(bytes).map_err(|e| format(e.to_string()))?;
    // The reader keeps the last of several.
    if let Some(twice) = twice(bytes).map_err(|e| format(e.to_string()))? {
        return Err(format(format!("it has two tensors of the name `{twice}`: which is meant?")));
    }

    let mut weights = Weights::with_capacity(params.len());
    let mut problems = Problems::default();
    for param in params.values() {
        let Ok(tensor) = file.tensor(&param.name) else {
            if param.in_artifact {
                problems.missing.push(param.name.clone());
            }
            continue;
        };
        match read_tensor(&tensor, &param.shape) {
            Ok(values) => {
                weights.insert(param.name.clone(), values);
            }
            Err(reason) => problems.bad.push((param.name.clone(), reason)),
        }
    }
    problems.extra =
        file.names().into_iter().filter(|n| !params.contains_key(*n)).map(str::to_owned).collect();
    problems.extra.sort();
    match problems.is_empty() {
        true => Ok(weights),
        false => Err(WeightsError::Tensors { path: path.to_owned(), problems }),
    }
}

/// Bytes of the file that [`save`] writes of these parameters, at most.
pub fn bytes(params: &IndexMap<String, Param>) -> u64 {
    let header = |param: &Param| param.name.len() as u64 + 128;
    params.values().map(|param| 4 * param.len() as u64 + header(param)).sum()
}

/// Writes weights as float32, where there are any of a parameter that no score depends on. The file appears whole or not
/// at all.
pub fn save(path: &Path, params: &IndexMap<String, Param>, weights: &Weights) -> Result<(), WeightsError> {
    let format = |what: String| WeightsError::Format { path: path.to_owned(), what };
    let mut views = Vec::with_capacity(params.len());
    for param in params.values() {
        let Some(values) = weights.get(&param.name) else {
            if param.in_artifact {
                return Err(format(format!("no values for {}", param.name)));
            }
            continue;
        };
        // The format is little endian, and so is every machine that this runs on; the cast copies nothing.
        let view = TensorView::new(Dtype::F32, param.shape.clone(), bytemuck::cast_slice(values))
            .map_err(|e| format(format!("{}: {e}", param.name)))?;
        views.push((param.name.as_str(), view));
    }
    let bytes = serialize(views, None).map_err(|e| format(e.to_string()))?;
    let file = |source| WeightsError::File { verb: "write", path: path.to_owned(), source };
    crate::artifact::write_atomically(path, &bytes).map_err(file)
}

/// Reads a file that should not be longer than `most` bytes.
fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, WeightsError> {
    let kind = Kind::new("a file of the model's weights in float32", most);
    kind.read(path).map_err(|source| match source.kind() {
        io::ErrorKind::FileTooLarge => {
            WeightsError::Format { path: path.to_owned(), what: source.to_string() }
        }
        _ => WeightsError::File { verb: "read", path: path.to_owned(), source },
    })
}

/// A name that the header of a file, which is sound otherwise, says twice.
fn twice(file: &[u8]) -> serde_json::Result<Option<String>> {
    let (length, rest) = file.split_first_chunk().map_or((0, file), |(l, r)| (u64::from_le_bytes(*l), r));
    let header = rest.get(..usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or(rest);
    serde_json::from_slice::<Names>(header).map(|names| names.twice)
}

/// The keys of a JSON object, of which only one that comes twice is kept.
struct Names {
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Names, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let (mut seen, mut twice) = (HashSet::new(), None);
                while let Some((name, IgnoredAny)) = map.next_entry::<String, _>()? {
                    if let Some(name) = seen.replace(name) {
                        twice.get_or_insert(name);
                    }
                }
                Ok(Names { twice })
            }
        }
        json.deserialize_map(Keys)
    }
}

fn read_tensor(tensor: &TensorView<'_>, shape: &[usize]) -> Result<Vec<f32>, String> {
    let unit_free = |s: &[usize]| -> Vec<usize> { s.iter().copied().filter(|&n| n != 1).collect() };
    if unit_free(tensor.shape()) != unit_free(shape) {
        return Err(format!("has shape {:?}, the model's is {shape:?}", tensor.shape()));
    }
    // Tensors need not be aligned in the file: read element by element.
    let words = tensor.data().chunks_exact(2).map(|b| [b[0], b[1]]);
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => {
            tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        Dtype::F16 => words.map(|b| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => words.map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
        other => return Err(format!("is {other:?}; F32, F16 and BF16 can be read")),
    };
    match values.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(format!("element {at} is {}, not a finite number", values[at])),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use pg_ir::lang::model::{Export, Init};
    use pg_ir::optim::{AdamW, Optimiser};

    use super::*;

    fn params() -> IndexMap<String, Param> {
        let shapes: [(&str, &[usize]); 3] = [("b.weight", &[2, 3]), ("a.weight", &[4]), ("scale", &[])];
        let adamw = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0 };
        shapes
            .map(|(name, shape)| {
                let param = Param {
                    name: name.into(),
                    shape: shape.to_vec(),
                    init: Init::Constant(0.0),
                    optimiser: Optimiser::AdamW(adamw),
                    grid: None,
                    export: Export::F16,
                    in_artifact: true,
                    ttt_frozen: false,
                    weight_std: None,
                };
                (name.to_owned(), param)
            })
            .into_iter()
            .collect()
    }

    fn weights() -> Weights {
        let values = [
            ("b.weight", vec![1.0, -2.0, 3.5, 0.0, 5.0, 6.0]),
            ("a.weight", vec![0.25; 4]),
            ("scale", vec![7.0]),
        ];
        values.map(|(n, v)| (n.to_owned(), v)).into_iter().collect()
    }

    fn write(tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let views = tensors.iter().map(|(n, d, s, b)| (*n, TensorView::new(*d, s.to_vec(), b).unwrap()));
        std::fs::write(&path, serialize(views, None).unwrap()).unwrap();
        (folder, path)
    }

    #[test]
    fn what_is_saved_loads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        save(&path, &params(), &weights()).unwrap();
        let read = load(&path, &params()).unwrap();
        assert_eq!(read, weights());
        assert_eq!(read.keys().collect::<Vec<_>>(), ["b.weight", "a.weight", "scale"]);
    }

    #[test]
    fn half_precision_and_unit_axes_are_accepted() {
        let f16s: Vec<u8> =
            weights()["b.weight"].iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        let bf16s: Vec<u8> =
            weights()["a.weight"].iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
        let (_folder, path) = write(&[
            ("b.weight", Dtype::F16, &[2, 3], f16s),
            ("a.weight", Dtype::BF16, &[4], bf16s),
            ("scale", Dtype::F32, &[1], 7f32.to_le_bytes().to_vec()),
        ]);
        assert_eq!(load(&path, &params()).unwrap(), weights());
    }

    #[test]
    fn one_error_names_everything_that_is_wrong() {
        let (_folder, path) = write(&[
            ("b.weight", Dtype::F32, &[3, 2], vec![0; 24]),
            ("a.weight", Dtype::F32, &[4], f32::NAN.to_le_bytes().repeat(4)),
            ("zcale", Dtype::F32, &[], vec![0; 4]),
        ]);
        let text = load(&path, &params()).unwrap_err().to_string();
        for part in [
            "missing: scale",
            "not in the model: zcale",
            "b.weight: has shape [3, 2]",
            "a.weight: element 0 is NaN",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn truncated_and_hostile_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        save(&path, &params(), &weights()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert!(matches!(load(&path, &params()), Err(WeightsError::Format { .. })), "{len} bytes");
        }
        // A header length that would be 2⁶⁴ − 1 bytes; a tensor outside the file; no JSON.
        let mut huge = whole.clone();
        huge[..8].fill(0xff);
        let header = br#"{"scale":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}"#;
        let mut outside = (header.len() as u64).to_le_bytes().to_vec();
        outside.extend_from_slice(header);
        outside.extend_from_slice(&[0; 4]);
        for bytes in [huge, outside, vec![b'x'; 4096]] {
            std::fs::write(&path, &bytes).unwrap();
            assert!(matches!(load(&path, &params()), Err(WeightsError::Format { .. })));
        }
        assert!(matches!(load(&folder.path().join("none"), &params()), Err(WeightsError::File { .. })));
    }

    #[test]
    fn a_name_that_comes_twice_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let scale = r#""scale":{"dtype":"F32","shape":[],"data_offsets":[0,4]}"#;
        for (header, refused) in
            [(format!("{{{scale}}}"), "missing: "), (format!("{{{scale},{scale}}}"), "`scale`")]
        {
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.extend([0; 4]);
            std::fs::write(&path, &bytes).unwrap();
            let message = load(&path, &params()).unwrap_err().to_string();
            assert!(message.contains(refused), "{message}");
        }
    }
}
