//! Walks a region and emits each step for the current row.

use cubecl::frontend::assign;
use cubecl::frontend::branch::{RangeExpand, for_expand};
use cubecl::ir::{ManagedVariable, NonSemantic};
use cubecl::prelude::*;
use pg_ir::op::Reduction;
use pg_ir::ty::DType;

use super::access::{Chunk, Gathered, Location, Mask, Source, and};
use super::lowered::{Class, Kind, LoweredRegion, Step};
use super::mapping::Mapping;
use super::permute;
use super::reduce::{combine, identity, reduce_row};
use super::scratch::Scratch;
use super::value::{Value, Width};
use crate::kernels::kernel::ArgSpec;
use crate::kernels::math;
use crate::region::Reg;

/// Emission of one row.
pub(super) struct Walker<'a> {
    pub(super) region: &'a LoweredRegion,
    pub(super) mapping: &'a Mapping,
    pub(super) buffers: &'a [ManagedVariable],
    pub(super) args: &'a [ArgSpec],
    pub(super) location: Location,
    /// The row exists.
    pub(super) row_ok: Mask,
    /// This thread writes what a row has one of.
    pub(super) first: Mask,
    pub(super) scratch: Scratch,
    /// By step: one value, or one for each chunk of the row.
    pub(super) values: Vec<Vec<Value>>,
    /// By accumulation in order: running results, one for each chunk of the row.
    pub(super) accumulators: Vec<Vec<Value>>,
}

