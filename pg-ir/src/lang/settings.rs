//! The `train`, `export` and `eval` blocks: what a model makes of the keys that [`keys`] records.

pub(crate) mod keys;

use std::sync::Arc;

use indexmap::IndexMap;

use self::keys::{Default, Key};
use super::ast::{Expr, ModelAst, Name};
use super::diag::{Diagnostic, nearest};
use super::interp::{Fault, Interp};
use super::parse::BLOCKS;
use super::span::Span;
use super::value::Value;
use crate::lang::model::{Eval, ExportSettings, Train, Ttt};

/// A setting as written: its value and where.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) value: Expr,
    /// The key.
    pub(crate) key: Span,
}

/// Settings of all blocks by full path, as in `train.seq_len` and `eval.ttt.chunk`; later ones win.
pub(crate) type Settings = IndexMap<Arc<str>, Written>;

/// Collects the settings that blocks write.
pub(crate) fn collect(model: &ModelAst) -> Settings {
    let mut all = Settings::new();
    for block in &model.blocks {
        for s in &block.settings {
            let path: Arc<str> = format!("{}.{}", block.name.text, s.path.text).into();
            all.insert(path, Written { value: s.value.clone(), key: s.path.span.clone() });
        }
    }
    all
}

/// The one group of settings: it asks for test-time training, even if it is empty.
const TTT: (&str, &str) = ("eval", "ttt");

/// Whether a model asks for test-time training.
pub(crate) fn has_ttt(model: &ModelAst) -> bool {
    let groups = model.blocks.iter().flat_map(|b| b.groups.iter().map(|g| (&*b.name.text, &*g.text)));
    groups.into_iter().any(|group| group == TTT)
}

/// Groups that mean nothing, and rules where there are settings: nobody would read them.
pub(crate) fn misplaced(model: &ModelAst, settings: &Settings) -> Vec<Diagnostic> {
    let mut all = Vec::new();
    for block in &model.blocks {
        let name = &*block.name.text;
        for group in block.groups.iter().filter(|group| (name, &*group.text) != TTT) {
            let path = format!("{name}.{}.", group.text);
            // What stands in it is unknown, too, and that is said.
            if !settings.keys().any(|key| key.starts_with(&path)) {
                let d = Diagnostic::error(&group.span, format!("`{name}` has no group `{}`", group.text));
                all.push(d.help("the one group is eval { ttt { } }: it asks for test-time training"));
            }
        }
        if let Some(rule) = block.rules.first().filter(|_| matches!(name, "train" | "eval")) {
            let d = Diagnostic::error(&rule.glob.span, format!("`{name}` has settings, and no rules"));
            all.push(d.help("rules stand in quant, optim, export and weight_std"));
        }
    }
    all
}

/// Reads settings, each by its record.
pub(crate) struct Reader<'a, 'b> {
    cx: &'a mut Interp<'b>,
    written: &'a Settings,
    /// The model's name, to blame where no setting is written.
    name: &'a Span,
}

impl<'a, 'b> Reader<'a, 'b> {
    pub(crate) fn new(cx: &'a mut Interp<'b>, written: &'a Settings, name: &'a Span) -> Self {
        Reader { cx, written, name }
    }

    /// The value of a key, if it is written and right.
    fn given<T>(&mut self, key: &Key<T>) -> Option<T> {
        let written = self.written.get(key.path)?;
        let value = self.cx.expr(&written.value);
        match (key.kind.read)(&value, key.path) {
            Ok(value) => Some(value),
            Err(_) if matches!(value, Value::Poison) => None,
            Err(Fault::Poisoned) => None,
            Err(Fault::Error(message, help)) => {
                let mut d = Diagnostic::error(&written.value.span, message);
                d.help = help;
                self.cx.report(d);
                None
            }
        }
    }

    /// The value of a key, or the default of its record.
    ///
    /// # Panics
    /// If the default is computed: who computes it asks [`Self::given`].
    fn get<T: Clone>(&mut self, key: &Key<T>) -> T {
        self.given(key).unwrap_or_else(|| match &key.default {
            Default::Is(value) => value.clone(),
            Default::Computed(_) => panic!("internal error: who reads {} computes its default", key.path),
        })
    }

    /// The `train` block. Defaults are the smallest thing that trains: one sequence a step, a constant rate, no clip,
    /// no average.
    pub(crate) fn train(&mut self) -> Train {
        let seq_len = self.get(&keys::SEQ_LEN);
        let batch_tokens = self.given(&keys::BATCH_TOKENS).unwrap_or(seq_len);
        let micro_batch_tokens = self.given(&keys::MICRO_BATCH_TOKENS).unwrap_or(batch_tokens);
        let steps = self.given(&keys::STEPS).flatten();
        let seconds = self.get(&keys::TRAIN_SECONDS);
        let train = Train {
            batch_tokens,
            micro_batch_tokens,
            seq_len,
            steps: steps.or(seconds.is_none().then_some(100)).map(|steps| steps as u64),
            seconds,
            warmdown_steps: self.get(&keys::WARMDOWN_STEPS),
            momentum_start: self.get(&keys::MOMENTUM_START),
            momentum_end: self.get(&keys::MOMENTUM_END),
            momentum_warmup_steps: self.get(&keys::MOMENTUM_WARMUP_STEPS),
            grad_clip: self.get(&keys::GRAD_CLIP),
            ema_decay: self.get(&keys::EMA_DECAY),
            seed: self.get(&keys::SEED),
        };
        let batch = keys::BATCH_TOKENS.path;
        // A default is blamed on what it is taken from.
        let is_written = self.written.contains_key(keys::MICRO_BATCH_TOKENS.path);
        let micro = if is_written { keys::MICRO_BATCH_TOKENS.path } else { batch };
        let micro = (micro, micro_batch_tokens);
        self.divides(micro, (batch, batch_tokens), &[]);
        self.divides((keys::SEQ_LEN.path, seq_len), micro, &[batch]);
        train
    }

