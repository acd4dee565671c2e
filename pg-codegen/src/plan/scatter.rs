//! Scattered rows, added.

use std::hash::{DefaultHasher, Hash};

use pg_ir::ty::DType;

use super::family::{Family, Param, ParamType};

/// The sizes of a [`Kernel::ScatterAdd`](super::Kernel::ScatterAdd).
pub(super) struct ScatterAdd {
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) count: usize,
}

impl Family for ScatterAdd {
    fn name(&self) -> &'static str {
        "scatter_add"
    }

    fn params(&self) -> Vec<Param> {
        let ids = Param::read(ParamType::Of(DType::I32)).of_len(self.count);
        let values = Param::read(ParamType::Float).of_len(self.count.saturating_mul(self.width));
        let sums = Param::written(ParamType::Float).of_len(self.rows.saturating_mul(self.width));
        vec![ids, values, sums]
    }

    fn shape(&self) -> String {
        format!("{} × {} into {}", self.count, self.width, self.rows)
    }

    fn structure(&self, to: &mut DefaultHasher) {
        self.width.hash(to);
    }
}
