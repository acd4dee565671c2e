//! Runs the steps of a region on one block.

use std::ops::Range;

use pg_codegen::region::types::Kind;
use pg_ir::op::Reduction;
use pg_ir::ty::DType;

use super::super::aligned::Aligned;
use super::super::math;
use super::super::raw::Arg;
use super::super::simd::Isa;
use super::access::{self, Block, Outside};
use super::compile::{Class, CompiledRegion, Step, Stretch};
use super::lines::{
    AccumulateKernel, BinaryKernel, Convert, ConvertKernel, Line, ReduceKernel, SelectKernel, Shape, View,
    identity,
};
use super::unary::UnaryKernel;

/// Memory of one thread.
#[derive(Debug, Default)]
pub(super) struct ThreadScratch {
    /// Registers.
    pub(super) vectors: Vec<Aligned>,
    /// Running accumulations of the current task.
    pub(super) accumulators: Vec<Aligned>,
}

/// What a pass over pieces of long rows knows of their reductions.
#[derive(Clone, Copy)]
pub(super) struct Reductions<'a> {
    /// By row and number of the reduction.
    pub(super) known: &'a [f32],
    pub(super) pass: usize,
}

/// The interpreter of one task.
pub(super) struct Interpreter<'a> {
    pub(super) region: &'a CompiledRegion,
    pub(super) args: &'a [Arg],
    pub(super) isa: Isa,
    pub(super) scratch: &'a mut ThreadScratch,
    /// `None` if rows are whole.
    pub(super) reductions: Option<Reductions<'a>>,
    /// Where the reductions of the current pass collect, by number.
    pub(super) results: &'a mut [f32],
}

impl<'a> Interpreter<'a> {
    /// Runs steps on a block.
    pub(super) fn run(&mut self, steps: &[usize], block: &Block<'a>) -> Result<(), Outside> {
        for &step in steps {
            self.step(step, block)?;
        }
        Ok(())
    }

