//! The `train`, `export` and `eval` blocks: keys, their kinds, defaults and limits.

use std::sync::Arc;

use indexmap::IndexMap;

use super::ast::{Expr, ModelAst, Name};
use super::builtins::{boolean, float, positive, size, text};
use super::diag::{Diagnostic, nearest};
use super::interp::{Fault, Interp, Outcome};
use super::span::Span;
use super::value::Value;
use crate::lang::model::{Eval, ExportSettings, Train, Ttt};
use crate::quant::{GridError, ScaleRule};

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

/// Reads settings, remembering which keys exist.
pub(crate) struct Reader<'a, 'b> {
    cx: &'a mut Interp<'b>,
    written: &'a Settings,
    /// The model's name, to blame where no setting is written.
    name: &'a Span,
    known: Vec<String>,
}

impl<'a, 'b> Reader<'a, 'b> {
    pub(crate) fn new(cx: &'a mut Interp<'b>, written: &'a Settings, name: &'a Span) -> Self {
        Reader { cx, written, name, known: Vec::new() }
    }

    /// The value of a key, if it is written and right.
    fn read<T>(&mut self, path: &str, convert: impl FnOnce(&Value) -> Outcome<T>) -> Option<T> {
        self.known.push(path.to_string());
        let written = self.written.get(path)?;
        let value = self.cx.expr(&written.value);
        match convert(&value) {
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

    fn size(&mut self, path: &str) -> Option<usize> {
        self.read(path, |v| positive(v, path))
    }

    fn count(&mut self, path: &str) -> Option<u64> {
        self.read(path, |v| Ok(size(v, path)? as u64))
    }

    fn float(&mut self, path: &str) -> Option<f64> {
        self.read(path, |v| match float(v, path)? {
            f if f.is_finite() && f >= 0.0 => Ok(f),
            f => Err(format!("{path} is a number from 0, found {f:?}").into()),
        })
    }

    /// A number from 0 and below 1.
    fn decay(&mut self, path: &str) -> Option<f64> {
        self.read(path, |v| match float(v, path)? {
            f if (0.0..1.0).contains(&f) => Ok(f),
            f => Err(format!("{path} is from 0 and below 1, found {f:?}").into()),
        })
    }

    /// `none` unsets an optional setting.
    fn optional<T>(&mut self, path: &str, convert: impl FnOnce(&Value) -> Outcome<T>) -> Option<T> {
        self.read(path, |v| match v {
            Value::None => Ok(None),
            v => convert(v).map(Some),
        })
        .flatten()
    }

    /// A limit of time; `none` for no limit.
    fn seconds(&mut self, path: &str) -> Option<f64> {
        self.optional(path, |v| match float(v, path)? {
            f if f.is_finite() && f > 0.0 => Ok(f),
            f => Err(format!("{path} is above 0, found {f:?}").into()),
        })
    }

    /// The `train` block. Defaults are the smallest thing that trains: one sequence of 256 a step, 100 steps,
    /// constant rate, no clip, no average.
    pub(crate) fn train(&mut self) -> Train {
        let seq_len = self.size("train.seq_len").unwrap_or(256);
        let batch_tokens = self.size("train.batch_tokens").unwrap_or(seq_len);
        let micro_batch_tokens = self.size("train.micro_batch_tokens").unwrap_or(batch_tokens);
        let steps = self.optional("train.steps", |v| Ok(positive(v, "train.steps")? as u64));
        let seconds = self.seconds("train.seconds");
        let train = Train {
            batch_tokens,
            micro_batch_tokens,
            seq_len,
            steps: if steps.is_none() && seconds.is_none() { Some(100) } else { steps },
            seconds,
            warmdown_steps: self.count("train.warmdown_steps").unwrap_or(0),
            momentum_start: self.decay("train.momentum_start").unwrap_or(0.85),
            momentum_end: self.decay("train.momentum_end").unwrap_or(0.95),
            momentum_warmup_steps: self.count("train.momentum_warmup_steps").unwrap_or(0),
            grad_clip: self.float("train.grad_clip").unwrap_or(0.0),
            ema_decay: self.decay("train.ema_decay").unwrap_or(0.0),
            seed: self.count("train.seed").unwrap_or(42),
        };
        let micro = ("train.micro_batch_tokens", micro_batch_tokens);
        self.divides(micro, ("train.batch_tokens", batch_tokens), &[]);
        self.divides(("train.seq_len", seq_len), micro, &["train.batch_tokens"]);
        train
    }

    /// The `eval` block: windows of the training length that overlap by half, no TTT.
    pub(crate) fn eval(&mut self, train: &Train, has_ttt: bool) -> Eval {
        let seq_len = self.size("eval.seq_len").unwrap_or(train.seq_len);
        let stride = self.size("eval.stride").unwrap_or(seq_len.div_ceil(2));
        if stride > seq_len {
            let message = format!("eval.stride {stride} is over the window of {seq_len}");
            self.complain(&["eval.stride", "eval.seq_len", "train.seq_len"], message);
        }
        let ttt = Ttt {
            chunk: self.size("eval.ttt.chunk").unwrap_or(32_768),
            lr: self.float("eval.ttt.lr").unwrap_or(0.002),
            momentum: self.decay("eval.ttt.momentum").unwrap_or(0.9),
            epochs: self.size("eval.ttt.epochs").unwrap_or(3),
            batch_seqs: self.size("eval.ttt.batch_seqs").unwrap_or(32),
            grad_clip: self.float("eval.ttt.grad_clip").unwrap_or(1.0),
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
            rescore_tail: self
                .read("eval.rescore_tail", |v| boolean(v, "eval.rescore_tail"))
                .unwrap_or(false),
            max_targets: self.optional("eval.max_targets", |v| positive(v, "eval.max_targets")),
            seconds: self.seconds("eval.seconds"),
            separate_documents: self
                .read("eval.separate_documents", |v| boolean(v, "eval.separate_documents"))
                .unwrap_or(false),
            ttt: has_ttt.then_some(ttt),
        }
    }

    /// Patterns of parameters that TTT leaves alone.
    pub(crate) fn ttt_freeze(&mut self) -> Vec<Name> {
        let path = "eval.ttt.freeze";
        let Some(span) = self.written.get(path).map(|w| w.value.span.clone()) else {
            self.known.push(path.into());
            return Vec::new();
        };
        let globs = self.read(path, |v| match v {
            Value::List(items) => items.iter().map(|i| text(i, "a pattern")).collect::<Outcome<Vec<_>>>(),
            one => Ok(vec![text(one, "eval.ttt.freeze")?]),
        });
        globs.unwrap_or_default().into_iter().map(|text| Name { text, span: span.clone() }).collect()
    }

    /// The `export` block apart from its rules, and the size up to which tensors stay float16.
    pub(crate) fn export(&mut self) -> (ExportSettings, usize) {
        let cap_bytes = self.count("export.cap_bytes").unwrap_or(16_000_000);
        let rule = self
            .read("export.rule", |v| {
                text(v, "export.rule")?.parse().map_err(|e: GridError| e.to_string().into())
            })
            .unwrap_or(ScaleRule::Amax);
        let f16_up_to = self.count("export.f16_up_to").unwrap_or(65_536) as usize;
        (ExportSettings { cap_bytes, rule }, f16_up_to)
    }

    /// Reports keys that nothing has read.
    pub(crate) fn unknown_keys(&mut self) {
        for (path, written) in self.written {
            if self.known.iter().any(|k| **k == **path) {
                continue;
            }
            if self.cx.halted() {
                break;
            }
            let d = Diagnostic::error(&written.key, format!("unknown setting `{path}`"));
            let block = path.split('.').next().unwrap_or_default();
            let siblings = self.known.iter().filter(|k| k.split('.').next() == Some(block));
            let d = match nearest(path, self.known.iter().map(String::as_str)) {
                Some(best) => d.help(format!("a similar setting exists: `{best}`")),
                None => d.help(format!("settings are {}", siblings.cloned().collect::<Vec<_>>().join(", "))),
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
