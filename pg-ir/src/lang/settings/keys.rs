//! Every key of the `train`, `eval` and `export` blocks: one record each, from which the reader takes what the value
//! may be and its default, and the reference all of it. A key that has no record cannot be read.

use std::sync::Arc;

use crate::lang::builtins::{boolean, float, positive, size, text};
use crate::lang::interp::Outcome;
use crate::lang::reference::SettingReference;
use crate::lang::value::Value;
use crate::quant::{GridError, ScaleRule};

/// What the value of a setting may be.
pub(crate) struct Kind<T> {
    /// In words.
    words: &'static str,
    /// The value, or what is wrong with it; also gets the setting's path, for the message.
    pub(crate) read: fn(&Value, &str) -> Outcome<T>,
}

/// What a setting is where nobody writes it.
pub(crate) enum Default<T> {
    Is(T),
    /// The reader computes it, as this says.
    Computed(&'static str),
}

/// A setting of a model file.
pub(crate) struct Key<T: 'static> {
    /// `block.key` or `block.group.key`.
    pub(crate) path: &'static str,
    pub(crate) kind: &'static Kind<T>,
    pub(crate) default: Default<T>,
    unit: &'static str,
    doc: &'static str,
    example: &'static str,
}

impl<T: Shown> Key<T> {
    fn reference(&self) -> SettingReference {
        SettingReference {
            path: self.path,
            kind: self.kind.words,
            default: match &self.default {
                Default::Is(value) => value.shown(),
                Default::Computed(words) => (*words).into(),
            },
            is_computed: matches!(self.default, Default::Computed(_)),
            unit: self.unit,
            doc: self.doc.trim(),
            example: self.example,
        }
    }
}

// ---------------------------------------------------------------- kinds

static SIZE: Kind<usize> = Kind { words: "Int from 1", read: positive };
static COUNT: Kind<u64> = Kind { words: "Int from 0", read: |v, path| Ok(size(v, path)? as u64) };
static MAGNITUDE: Kind<f64> = Kind {
    words: "Float from 0",
    read: |v, path| match float(v, path)? {
        f if f.is_finite() && f >= 0.0 => Ok(f),
        f => Err(format!("{path} is a number from 0, found {f:?}").into()),
    },
};
static FRACTION: Kind<f64> = Kind {
    words: "Float from 0, below 1",
    read: |v, path| match float(v, path)? {
        f if (0.0..1.0).contains(&f) => Ok(f),
        f => Err(format!("{path} is from 0 and below 1, found {f:?}").into()),
    },
};
static SECONDS: Kind<Option<f64>> = Kind {
    words: "Float above 0, or none",
    read: |v, path| {
        optional(v, |v| match float(v, path)? {
            f if f.is_finite() && f > 0.0 => Ok(f),
            f => Err(format!("{path} is above 0, found {f:?}").into()),
        })
    },
};
static SIZE_OR_NONE: Kind<Option<usize>> =
    Kind { words: "Int from 1, or none", read: |v, path| optional(v, |v| positive(v, path)) };
static FLAG: Kind<bool> = Kind { words: "Bool", read: boolean };
static SCALE_RULE: Kind<ScaleRule> = Kind {
    words: "\"amax\" or \"floored\"",
    read: |v, path| text(v, path)?.parse().map_err(|e: GridError| e.to_string().into()),
};
static PATTERNS: Kind<Vec<Arc<str>>> = Kind {
    words: "Str or List of Str",
    read: |v, path| match v {
        Value::List(items) => items.iter().map(|item| text(item, "a pattern")).collect(),
        one => Ok(vec![text(one, path)?]),
    },
};

/// `none` unsets an optional setting.
fn optional<T>(value: &Value, read: impl FnOnce(&Value) -> Outcome<T>) -> Outcome<Option<T>> {
    match value {
        Value::None => Ok(None),
        value => read(value).map(Some),
    }
}

/// What a default is in a model file.
pub(crate) trait Shown {
    fn shown(&self) -> String;
}

macro_rules! shown {
    ($($ty:ty: $value:ident => $text:expr;)*) => {
        $(impl Shown for $ty {
            fn shown(&self) -> String {
                let $value = self;
                $text
            }
        })*
    };
}

