//! Copies of whole buffers.

use std::hash::DefaultHasher;

use super::family::{Family, Param, ParamType};

/// The size of a [`Kernel::Copy`](super::Kernel::Copy).
pub(super) struct Copy {
    pub(super) len: usize,
}

impl Family for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn params(&self) -> Vec<Param> {
        let (from, to) = (Param::read(ParamType::Any), Param::written(ParamType::First));
        [from, to].map(|param| param.of_len(self.len)).into()
    }

    fn shape(&self) -> String {
        self.len.to_string()
    }

    fn structure(&self, _: &mut DefaultHasher) {}
}
