//! Where the elements of a value are: views as index maps over a domain, and matrices as strides.

pub(crate) mod access;
pub(crate) mod domain;
pub(crate) mod matrix;
pub(crate) mod view;
