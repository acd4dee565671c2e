//! What is known of a model before anything runs.

use pg_ir::footprint::Moment;
use pg_ir::lang::model::Model;
use serde::Serialize;

/// Size and cost of a model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ModelSummary {
    pub(crate) model: String,
    /// Trained.
    pub(crate) params: usize,
    /// In the artifact.
    pub(crate) stored_params: usize,
    /// Packed, without entropy coding.
    pub(crate) artifact_raw_bytes: u64,
    /// After entropy coding.
    pub(crate) artifact_estimate_bytes: u64,
    /// Text of the model and of the library functions that it uses.
    pub(crate) code_bytes: u64,
    pub(crate) cap_bytes: u64,
    /// Forward and backward: three times the forward's, causal half of the attention, at the training
    /// sequence length.
    pub(crate) flops_per_token: f64,
}

impl ModelSummary {
    /// Of a model that elaborated. The error is a message.
    pub(crate) fn of(model: &Model) -> Result<ModelSummary, String> {
        let size = model.predict_size(Moment::Trained).map_err(|e| e.to_string())?;
        Ok(ModelSummary {
            model: model.name.clone(),
            params: model.param_count(),
            stored_params: model.stored_count(),
            artifact_raw_bytes: size.raw_bytes,
            artifact_estimate_bytes: size.estimate_bytes,
            code_bytes: model.code_bytes(),
            cap_bytes: model.export.cap_bytes,
            flops_per_token: model.flops_per_token().map_err(|e| e.to_string())?,
        })
    }
}
