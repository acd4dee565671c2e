//! Plans for people: printed whole, summarised, and each launch in the model's terms.

pub(crate) mod print;
pub mod provenance;
pub mod summary;
