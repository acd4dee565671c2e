//! A case on disk, and the model that its constants make.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use pg_ir::lang::model::Model;
use pg_ir::lang::{Options, Override, Source, elaborate};
use pg_runtime::session::Session;
use pg_runtime::weights::Weights;
use pg_testing::device::chosen;
use pg_testing::files::model_file;
use pg_testing::oracle::place;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

pub(crate) struct Case {
    pub(crate) json: Value,
    pub(crate) tensors: BTreeMap<String, Vec<f64>>,
    pub(crate) shapes: BTreeMap<String, Vec<usize>>,
}

impl Case {
    pub(crate) fn load(folder: &Path) -> Case {
        let text = std::fs::read_to_string(folder.join("case.json")).unwrap();
        let bytes = std::fs::read(folder.join("tensors.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut case = Case {
            json: serde_json::from_str(&text).unwrap(),
            tensors: BTreeMap::new(),
            shapes: BTreeMap::new(),
        };
        for (name, view) in file.tensors() {
            let data = view.data();
            let words = |n: usize| data.chunks_exact(n);
            let values: Vec<f64> = match view.dtype() {
                Dtype::F32 => words(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
                Dtype::I32 => words(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
                Dtype::F16 => {
                    words(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).into()).collect()
                }
                Dtype::I8 => data.iter().map(|&b| f64::from(b as i8)).collect(),
                other => panic!("{name}: {other:?}"),
            };
            case.shapes.insert(name.clone(), view.shape().to_vec());
            case.tensors.insert(name, values);
        }
        case
    }

    pub(crate) fn kind(&self) -> &str {
        self.json["kind"].as_str().unwrap()
    }

    pub(crate) fn tolerance(&self, what: &str) -> f64 {
        self.json["tolerance"][what].as_f64().unwrap_or_else(|| panic!("no tolerance for {what}"))
    }

    pub(crate) fn ints(&self, name: &str) -> Vec<i32> {
        self.tensors[name].iter().map(|&v| v as i32).collect()
    }

    /// int4mlp_12l with this case's constants.
    pub(crate) fn model(&self) -> Model {
        let source = Source::load(model_file("int4mlp_12l.rs")).unwrap_or_else(|e| panic!("{e}"));
        let mut set = constants(&self.json["model"], &MODEL);
        set.extend(constants(&self.json["optim"], &OPTIM));
        set.extend(constants(&self.json["ttt"], &TTT));
        let overrides = set.into_iter().map(Override::from).collect();
        elaborate(&source, &Options { overrides, profile: None }).unwrap_or_else(|e| panic!("{e}"))
    }

    /// On the device that `PG_DEVICE` names.
    pub(crate) fn session(&self) -> Session {
        let name = chosen("cpu");
        let device = name.open().unwrap_or_else(|e| panic!("PG_DEVICE={name}: {e}"));
        Session::on(device, Arc::new(self.model()), Default::default())
    }

    /// The oracle's parameters under `prefix.`, its banks split into matrices.
    pub(crate) fn weights(&self, prefix: &str, model: &Model) -> Weights {
        let layers = self.json["model"]["layers"].as_u64().unwrap() as usize;
        let pick = |name: &String| {
            let (tensor, index) = place(name, layers);
            let values = &self.tensors[&format!("{prefix}.{tensor}")];
            let len = model.params[name].len();
            let values = &values[index * len..][..len];
            (name.clone(), values.iter().map(|&v| v as f32).collect())
        };
        model.params.keys().map(pick).collect()
    }

    /// Errors of `found` against the oracle's tensors under `prefix.`, joined into its banks again.
    pub(crate) fn compare(&self, prefix: &str, found: &Weights, tolerance: f64) -> Vec<String> {
        let layers = self.json["model"]["layers"].as_u64().unwrap() as usize;
        let mut sums: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
        for (name, values) in found {
            let (tensor, index) = place(name, layers);
            let (key, reference) = self.tensors.get_key_value(&format!("{prefix}.{tensor}")).unwrap();
            let reference = &reference[index * values.len()..][..values.len()];
            let sum = sums.entry(key).or_default();
            for (v, r) in values.iter().zip(reference) {
                sum.0 += (f64::from(*v) - r).powi(2);
                sum.1 += r * r;
            }
        }
        let of_prefix = self.tensors.keys().filter(|k| k.starts_with(&format!("{prefix}."))).count();
        assert_eq!(sums.len(), of_prefix, "the model does not have the oracle's parameters");
        let error = |(d, r): (f64, f64)| if r == 0.0 { d.sqrt() } else { (d / r).sqrt() };
        let bad = sums.into_iter().map(|(k, s)| (k, error(s))).filter(|(_, e)| e.is_nan() || *e > tolerance);
        bad.map(|(k, e)| format!("{k}: error {e:.2e} over {tolerance:.0e}")).collect()
    }
}

/// Relative error in the 2-norm.
pub(crate) fn error(found: &[f32], reference: &[f64]) -> f64 {
    assert_eq!(found.len(), reference.len());
    let difference: f64 = found.iter().zip(reference).map(|(f, r)| (f64::from(*f) - r).powi(2)).sum();
    (difference / reference.iter().map(|r| r * r).sum::<f64>()).sqrt()
}

type Names = [(&'static str, &'static str)];

const MODEL: [(&str, &str); 22] = [
    ("vocab", "VOCAB"),
    ("layers", "LAYERS"),
    ("dim", "DIM"),
    ("heads", "HEADS"),
    ("kv_heads", "KV_HEADS"),
    ("mlp_mult", "MLP_MULT"),
    ("leaky_slope", "LEAKY_SLOPE"),
    ("rope_dims", "ROPE_DIMS"),
    ("rope_base", "ROPE_BASE"),
    ("rope_train_len", "ROPE_TRAIN_LEN"),
    ("qk_gain", "QK_GAIN"),
    ("logit_softcap", "LOGIT_SOFTCAP"),
    ("bigram_buckets", "BIGRAM_BUCKETS"),
    ("bigram_dim", "BIGRAM_DIM"),
    ("ve_dim", "VE_DIM"),
    ("ve_layers", "VE_LAYERS"),
    ("xsa_last", "XSA_LAST"),
    ("ln_scale", "LN_SCALE"),
    ("tied_embed_std", "TIED_EMBED_STD"),
    ("mlp_clip", "MLP_CLIP"),
    ("attn_clip", "ATTN_CLIP"),
    ("scale_rule", "SCALE_RULE"),
];

const OPTIM: [(&str, &str); 14] = [
    ("matrix_lr", "MATRIX_LR"),
    ("scalar_lr", "SCALAR_LR"),
    ("token_lr", "TOKEN_LR"),
    ("muon_momentum", "MUON_MOMENTUM"),
    ("muon_momentum_start", "MUON_MOMENTUM_START"),
    ("muon_momentum_warmup_steps", "MUON_MOMENTUM_WARMUP_STEPS"),
    ("muon_wd", "MUON_WD"),
    ("ns_steps", "NS_STEPS"),
    ("beta1", "BETA1"),
    ("beta2", "BETA2"),
    ("adam_eps", "ADAM_EPS"),
    ("adam_wd", "ADAM_WD"),
    ("grad_clip", "GRAD_CLIP"),
    ("ema_decay", "EMA_DECAY"),
];

const TTT: [(&str, &str); 6] = [
    ("chunk", "TTT_CHUNK"),
    ("lr", "TTT_LR"),
    ("momentum", "TTT_MOMENTUM"),
    ("epochs", "TTT_EPOCHS"),
    ("batch_seqs", "TTT_BATCH_SEQS"),
    ("grad_clip", "TTT_GRAD_CLIP"),
];

/// `--set` overrides from a JSON object. A key without a constant is a failure: nothing is left out silently.
fn constants(object: &Value, names: &Names) -> Vec<(String, String)> {
    let Some(object) = object.as_object() else { return vec![] };
    let constant = |key: &String| {
        let found = names.iter().find(|(k, _)| k == key);
        found.unwrap_or_else(|| panic!("no constant stands for `{key}`")).1.to_string()
    };
    object.iter().map(|(key, value)| (constant(key), value.to_string())).collect()
}
