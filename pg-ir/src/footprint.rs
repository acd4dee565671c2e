//! What a model will weigh and cost: its artifact's tensors for [`crate::lang::budget`], and FLOPs per token.

use crate::graph::Graph;
use crate::lang::budget::{self, BudgetError, Distribution, Prediction, Storage, TensorFormat};
use crate::lang::model::{Export, Init, Model, Param};
use crate::lang::{Diagnostics, Head, Trace};
use crate::quant::{Granularity, Method};

/// At which moment weights are imagined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// As initialised: zeros cost nothing.
    AtInitialisation,
    /// After training: every matrix is about Gaussian.
    Trained,
}

impl Param {
    /// How the artifact stores the parameter.
    pub fn storage(&self) -> Storage {
        let int = |grid, method| Storage::Int { grid, method };
        match self.export {
            Export::F16 => Storage::F16,
            Export::TrainingGrid(grid) => int(grid, Method::Grid),
            Export::ClipSearch { grid, per_matrix: true } => int(grid, Method::GptqLite(Granularity::Matrix)),
            Export::ClipSearch { grid, per_matrix: false } => int(grid, Method::GptqLite(Granularity::Row)),
            Export::QuantileRows(grid) => int(grid, Method::Table),
        }
    }

    /// The parameter as the size prediction sees it.
    pub fn format(&self, moment: Moment) -> TensorFormat {
        let (rows, cols) = self.matrix();
        let distribution = match (moment, self.init) {
            (Moment::AtInitialisation, Init::Constant(_) | Init::FirstRow { .. }) => Distribution::Constant,
            (Moment::AtInitialisation, Init::Normal { std }) => Distribution::Gaussian { std: Some(std) },
            (Moment::AtInitialisation, Init::Uniform { bound }) => {
                Distribution::Uniform { bound: Some(bound) }
            }
            // Rows or columns are orthonormal, so an element's variance is one over the longer side.
            (Moment::AtInitialisation, Init::Orthogonal) => {
                Distribution::Gaussian { std: Some((rows.max(cols) as f64).sqrt().recip()) }
            }
            (Moment::Trained, _) => Distribution::Gaussian { std: self.weight_std },
        };
        TensorFormat { name: self.name.clone(), rows, cols, storage: self.storage(), distribution }
    }
}

impl Model {
    /// The artifact's size.
    ///
    /// # Errors
    /// A grid whose codes depend on the size of the weights, without a declared standard deviation.
    pub fn predict_size(&self, moment: Moment) -> Result<Prediction, BudgetError> {
        let formats: Vec<TensorFormat> = self.stored_params().map(|p| p.format(moment)).collect();
        let text: usize =
            self.sources.iter().filter(|s| !s.file.starts_with("std/")).map(|s| s.text.len()).sum();
        budget::predict(&formats, text)
    }

    /// Bytes of the model's text and of the library functions that it uses.
    pub fn code_bytes(&self) -> u64 {
        self.sources.iter().map(|s| s.text.len() as u64).sum()
    }

    /// FLOPs of a forward and backward pass a token: three times the forward's, attention counted by its
    /// causal half, at the training sequence length.
    pub fn flops_per_token(&self) -> Result<f64, Diagnostics> {
        let seq = self.train.seq_len;
        let traced = self.trace(&Trace {
            phase: self.phases.len() - 1,
            batch: 1,
            seq,
            qat: false,
            head: Head::Logits,
        })?;
        Ok(3.0 * matmul_flops(traced.builder.graph()) / seq as f64)
    }
}

/// FLOPs of the contractions and attentions of a graph: what model FLOP utilisation counts.
pub fn matmul_flops(graph: &Graph) -> f64 {
    use crate::op::Op;
    let counts = |op: &Op| matches!(op, Op::Dot(_) | Op::Attention { .. } | Op::AttentionGrad { .. });
    let cost = |node| {
        let node: &crate::graph::Node = node;
        node.op.cost(&graph.operand_types(node), &graph.result_types(node)).flops
    };
    graph.nodes().filter(|(_, n)| counts(&n.op)).map(|(_, n)| cost(n)).fold(0.0, |sum, flops| sum + flops)
}