shown! {
    usize: n => n.to_string();
    u64: n => n.to_string();
    f64: x => format!("{x:?}");
    bool: b => b.to_string();
    Option<f64>: x => x.map_or("none".into(), |x| format!("{x:?}"));
    Option<usize>: n => n.map_or("none".into(), |n| n.to_string());
    ScaleRule: rule => format!("\"{rule}\"");
    Vec<Arc<str>>: patterns => format!("{patterns:?}");
}

// ---------------------------------------------------------------- records

macro_rules! keys {
    ($($(#[doc = $doc:literal])+ $name:ident: $ty:ty =
        ($path:literal, $kind:ident, $default:expr, $unit:literal, $example:literal);)+) => {
        $(pub(crate) static $name: Key<$ty> = Key {
            path: $path,
            kind: &$kind,
            default: $default,
            unit: $unit,
            doc: concat!($($doc),+),
            example: $example,
        };)+

        /// Every key, in the order of the reference.
        pub(crate) fn all() -> Vec<SettingReference> {
            vec![$($name.reference()),+]
        }
    };
}

use Default::{Computed, Is};

// Path, kind, default, unit, example.
keys! {
    /// Length of a training sequence. Rotary tables, masks and whatever else asks for `seq_len(x)` have this length in
    /// training.
    SEQ_LEN: usize = ("train.seq_len", SIZE, Is(256), "tokens", "train { seq_len = 1024; }");
    /// Tokens of one optimiser step, over all its micro-batches. `train.seq_len` divides it.
    BATCH_TOKENS: usize = ("train.batch_tokens", SIZE, Computed("train.seq_len"), "tokens",
        "train { seq_len = 1024; batch_tokens = 524_288; }");
    /// Tokens of one forward and backward pass; their gradients are added up to a step's. It divides
    /// `train.batch_tokens`, and `train.seq_len` divides it. It decides how much memory a step takes, not what it computes.
    MICRO_BATCH_TOKENS: usize = ("train.micro_batch_tokens", SIZE, Computed("train.batch_tokens"), "tokens",
        "train { batch_tokens = 524_288; micro_batch_tokens = 65_536; }");
    /// Most optimiser steps. A training ends when its steps or its seconds are used up, whichever is first.
    STEPS: Option<usize> = ("train.steps", SIZE_OR_NONE, Computed("100 if train.seconds is none, else none"), "steps",
        "train { steps = 9000; }");
    /// Longest time of training. No step begins that would end after it. With `train.steps` as well, whichever is used
    /// up first ends the training.
    TRAIN_SECONDS: Option<f64> = ("train.seconds", SECONDS, Is(None), "seconds", "train { seconds = 600.0; }");
    /// Steps at the end over which the learning rate falls linearly to zero; 0 keeps it constant. At most 0.6 of the
    /// planned steps, which in a training by time follow from the measured pace.
    WARMDOWN_STEPS: u64 = ("train.warmdown_steps", COUNT, Is(0), "steps", "train { warmdown_steps = 3500; }");
    /// Momentum of Muon at step 0.
    MOMENTUM_START: f64 = ("train.momentum_start", FRACTION, Is(0.85), "", "train { momentum_start = 0.92; }");
    /// Momentum of Muon after its warm-up; at most 0.95 in a training of fewer than 1,000 planned steps.
    MOMENTUM_END: f64 = ("train.momentum_end", FRACTION, Is(0.95), "", "train { momentum_end = 0.99; }");
    /// Steps over which Muon's momentum goes linearly from its start to its end; 0 begins at the end. At most half of
    /// the planned steps.
    MOMENTUM_WARMUP_STEPS: u64 = ("train.momentum_warmup_steps", COUNT, Is(0), "steps",
        "train { momentum_warmup_steps = 1500; }");
    /// Bound on the norm of all gradients together: a longer gradient is scaled down to it. 0 is no bound.
    GRAD_CLIP: f64 = ("train.grad_clip", MAGNITUDE, Is(0.0), "", "train { grad_clip = 0.3; }");
    /// Decay, per step, of the average of the weights that is exported and scored; 0 exports the weights as they are. At
    /// most 1 − 5 / planned steps.
    EMA_DECAY: f64 = ("train.ema_decay", FRACTION, Is(0.0), "", "train { ema_decay = 0.997; }");
    /// Seed of initial weights and of the order of the data, where the command line gives none.
    SEED: u64 = ("train.seed", COUNT, Is(42), "", "train { seed = 1337; }");

    /// Length of a window of scoring. `seq_len(x)` has this value there.
    EVAL_SEQ_LEN: usize = ("eval.seq_len", SIZE, Computed("train.seq_len"), "tokens", "eval { seq_len = 2048; }");
    /// Targets that each sliding window scores: its last ones, behind a context of the rest. At most `eval.seq_len`, of
    /// which each window then scores everything.
    STRIDE: usize = ("eval.stride", SIZE, Computed("half of eval.seq_len, rounded up"), "tokens",
        "eval { seq_len = 2048; stride = 64; }");
    /// Score again, by the windows that are left at the end of the text, targets that have been scored; the last score
    /// counts. For comparison with scripts that do so.
    RESCORE_TAIL: bool = ("eval.rescore_tail", FLAG, Is(false), "", "eval { rescore_tail = true; }");
    /// Score at most this many targets, from the start of the validation text.
    MAX_TARGETS: Option<usize> = ("eval.max_targets", SIZE_OR_NONE, Is(None), "tokens",
        "eval { max_targets = 16_384; }");
    /// Longest time of all scores of an artifact together. A score that does not end within it is none.
    EVAL_SECONDS: Option<f64> = ("eval.seconds", SECONDS, Is(None), "seconds", "eval { seconds = 600.0; }");
    /// A promise that a document's scores do not depend on the documents before it, which `pg audit` holds the model to.
    /// It changes nothing by itself.
    SEPARATE_DOCUMENTS: bool = ("eval.separate_documents", FLAG, Is(false), "", "eval { separate_documents = true; }");
    /// Targets of a chunk of test-time training: they are scored, then trained on.
    TTT_CHUNK: usize = ("eval.ttt.chunk", SIZE, Is(32_768), "tokens", "eval { ttt { chunk = 65_536; } }");
    /// Learning rate of test-time training's SGD at the first chunk. It falls to zero over the chunks, by a cosine.
    TTT_LR: f64 = ("eval.ttt.lr", MAGNITUDE, Is(0.002), "", "eval { ttt { lr = 0.001; } }");
    /// Momentum of test-time training's SGD.
    TTT_MOMENTUM: f64 = ("eval.ttt.momentum", FRACTION, Is(0.9), "", "eval { ttt { momentum = 0.95; } }");
    /// Passes over a chunk.
    TTT_EPOCHS: usize = ("eval.ttt.epochs", SIZE, Is(3), "", "eval { ttt { epochs = 1; } }");
    /// Sequences of `eval.seq_len` tokens of one SGD step.
    TTT_BATCH_SEQS: usize = ("eval.ttt.batch_seqs", SIZE, Is(32), "sequences", "eval { ttt { batch_seqs = 16; } }");
    /// Bound on the norm of all gradients of an SGD step together. 0 is no bound.
    TTT_GRAD_CLIP: f64 = ("eval.ttt.grad_clip", MAGNITUDE, Is(1.0), "", "eval { ttt { grad_clip = 0.5; } }");
    /// Patterns of parameters that test-time training leaves as they are. Each must fit some parameter. They are strings
    /// of a body: alternatives are written `{{a,b}}`.
    TTT_FREEZE: Vec<Arc<str>> = ("eval.ttt.freeze", PATTERNS, Is(Vec::new()), "",
        "eval { ttt { freeze = [\"tok_emb.*\", \"blocks.{{0,1}}.*\"]; } }");

    /// The most that the artifact and the text that it needs may weigh. A model that is predicted to be larger is
    /// refused, and no larger artifact is written.
    CAP_BYTES: u64 = ("export.cap_bytes", COUNT, Is(16_000_000), "bytes", "export { cap_bytes = 4_000_000; }");
    /// How a row's scale follows from its largest magnitude in grids of the `export` block that name no rule:
    /// `amax` is max / clip, `floored` is max(max, 1) / clip.
    EXPORT_RULE: ScaleRule = ("export.rule", SCALE_RULE, Is(ScaleRule::Amax), "", "export { rule = \"amax\"; }");
    /// Parameters of at most so many elements that no rule and no quantiser names are stored as float16; larger ones as
    /// int8, by quantile_rows(clip = 127).
    F16_UP_TO: u64 = ("export.f16_up_to", COUNT, Is(65_536), "elements", "export { f16_up_to = 4096; }");
}