    pub(super) fn block(&self, rows: Range<usize>, columns: Range<usize>) -> Block<'a> {
        Block::new(&self.region.rows, self.region.columns, rows, columns)
    }

    /// Empties the accumulators.
    pub(super) fn reset(&mut self) {
        for (a, memory) in self.region.accumulators.iter().zip(&mut self.scratch.accumulators) {
            memory.view_mut()[..a.width.min(self.region.block_columns)].fill(identity(a.kind));
        }
    }

    fn step(&mut self, step: usize, block: &Block<'a>) -> Result<(), Outside> {
        let region = self.region;
        match &region.steps[step] {
            Step::Store { arg, value, at, dense } => {
                access::store(self.view(*value, block), self.args[*arg], at, *dense, block, self.isa);
                return Ok(());
            }
            Step::Accumulate(i) => {
                self.accumulate(*i, block);
                return Ok(());
            }
            _ => {}
        }
        if self.direct(step, block).is_some() {
            return Ok(());
        }
        let register = region.registers[step];
        // Taken out of its place, so that the operands can be borrowed beside it.
        let mut memory = std::mem::take(&mut self.scratch.vectors[register.vector]);
        let result = self.compute(step, register.class, memory.view_mut(), block);
        if let (Some(r), Step::RowReduce(kind, _, number)) = (self.reductions, &region.steps[step])
            && region.level(step) > r.pass
        {
            let piece = memory.view::<f32>()[0];
            let result = &mut self.results[*number];
            *result = match kind {
                Reduction::Sum => *result + piece,
                Reduction::Max => math::max(*result, piece),
            };
        }
        self.scratch.vectors[register.vector] = memory;
        result
    }

    fn view(&self, reg: u32, block: &Block<'a>) -> View<'_> {
        let register = self.region.registers[reg as usize];
        if let Some(bits) = self.direct(reg as usize, block) {
            return View { bits, class: register.class };
        }
        View { bits: self.scratch.vectors[register.vector].view(), class: register.class }
    }

    /// The block of an argument that a register is, if it need not be copied.
    fn direct(&self, step: usize, block: &Block<'a>) -> Option<&'a [u32]> {
        match &self.region.steps[step] {
            Step::Load { arg, map, direct: true, .. } => access::stretch(self.args[*arg], map, block),
            _ => None,
        }
    }

    fn compute(&self, step: usize, class: Class, out: &mut [u32], block: &Block<'a>) -> Result<(), Outside> {
        let (rows, columns) = (block.rows.len(), block.columns.len());
        let shape = Shape { class, rows, columns };
        match &self.region.steps[step] {
            Step::Load { arg, map, dense, .. } => {
                return access::load(out, class, self.args[*arg], map, *dense, block, self.isa);
            }
            Step::Gather { arg, row, table, map } => {
                return access::gather(
                    out,
                    class,
                    self.args[*arg],
                    self.view(*row, block),
                    *table,
                    map,
                    block,
                    self.isa,
                );
            }
            Step::Splat(bits) => out[0] = *bits,
            Step::Index(at) => access::index(out, class, at, block),
            Step::Unary(f, x) => {
                self.isa.run(UnaryKernel { f: Some(*f), shape, out, x: self.view(*x, block) })
            }
            Step::Binary(f, a, b) => {
                let float = self.region.registers[*a as usize].kind == Kind::Float;
                self.isa.run(BinaryKernel {
                    f: *f,
                    float,
                    shape,
                    out,
                    operands: [self.view(*a, block), self.view(*b, block)],
                });
            }
            Step::Select(c, a, b) => {
                self.isa.run(SelectKernel {
                    shape,
                    out,
                    operands: [self.view(*c, block), self.view(*a, block), self.view(*b, block)],
                });
            }
            Step::Cast(to, x) => self.cast(*to, *x, shape, out, block),
            Step::RowReduce(kind, x, number) => {
                let out: &mut [f32] = bytemuck::cast_slice_mut(&mut out[..shape.len()]);
                match self.reductions {
                    Some(r) if self.region.level(step) <= r.pass => {
                        out[0] = r.known[block.rows.start * self.region.reductions + number];
                    }
                    _ => self.isa.run(ReduceKernel { kind: *kind, columns, out, x: self.view(*x, block) }),
                }
            }
            Step::Permute(runs, x) => permute(runs, self.view(*x, block), shape, out),
            Step::FakeQuant(grid, x) => {
                let x = self.view(*x, block);
                let out: &mut [f32] = bytemuck::cast_slice_mut(&mut out[..shape.len()]);
                let x: &[f32] = bytemuck::cast_slice(&x.bits[..shape.len()]);
                // A row that is one value throughout is quantised as that value.
                let width = if class.column { columns } else { 1 };
                for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                    grid.fake_quantize_row(x, out);
                }
            }
            Step::Store { .. } | Step::Accumulate(_) => unreachable!("stores compute nothing"),
        }
        Ok(())
    }

    fn cast(&self, to: DType, x: u32, shape: Shape, out: &mut [u32], block: &Block<'a>) {
        let from = self.region.registers[x as usize].kind;
        let x = self.view(x, block);
        let convert = match (from, to) {
            (Kind::Float, DType::BF16) => return self.isa.run(UnaryKernel { f: None, shape, out, x }),
            (Kind::Float, DType::F32) | (Kind::Int, DType::I32) | (Kind::Bool, DType::Bool) => Convert::Copy,
            (Kind::Float, DType::I32) => Convert::FloatToInt,
            (Kind::Float, DType::Bool) => Convert::FloatToBool,
            (Kind::Int, DType::F32 | DType::BF16) => Convert::IntToFloat,
            (Kind::Int, DType::Bool) => Convert::IntToBool,
            (Kind::Bool, DType::F32 | DType::BF16) => Convert::BoolToFloat,
            (Kind::Bool, DType::I32) => Convert::BoolToInt,
        };
        self.isa.run(ConvertKernel { convert, shape, out, x });
        if (from, to) == (Kind::Int, DType::BF16) {
            for bits in &mut out[..shape.len()] {
                *bits = math::round_bf16(f32::from_bits(*bits)).to_bits();
            }
        }
    }

    fn accumulate(&mut self, i: usize, block: &Block<'a>) {
        let a = &self.region.accumulators[i];
        let (rows, columns) = (block.rows.len(), block.columns.len());
        let mut memory = std::mem::take(&mut self.scratch.accumulators[i]);
        let width = if a.width == 1 { 1 } else { columns };
        let into = &mut memory.view_mut()[..width];
        self.isa.run(AccumulateKernel { kind: a.kind, rows, columns, into, x: self.view(a.value, block) });
        self.scratch.accumulators[i] = memory;
    }
}

fn permute(runs: &[Stretch], x: View<'_>, shape: Shape, out: &mut [u32]) {
    if !shape.class.column {
        out[..shape.len()].copy_from_slice(&x.bits[..shape.len()]);
        return;
    }
    let columns = shape.columns;
    for (row, out) in out[..shape.len()].chunks_exact_mut(columns).enumerate() {
        let Line::Many(x) = x.line::<u32>(row, columns) else { unreachable!("of the operand's class") };
        for run in runs {
            out[run.to..run.to + run.len].copy_from_slice(&x[run.from..run.from + run.len]);
        }
    }
}