impl<'a> Walker<'a> {
    /// Emission of a region's rows, in chunks as the mapping says.
    pub(super) fn new(
        region: &'a LoweredRegion,
        mapping: &'a Mapping,
        buffers: &'a [ManagedVariable],
        args: &'a [ArgSpec],
    ) -> Walker<'a> {
        Walker {
            region,
            mapping,
            buffers,
            args,
            location: Location { axes: Vec::new(), vector: mapping.vector },
            row_ok: None,
            first: None,
            scratch: Scratch::default(),
            values: vec![Vec::new(); region.steps.len()],
            accumulators: Vec::new(),
        }
    }

    /// Emits every step for a row whose chunks are kept in registers.
    pub(super) fn resident(&mut self, scope: &mut Scope, chunks: &[Chunk]) {
        for step in 0..self.region.steps.len() {
            self.step(scope, step, chunks);
        }
    }

    /// Emits every step for chunks of a row whose argument 0 is at hand.
    pub(super) fn on_tile(&mut self, scope: &mut Scope, chunks: &[Chunk], tile: &[Value]) {
        for (i, step) in self.region.steps.iter().enumerate() {
            match step {
                Step::Load { arg: 0, .. } => self.values[i] = tile.to_vec(),
                _ => self.step(scope, i, chunks),
            }
        }
    }

    /// Emits a row that is too long for registers: its columns are walked once for each level of row
    /// reductions, and values per column are computed anew each time.
    pub(super) fn streamed(&mut self, scope: &mut Scope, thread: &NativeExpand<i32>) {
        let (region, mapping) = (self.region, self.mapping);
        let (steps, classes) = (&region.steps, &region.classes);
        let last = classes.iter().map(|c| c.level).max().unwrap_or(0);
        for level in 0..=last {
            let is_total =
                |i: usize| matches!(steps[i], Step::RowReduce(..)) && classes[i].level == level + 1;
            let is_write = |i: usize| matches!(steps[i], Step::Store { .. } | Step::Accumulate { .. });
            let of_row =
                |i: usize| !classes[i].wide && !matches!(steps[i], Step::RowReduce(..)) && !is_write(i);
            for i in (0..steps.len()).filter(|&i| of_row(i) && classes[i].level == level) {
                self.step(scope, i, &[]);
            }
            let totals: Vec<usize> = (0..steps.len()).filter(|&i| is_total(i)).collect();
            let column_write =
                |i: usize| matches!(&steps[i], Step::Store { at, .. } if region.writes_columns(at));
            let writes: Vec<usize> = (0..steps.len()).filter(|&i| level == last && is_write(i)).collect();
            let mut roots: Vec<usize> = totals.clone();
            roots.extend(writes.iter().copied().filter(|&i| column_write(i)));
            let needed = self.wide_operands(&roots);
            let parts: Vec<Option<Value>> = totals.iter().map(|&i| self.start_total(scope, i)).collect();
            let range = RangeExpand::new(0u32.into(), (mapping.thread_chunks as u32).into(), false);
            for_expand(scope, range, false, |scope, iteration: NativeExpand<u32>| {
                let index =
                    permute::strided::expand(scope, thread.clone(), iteration, mapping.row_threads as i32);
                let ok = (!mapping.exact_chunks())
                    .then(|| permute::below::expand(scope, index.clone(), mapping.row_chunks as i32));
                let chunk = Chunk { index, ok };
                for &i in &needed {
                    self.step(scope, i, std::slice::from_ref(&chunk));
                }
                for (&i, part) in totals.iter().zip(&parts) {
                    if let (Step::RowReduce(kind, x), Some(part)) = (&steps[i], part) {
                        let x = self.masked(scope, &self.values[*x as usize][0], &chunk.ok, *kind);
                        let sum = *kind == Reduction::Sum;
                        let next =
                            combine::expand::<Width>(scope, part.var.clone().into(), x.var.into(), sum);
                        assign::expand(scope, next, part.var.clone().into());
                    }
                }
                for &i in writes.iter().filter(|&&i| column_write(i)) {
                    self.step(scope, i, std::slice::from_ref(&chunk));
                }
            });
            for (&i, part) in totals.iter().zip(&parts) {
                self.finish_total(scope, i, part.as_ref());
            }
            for &i in writes.iter().filter(|&&i| !column_write(i)) {
                self.step(scope, i, &[]);
            }
        }
    }

    /// Steps with a value per column that the roots need, in order.
    fn wide_operands(&self, roots: &[usize]) -> Vec<usize> {
        let region = self.region;
        let mut needed = vec![false; region.steps.len()];
        roots.iter().for_each(|&i| region.operands(i).iter().for_each(|&r| needed[r as usize] = true));
        for i in (0..region.steps.len()).rev() {
            if needed[i] && region.classes[i].wide {
                region.operands(i).iter().for_each(|&r| needed[r as usize] = true);
            }
        }
        (0..region.steps.len()).filter(|&i| needed[i] && region.classes[i].wide).collect()
    }

    fn start_total(&mut self, scope: &mut Scope, step: usize) -> Option<Value> {
        let Step::RowReduce(kind, x) = self.region.steps[step] else { return None };
        self.class(x).wide.then(|| mutable(scope, identity(kind), true))
    }

    fn finish_total(&mut self, scope: &mut Scope, step: usize, part: Option<&Value>) {
        let Step::RowReduce(kind, x) = self.region.steps[step] else { return };
        self.comment(scope, step);
        let value = match part {
            Some(part) => self.total(scope, kind, part),
            None => self.repeat(scope, kind, x),
        };
        self.values[step] = vec![value];
    }

    fn class(&self, reg: Reg) -> Class {
        self.region.classes[reg as usize]
    }

    fn comment(&self, scope: &mut Scope, step: usize) {
        scope.register(NonSemantic::Comment { content: self.region.line(step) });
    }

    /// A register's value at chunk `i` of the row.
    fn value(&self, reg: Reg, i: usize) -> Value {
        let values = &self.values[reg as usize];
        values[if self.class(reg).wide { i } else { 0 }].clone()
    }

    /// As [`Self::value`], as a vector if `wide`.
    fn operand(&self, scope: &mut Scope, reg: Reg, i: usize, wide: bool) -> ManagedVariable {
        self.value(reg, i).widened(scope, wide).var
    }

    pub(super) fn source(&self, arg: usize) -> Source<'_> {
        let spec = self.args[arg];
        Source { var: &self.buffers[arg], dtype: spec.dtype, width: spec.width }
    }

    /// A value with the identity where the chunk or the row is not there.
    fn masked(&self, scope: &mut Scope, x: &Value, mask: &Mask, kind: Reduction) -> Value {
        let Some(mask) = mask.clone() else { return x.clone() };
        let other = Value::new(NativeExpand::<f32>::from(identity(kind)), Kind::Float, false);
        let other = other.widened(scope, x.wide);
        let var: ManagedVariable = match x.wide {
            true => select::expand::<Vector<f32, Width>>(scope, mask, x.var.clone().into(), other.var.into())
                .into(),
            false => select::expand::<f32>(scope, mask, x.var.clone().into(), other.var.into()).into(),
        };
        Value { var, ..x.clone() }
    }

    fn total(&mut self, scope: &mut Scope, kind: Reduction, part: &Value) -> Value {
        let total = reduce_row(scope, &mut self.scratch, kind, part, self.mapping);
        Value::new(total, Kind::Float, false)
    }

    /// The reduction of a row whose columns are all alike.
    fn repeat(&self, scope: &mut Scope, kind: Reduction, x: Reg) -> Value {
        let x = self.value(x, 0);
        match kind {
            Reduction::Max => x,
            Reduction::Sum => {
                let times = NativeExpand::<f32>::from(self.region.columns as f32);
                let product = math::scale::expand(scope, x.var.into(), times);
                Value::new(product, Kind::Float, false)
            }
        }
    }

    /// Emits one step, for all chunks of the row that are at hand.
    pub(super) fn step(&mut self, scope: &mut Scope, step: usize, chunks: &[Chunk]) {
        let region = self.region;
        let class = region.classes[step];
        if !matches!(region.steps[step], Step::Float(_) | Step::Int(_)) {
            self.comment(scope, step);
        }
        match &region.steps[step] {
            Step::Store { arg, value, at } => {
                if region.writes_columns(at) {
                    for (i, chunk) in chunks.iter().enumerate() {
                        let value = self.value(*value, i);
                        let mask = self.row_ok.clone();
                        self.location.store(scope, &self.source(*arg), at, &value, Some(chunk), mask);
                    }
                } else {
                    let mask = and(scope, self.row_ok.clone(), self.first.clone());
                    self.location.store(scope, &self.source(*arg), at, &self.value(*value, 0), None, mask);
                }
            }
            Step::Accumulate { value, kind, at, .. } => {
                let before = |s: &&Step| matches!(s, Step::Accumulate { .. });
                let number = region.steps[..step].iter().filter(before).count();
                let wide = region.writes_columns(at);
                for i in 0..self.accumulators[number].len() {
                    let x = self.value(*value, i).widened(scope, wide);
                    let x = self.masked(scope, &x, &self.row_ok, *kind);
                    let into = self.accumulators[number][i].var.clone();
                    let sum = *kind == Reduction::Sum;
                    if wide {
                        let next = combine::expand::<Width>(scope, into.clone().into(), x.var.into(), sum);
                        assign::expand(scope, next, into.into());
                    } else {
                        let next = combine::expand::<Const<1>>(scope, into.clone().into(), x.var.into(), sum);
                        assign::expand(scope, next, into.into());
                    }
                }
            }
            Step::RowReduce(kind, x) => {
                let value = if self.class(*x).wide {
                    let mut part = self.masked(scope, &self.value(*x, 0), &chunks[0].ok, *kind);
                    for (i, chunk) in chunks.iter().enumerate().skip(1) {
                        let next = self.masked(scope, &self.value(*x, i), &chunk.ok, *kind);
                        let sum = *kind == Reduction::Sum;
                        part.var =
                            combine::expand::<Width>(scope, part.var.into(), next.var.into(), sum).into();
                    }
                    self.total(scope, *kind, &part)
                } else {
                    self.repeat(scope, *kind, *x)
                };
                self.values[step] = vec![value];
            }
            Step::Permute(perm, x) => {
                let row: Vec<Value> = (0..chunks.len()).map(|i| self.value(*x, i)).collect();
                let scratch = &mut self.scratch;
                self.values[step] = permute::permute(scope, scratch, self.mapping, perm, &row, chunks);
            }
            _ => {
                let count = if class.wide { chunks.len() } else { 1 };
                let all = (0..count).map(|i| {
                    let chunk = class.wide.then(|| &chunks[i]);
                    let var = self.compute(scope, step, i, chunk);
                    Value::new(var, class.kind, class.wide)
                });
                self.values[step] = all.collect();
            }
        }
    }

    /// Emits a step that computes each column by itself, at chunk `i`.
    fn compute(&self, scope: &mut Scope, step: usize, i: usize, chunk: Option<&Chunk>) -> ManagedVariable {
        match &self.region.steps[step] {
            Step::Load { arg, map } => {
                self.location.load(scope, &self.source(*arg), map, None, chunk, self.row_ok.clone())
            }
            Step::Gather { arg, row, rows, stride, map } => {
                let gather = Gathered { row: self.value(*row, i), stride: *stride, rows: *rows };
                self.location.load(scope, &self.source(*arg), map, Some(&gather), chunk, self.row_ok.clone())
            }
            Step::Float(c) => NativeExpand::<f32>::from(*c).into(),
            Step::Int(c) => NativeExpand::<i32>::from(*c).into(),
            Step::Index(at) => {
                let elements = if chunk.is_some() { self.location.vector } else { 1 };
                let elements: Vec<ManagedVariable> = (0..elements)
                    .map(|e| self.location.position(scope, at, chunk.map(|p| (p, e))).into())
                    .collect();
                super::access::vector_of(scope, Kind::Int, &elements)
            }
            _ if chunk.is_some() => self.elementwise::<Width>(scope, step, i, true),
            _ => self.elementwise::<Const<1>>(scope, step, i, false),
        }
    }

    fn elementwise<N: Size>(&self, scope: &mut Scope, step: usize, i: usize, wide: bool) -> ManagedVariable {
        let steps = &self.region.steps;
        match &steps[step] {
            Step::Unary(f, x) => {
                let x = self.operand(scope, *x, i, wide);
                math::unary::<N>(scope, *f, x.into()).into()
            }
            Step::Binary(f, a, b) => {
                let kind = self.class(*a).kind;
                let (a, b) = (self.operand(scope, *a, i, wide), self.operand(scope, *b, i, wide));
                match kind {
                    Kind::Float => math::binary_float::<N>(scope, *f, a.into(), b.into()),
                    _ => math::binary_int::<N>(scope, *f, a.into(), b.into()),
                }
            }
            Step::Select(c, a, b) => {
                let kind = self.class(*a).kind;
                let c = self.operand(scope, *c, i, wide);
                let (a, b) = (self.operand(scope, *a, i, wide), self.operand(scope, *b, i, wide));
                match kind {
                    Kind::Float => math::choose::expand::<f32, N>(scope, c.into(), a.into(), b.into()).into(),
                    Kind::Int => math::choose::expand::<i32, N>(scope, c.into(), a.into(), b.into()).into(),
                    Kind::Bool => math::choose::expand::<bool, N>(scope, c.into(), a.into(), b.into()).into(),
                }
            }
            Step::Cast(to, x) => {
                let from = self.class(*x).kind;
                let x = self.operand(scope, *x, i, wide);
                cast::<N>(scope, from, *to, x)
            }
            Step::Magnitude(x) => {
                let x = self.operand(scope, *x, i, wide);
                math::magnitude::expand::<N>(scope, x.into()).into()
            }
            Step::GridScale(grid, x) => {
                let x = self.operand(scope, *x, i, wide);
                math::scale_of::<N>(scope, *grid, x.into()).into()
            }
            Step::GridValue(grid, x, scale) => {
                let (x, scale) = (self.operand(scope, *x, i, wide), self.operand(scope, *scale, i, wide));
                math::grid_value::expand::<N>(scope, x.into(), scale.into(), f32::from(grid.clip)).into()
            }
            other => unreachable!("{other:?} is no element-wise step"),
        }
    }
}

