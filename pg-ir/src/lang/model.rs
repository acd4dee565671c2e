//! A model after elaboration: its parameters and settings, checked, and a way to trace its forward
//! function into a graph at any batch and sequence length.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::optim::Optimiser;
use crate::quant::{Grid, ScaleRule};

/// How a parameter starts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Init {
    /// Every element the same.
    Constant(f64),
    /// Independent normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Independent uniform on −bound … bound.
    Uniform {
        /// Largest magnitude.
        bound: f64,
    },
    /// Row 0 of the first axis one constant, every other row another: residual mixes, convolution taps.
    FirstRow {
        /// Elements of row 0.
        first: f64,
        /// Elements of the other rows.
        rest: f64,
    },
    /// QR of a normal matrix with the signs of R's diagonal: the shorter side is orthonormal.
    Orthogonal,
}

/// A parameter, in the order of first use.
#[derive(Clone, PartialEq, Debug)]
pub struct Param {
    /// Path, as in `blocks.3.mlp.fc.weight`.
    pub name: String,
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// How it starts.
    pub init: Init,
    /// Which optimiser updates it.
    pub optimiser: Optimiser,
    /// The grid it trains on in the last phase that quantises it; `None` if no phase does.
    pub grid: Option<Grid>,
    /// How it is stored in the artifact.
    pub export: Export,
    /// Whether it is in the artifact: whether a score depends on it. What only training uses is not.
    pub in_artifact: bool,
    /// Whether test-time training leaves it alone.
    pub ttt_frozen: bool,
    /// Standard deviation of the trained weights that the model declares, for size estimates of
    /// grids whose codes depend on it.
    pub weight_std: Option<f64>,
}

impl Param {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements; never true of a checked model.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// (rows, columns) with the last axis as columns; a vector is one row, a scalar one by one.
    pub fn matrix(&self) -> (usize, usize) {
        let cols = self.shape.last().copied().unwrap_or(1);
        (self.len() / cols.max(1), cols)
    }
}

/// How a parameter is stored in the artifact.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Export {
    /// float16.
    F16,
    /// The row scale that training used, rounded to float16: for tensors trained on `grid`.
    TrainingGrid(Grid),
    /// GPTQ-lite's clip search, per row or per matrix.
    ClipSearch {
        /// Grid of the codes; its rule sets the scale's floor.
        grid: Grid,
        /// One choice for the whole matrix, as the original did, instead of one per row.
        per_matrix: bool,
    },
    /// Rows clipped at the 0.9999984 quantile.
    QuantileRows(Grid),
}

/// When a phase begins. The first phase begins at once.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Trigger {
    /// At a step, from 0.
    Step(u64),
    /// When this fraction of the budget (steps or wall clock) is spent.
    Fraction(f64),
    /// When the learning-rate scale has fallen below this.
    LrScaleBelow(f64),
}

/// A stretch of training with its own constants, and so its own programs, over one shared state.
#[derive(Clone, PartialEq, Debug)]
pub struct Phase {
    /// Name; the first is `start`.
    pub name: String,
    /// When it begins.
    pub trigger: Trigger,
    /// Constants that it changes, with the text of their values.
    pub overrides: Vec<(String, String)>,
}

/// The `train` block.
#[derive(Clone, PartialEq, Debug)]
pub struct Train {
    /// Tokens of one optimiser step.
    pub batch_tokens: usize,
    /// Tokens of one forward and backward; divides `batch_tokens`.
    pub micro_batch_tokens: usize,
    /// Training sequence length.
    pub seq_len: usize,
    /// Step budget.
    pub steps: Option<u64>,
    /// Wall-clock budget in seconds.
    pub seconds: Option<f64>,
    /// Steps over which the learning rate falls to zero at the end; 0 for a constant rate.
    pub warmdown_steps: u64,
    /// Muon momentum at step 0.
    pub momentum_start: f64,
    /// Muon momentum after its warm-up.
    pub momentum_end: f64,
    /// Steps of momentum warm-up.
    pub momentum_warmup_steps: u64,
    /// Bound on the global gradient norm; 0 for none.
    pub grad_clip: f64,
    /// Decay of the weight average per step; 0 for no average.
    pub ema_decay: f64,
    /// Default seed.
    pub seed: u64,
}

