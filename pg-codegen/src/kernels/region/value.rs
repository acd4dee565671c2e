//! Values of a region in a kernel: one element a row, or a vector of a row's columns.

use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;

use super::access::{element_of, vector_of};
use super::lowered::Kind;
use crate::kernels::math;

define_size!(pub(super) Width);

/// A value in registers.
#[derive(Clone)]
pub(super) struct Value {
    pub(super) var: ManagedVariable,
    pub(super) kind: Kind,
    /// Whether it holds a vector of columns.
    pub(super) wide: bool,
}

impl Value {
    pub(super) fn new(var: impl Into<ManagedVariable>, kind: Kind, wide: bool) -> Value {
        Value { var: var.into(), kind, wide }
    }

    /// The value as a vector, if `wide`.
    pub(super) fn widened(&self, scope: &mut Scope, wide: bool) -> Value {
        if self.wide || !wide {
            return self.clone();
        }
        let x = self.var.clone();
        let var = match self.kind {
            Kind::Float => math::broadcast::expand::<f32, Width>(scope, x.into()).into(),
            Kind::Int => math::broadcast::expand::<i32, Width>(scope, x.into()).into(),
            Kind::Bool => math::broadcast::expand::<bool, Width>(scope, x.into()).into(),
        };
        Value { var, kind: self.kind, wide: true }
    }

    /// Element `i` of a vector, or the one element.
    pub(super) fn element(&self, scope: &mut Scope, i: usize) -> Value {
        let var = if self.wide { element_of(scope, self.kind, &self.var, i) } else { self.var.clone() };
        Value { var, kind: self.kind, wide: false }
    }

    /// `width` elements from element `first` on, or the one element as often.
    pub(super) fn part(&self, scope: &mut Scope, first: usize, width: usize) -> ManagedVariable {
        if self.wide && self.var.ty.vector_size() == width {
            return self.var.clone();
        }
        let elements = (first..first + width).map(|i| self.element(scope, i).var);
        let elements: Vec<ManagedVariable> = elements.collect();
        vector_of(scope, self.kind, &elements)
    }
}