/// A variable with a starting value.
pub(super) fn mutable(scope: &mut Scope, start: f32, wide: bool) -> Value {
    let start = Value::new(NativeExpand::<f32>::from(start), Kind::Float, false).widened(scope, wide);
    let var: ManagedVariable = match wide {
        true => IntoMut::into_mut(NativeExpand::<Vector<f32, Width>>::from(start.var), scope).into(),
        false => IntoMut::into_mut(NativeExpand::<f32>::from(start.var), scope).into(),
    };
    Value::new(var, Kind::Float, wide)
}

fn cast<N: Size>(scope: &mut Scope, from: Kind, to: DType, x: ManagedVariable) -> ManagedVariable {
    let float: NativeExpand<Vector<f32, N>> = match (from, to) {
        (Kind::Int, DType::I32) | (Kind::Bool, DType::Bool) | (Kind::Float, DType::F32) => return x,
        (Kind::Float, DType::I32) => return math::convert::expand::<f32, i32, N>(scope, x.into()).into(),
        (Kind::Bool, DType::I32) => return math::convert::expand::<bool, i32, N>(scope, x.into()).into(),
        (Kind::Float, DType::Bool) => return math::is_not_zero::expand::<f32, N>(scope, x.into()).into(),
        (Kind::Int, DType::Bool) => return math::is_not_zero::expand::<i32, N>(scope, x.into()).into(),
        (Kind::Int, _) => math::convert::expand::<i32, f32, N>(scope, x.into()),
        (Kind::Bool, _) => math::convert::expand::<bool, f32, N>(scope, x.into()),
        (Kind::Float, DType::BF16) => x.into(),
    };
    if to == DType::BF16 { math::round_bf16::expand::<N>(scope, float).into() } else { float.into() }
}