/// The `eval` block.
#[derive(Clone, PartialEq, Debug)]
pub struct Eval {
    /// Window length.
    pub seq_len: usize,
    /// Targets that each sliding window scores.
    pub stride: usize,
    /// Score the original's overlapping tail windows too.
    pub rescore_tail: bool,
    /// Score at most this many targets from the start of the validation set.
    pub max_targets: Option<usize>,
    /// Seconds that all scores of an artifact may take together; a score that does not end within them is none.
    pub seconds: Option<f64>,
    /// Whether the model promises that a document's scores do not depend on the documents before it.
    pub separate_documents: bool,
    /// Score-first test-time training, if the model asks for it.
    pub ttt: Option<Ttt>,
}

/// Score-first test-time training.
#[derive(Clone, PartialEq, Debug)]
pub struct Ttt {
    /// Targets of a chunk.
    pub chunk: usize,
    /// SGD learning rate at the first chunk; a cosine over the chunks.
    pub lr: f64,
    /// SGD momentum.
    pub momentum: f64,
    /// Passes over a chunk.
    pub epochs: usize,
    /// Sequences of one SGD step.
    pub batch_seqs: usize,
    /// Bound on the global gradient norm.
    pub grad_clip: f64,
    /// Patterns of parameters that it leaves alone, as they are written.
    pub freeze: Vec<Arc<str>>,
}

/// The `export` block, apart from its rules.
#[derive(Clone, PartialEq, Debug)]
pub struct ExportSettings {
    /// The most that artifact and code may weigh, in bytes.
    pub cap_bytes: u64,
    /// Scale rule of grids that do not name one.
    pub rule: ScaleRule,
    /// Elements of the largest parameter that is stored in float16 where no rule says how.
    pub f16_up_to: usize,
}

/// A file that took part in elaboration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceText {
    /// File name as the user gave it, or `std/NAME`.
    pub file: Arc<str>,
    /// Its text. For the library: only the functions that the model uses.
    pub text: Arc<str>,
}

/// A model, elaborated and checked. See [`lang`](crate::lang) for how it comes about.
#[derive(Clone, Debug)]
pub struct Model {
    /// Name in the model file.
    pub name: String,
    /// Doc comment of the model.
    pub doc: String,
    /// Effective constants, in order of declaration, as text.
    pub consts: IndexMap<String, String>,
    /// Parameters in the order of first use, over all phases.
    pub params: IndexMap<String, Param>,
    /// Vocabulary: the size of the logits' last axis.
    pub vocab: usize,
    /// Phases; at least one.
    pub phases: Vec<Phase>,
    /// Training settings of the chosen profile.
    pub train: Train,
    /// Evaluation settings of the chosen profile.
    pub eval: Eval,
    /// Export settings.
    pub export: ExportSettings,
    /// Names of the profiles that the file declares.
    pub profiles: Vec<String>,
    /// Model text (and the text it derives from) and the library functions it uses.
    pub sources: Vec<SourceText>,
    /// What elaboration found worth saying that is not an error, such as shadowed library functions.
    pub notes: crate::lang::Diagnostics,
    /// What the front end keeps for tracing.
    pub(crate) program: Arc<crate::lang::ParsedModel>,
}

impl Model {
    /// Number of parameters that are trained.
    pub fn param_count(&self) -> usize {
        self.params.values().map(Param::len).sum()
    }

    /// The parameters that the artifact holds, in the order of first use.
    pub fn stored_params(&self) -> impl Iterator<Item = &Param> + Clone {
        self.params.values().filter(|param| param.in_artifact)
    }

    /// Number of parameters in the artifact.
    pub fn stored_count(&self) -> usize {
        self.stored_params().map(Param::len).sum()
    }

    /// Whether training minimises a loss of the model's own.
    pub fn has_own_loss(&self) -> bool {
        self.program.ast.functions.contains_key("loss")
    }
}
