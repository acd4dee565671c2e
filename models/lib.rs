//! The model variants.