    /// The `eval` block: windows of the training length that overlap by half, no TTT.
    pub(crate) fn eval(&mut self, train: &Train, has_ttt: bool) -> Eval {
        let seq_len = self.given(&keys::EVAL_SEQ_LEN).unwrap_or(train.seq_len);
        let stride = self.given(&keys::STRIDE).unwrap_or(seq_len.div_ceil(2));
        if stride > seq_len {
            let message = format!("eval.stride {stride} is over the window of {seq_len}");
            let paths = [keys::STRIDE.path, keys::EVAL_SEQ_LEN.path, keys::SEQ_LEN.path];
            self.complain(&paths, message);
        }
        let ttt = Ttt {
            chunk: self.get(&keys::TTT_CHUNK),
            lr: self.get(&keys::TTT_LR),
            momentum: self.get(&keys::TTT_MOMENTUM),
            epochs: self.get(&keys::TTT_EPOCHS),
            batch_seqs: self.get(&keys::TTT_BATCH_SEQS),
            grad_clip: self.get(&keys::TTT_GRAD_CLIP),
            freeze: self.get(&keys::TTT_FREEZE),
        };
        let stray = self.written.iter().filter(|(path, _)| !has_ttt && path.starts_with("eval.ttt."));
        for (path, written) in stray {
            let d = Diagnostic::error(
                &written.key,
                format!("`{path}` is set, but this model has no test-time training"),
            );
            self.cx.report(d.help("eval { ttt { } } asks for it"));
        }
        Eval {
            seq_len,
            stride,
            rescore_tail: self.get(&keys::RESCORE_TAIL),
            max_targets: self.get(&keys::MAX_TARGETS),
            seconds: self.get(&keys::EVAL_SECONDS),
            separate_documents: self.get(&keys::SEPARATE_DOCUMENTS),
            ttt: has_ttt.then_some(ttt),
        }
    }

    /// Patterns of parameters that TTT leaves alone, where they are written.
    pub(crate) fn ttt_freeze(&self, eval: &Eval) -> Vec<Name> {
        let (Some(ttt), Some(written)) = (&eval.ttt, self.written.get(keys::TTT_FREEZE.path)) else {
            return Vec::new();
        };
        let span = &written.value.span;
        ttt.freeze.iter().map(|text| Name { text: text.clone(), span: span.clone() }).collect()
    }

    /// The `export` block apart from its rules.
    pub(crate) fn export(&mut self) -> ExportSettings {
        let (cap_bytes, rule) = (self.get(&keys::CAP_BYTES), self.get(&keys::EXPORT_RULE));
        ExportSettings { cap_bytes, rule, f16_up_to: self.get(&keys::F16_UP_TO) as usize }
    }

    /// Reports keys that have no record.
    pub(crate) fn unknown_keys(&mut self) {
        let known: Vec<&str> = keys::all().iter().map(|key| key.path).collect();
        for (path, written) in self.written {
            if known.contains(&&**path) {
                continue;
            }
            if self.cx.halted() {
                break;
            }
            let d = Diagnostic::error(&written.key, format!("unknown setting `{path}`"));
            let block = path.split('.').next().unwrap_or_default();
            let siblings: Vec<&str> =
                known.iter().copied().filter(|k| k.split('.').next() == Some(block)).collect();
            let d = match nearest(path, known.iter().copied()) {
                Some(best) => d.help(format!("a similar setting exists: `{best}`")),
                None if !siblings.is_empty() => d.help(format!("settings are {}", siblings.join(", "))),
                None if BLOCKS.contains(&block) => d.help(format!("`{block}` has rules, and no settings")),
                None => d.help("settings are those of `train`, `eval` and `export`, as in `train.seed`"),
            };
            self.cx.report(d);
        }
    }

    fn divides(&mut self, small: (&str, usize), large: (&str, usize), related: &[&str]) {
        if !large.1.is_multiple_of(small.1) {
            let message =
                format!("{} is {}, which {} = {} does not divide", large.0, large.1, small.0, small.1);
            self.complain(&[&[large.0, small.0], related].concat(), message);
        }
    }

    /// An error at the first of these settings that is written, or at the model's name: a default can be as
    /// wrong as what somebody wrote.
    fn complain(&mut self, paths: &[&str], message: String) {
        let written = paths.iter().find_map(|path| self.written.get(*path));
        self.cx.error(written.map_or(self.name, |w| &w.value.span), message);
    }
}
