//! Export: weights become an artifact, and an artifact becomes weights again.

use std::collections::BTreeMap;
use std::path::Path;

use pg_ir::lang::budget::Storage;
use pg_ir::lang::model::{Model, Param};
use pg_ir::lang::{Diagnostics, Options, Override, Source, elaborate};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::artifact::{self, Artifact, ArtifactError, FileError, Manifest, Tensor};
use crate::weights::Weights;

/// Why an export or its reading back failed.
#[derive(Debug, Error)]
pub enum ExportError {
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A tensor does not fit its storage.
    #[error(transparent)]
    Tensor(#[from] ArtifactError),
    /// The weights lack a parameter.
    #[error("there are no weights for parameter `{0}`")]
    Missing(String),
    /// The artifact is of another model than its own text says.
    #[error("the artifact does not fit the model it carries: {0}")]
    Mismatch(String),
    /// The artifact's model text does not elaborate with this version's library.
    #[error("the model inside the artifact does not check:\n{0}")]
    Model(Diagnostics),
    /// The artifact is over the cap.
    #[error(
        "the artifact ({artifact} bytes) and its code ({code} bytes) are {over} bytes over the cap of {cap}: use \
         fewer parameters, a smaller clip, or raise `cap_bytes` in the model's `export` block"
    )]
    OverCap {
        /// Bytes of the artifact.
        artifact: u64,
        /// Bytes of model and library text.
        code: u64,
        /// Bytes over the cap.
        over: u64,
        /// The cap.
        cap: u64,
    },
}

/// What the manifest says of the run, enough to elaborate the same model again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Settings {
    profile: Option<String>,
    overrides: Vec<(String, String)>,
    /// Model texts that the model derives from, by the name it gives them, and its own under its file name.
    sources: BTreeMap<String, String>,
    /// File name of the model's own text.
    file: String,
    seed: u64,
    /// Version of the program that wrote the artifact.
    #[serde(default)]
    pg: String,
}

/// Hash of the standard library's text that the model uses.
const LIBRARY: &str = "library";
/// Hash of the tokenizer that the model was trained and scored with.
const TOKENIZER: &str = "tokenizer";

fn library_hash(model: &Model) -> String {
    let mut hasher = blake3::Hasher::new();
    for source in model.sources.iter().filter(|s| s.file.starts_with("std/")) {
        hasher.update(source.text.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The weights of a model as the artifact stores them: those that scores depend on.
pub fn quantise(model: &Model, weights: &Weights) -> Result<Vec<Tensor>, ExportError> {
    use rayon::prelude::*;
    let params: Vec<&Param> = model.stored_params().collect();
    let tensor = |param: &&Param| {
        let values = weights.get(&param.name).ok_or_else(|| ExportError::Missing(param.name.clone()))?;
        Ok(match param.storage() {
            Storage::Int { grid, method } => {
                Tensor::quantized(&param.name, &param.shape, values, grid, method)?
            }
            Storage::F16 => Tensor::half(&param.name, &param.shape, values)?,
        })
    };
    params.par_iter().map(tensor).collect()
}

/// The weights that stored tensors stand for.
pub fn dequantise(tensors: &[Tensor]) -> Weights {
    tensors.iter().map(|t| (t.name.clone(), t.dequantize())).collect()
}

/// How a model was elaborated: its file with profile and overrides, and the run's seed.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The model file and what it derives from.
    pub source: Source,
    /// Profile and overrides.
    pub options: Options,
    /// Seed of the run.
    pub seed: u64,
}

impl Provenance {
    fn manifest(&self, model: &Model, tokenizer: Option<&str>) -> Manifest {
        let texts = self.source.texts();
        let settings = Settings {
            profile: self.options.profile.clone(),
            overrides: self.options.overrides.iter().map(|o| (o.name.clone(), o.value.clone())).collect(),
            sources: texts.iter().skip(1).map(|t| (t.file.to_string(), t.text.to_string())).collect(),
            file: texts[0].file.to_string(),
            seed: self.seed,
            pg: env!("CARGO_PKG_VERSION").into(),
        };
        let mut hashes = BTreeMap::from([(LIBRARY.to_string(), library_hash(model))]);
        hashes.extend(tokenizer.map(|hash| (TOKENIZER.to_string(), hash.to_string())));
        Manifest {
            model: model.name.clone(),
            text: texts[0].text.to_string(),
            settings: serde_json::to_value(settings).expect("strings and numbers always serialise"),
            hashes,
        }
    }
}

/// Writes the artifact of a model. Nothing is written if it is over the cap.
pub fn write(
    path: &Path,
    model: &Model,
    weights: &Weights,
    provenance: &Provenance,
) -> Result<artifact::Sizes, ExportError> {
    write_for(path, model, weights, provenance, None)
}

/// As `write()`, with the hash of the tokenizer that the model's tokens are of.
pub fn write_for(
    path: &Path,
    model: &Model,
    weights: &Weights,
    provenance: &Provenance,
    tokenizer: Option<&str>,
) -> Result<artifact::Sizes, ExportError> {
    let tensors = quantise(model, weights)?;
    let (bytes, sizes) = artifact::encode(&provenance.manifest(model, tokenizer), &tensors)?;
    let (code, cap) = (model.code_bytes(), model.export.cap_bytes);
    let total = sizes.total_bytes + code;
    if total > cap {
        return Err(ExportError::OverCap { artifact: sizes.total_bytes, code, over: total - cap, cap });
    }
    artifact::write_atomically(path, &bytes)
        .map_err(|e| FileError { path: path.to_owned(), error: ArtifactError::Io(e) })?;
    Ok(sizes)
}

/// A model and its weights, read back from an artifact.
#[derive(Debug)]
pub struct Loaded {
    /// The model that the artifact's own text describes.
    pub model: Model,
    /// The weights that it scores with, dequantised.
    pub weights: Weights,
    /// The artifact.
    pub artifact: Artifact,
}

impl Loaded {
    /// Hash of the tokenizer that the model was trained and scored with, if the artifact says so.
    pub fn tokenizer(&self) -> Option<&str> {
        self.artifact.manifest.hashes.get(TOKENIZER).map(String::as_str)
    }
}

/// Reads an artifact and elaborates the model inside it. No value is read before its tensors are known to be the
/// model's parameters.
pub fn read(path: &Path) -> Result<Loaded, ExportError> {
    let opened = artifact::open(path)?;
    let model = model_of(opened.manifest())?;
    let mismatch = |e: String| Err(ExportError::Mismatch(e));
    let (have, want) = (opened.shapes().len(), model.stored_params().count());
    if have != want {
        return mismatch(format!("it holds {have} tensors, the model scores with {want} parameters"));
    }
    for (name, have) in opened.shapes() {
        let Some(param) = model.params.get(name) else {
            return mismatch(format!("the model has no parameter `{name}`"));
        };
        if !param.in_artifact {
            return mismatch(format!("it holds `{name}`, which no score of the model depends on"));
        }
        if param.shape != have {
            let want = &param.shape;
            return mismatch(format!("`{name}` is {have:?} in the file and {want:?} in the model"));
        }
    }
    let artifact = opened.decode().map_err(|error| FileError { path: path.to_owned(), error })?;
    let weights = dequantise(&artifact.tensors);
    Ok(Loaded { model, weights, artifact })
}

/// The model that a manifest describes.
fn model_of(manifest: &Manifest) -> Result<Model, ExportError> {
    let mismatch = |e: String| ExportError::Mismatch(e);
    let settings: Settings =
        serde_json::from_value(manifest.settings.clone()).map_err(|e| mismatch(e.to_string()))?;
    let base = |name: &str| -> Result<String, String> {
        settings.sources.get(name).cloned().ok_or_else(|| format!("the artifact does not hold `{name}`"))
    };
    let source = Source::parse(&settings.file, &manifest.text, &base).map_err(ExportError::Model)?;
    let options = Options {
        overrides: settings.overrides.into_iter().map(Override::from).collect(),
        profile: settings.profile,
    };
    let model = elaborate(&source, &options).map_err(ExportError::Model)?;
    // The library's text is not in the artifact, but the scores are of it.
    if manifest.hashes.get(LIBRARY) != Some(&library_hash(&model)) {
        let version = if settings.pg.is_empty() { "unknown" } else { &settings.pg };
        return Err(mismatch(format!(
            "it was written with another standard library (pg version {version}, this is {}); score it with \
             that version",
            env!("CARGO_PKG_VERSION")
        )));
    }
    Ok(model)
}
