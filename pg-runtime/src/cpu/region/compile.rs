//! From a region to the steps that the interpreter runs: types, classes, vectors, passes and block sizes.

use pg_codegen::region::types::Kind;
use pg_codegen::region::{Affine, IndexMap, Instr, Reg, Region, canonical};
use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::quant::Grid;
use pg_ir::ty::DType;

use super::super::error::Problem;
use super::build::Builder;
use super::check::{Touch, check};
use super::registers::{assign_vectors, find_direct, needed};

/// Elements of a register in a block: with some ten live registers, a block is in the first and second
/// level of cache.
const BLOCK: usize = 2048;
/// Rows up to this length are held whole; longer ones are cut where their region allows it.
const WHOLE_ROW: usize = 16384;
/// Blocks that a task runs one after the other.
const BLOCKS_PER_TASK: usize = 8;
/// Tasks that an accumulation is cut into, if it is long enough.
const ACCUMULATE_TASKS: usize = 64;

/// What a register varies with. One element, one for each row, one for each column, or one for each pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Class {
    pub(super) row: bool,
    pub(super) column: bool,
}

impl Class {
    pub(super) fn union(self, other: Class) -> Class {
        Class { row: self.row || other.row, column: self.column || other.column }
    }

    pub(super) fn of(at: &Affine) -> Class {
        let (column, rows) = at.strides.split_last().expect("maps have a column stride");
        Class { row: rows.iter().any(|&s| s != 0), column: *column != 0 }
    }

    /// Elements of a register of this class in a block.
    pub(super) fn len(self, rows: usize, columns: usize) -> usize {
        (if self.row { rows } else { 1 }) * (if self.column { columns } else { 1 })
    }
}

/// A register.
#[derive(Clone, Copy, Debug)]
pub(super) struct Register {
    /// 32 bits an element in all cases; booleans are all ones or all zeros.
    pub(super) kind: Kind,
    pub(super) class: Class,
    pub(super) vector: usize,
    /// Row reductions between it and the loads.
    pub(super) level: usize,
}

/// A stretch of columns that a permutation moves as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) len: usize,
}

/// A table that rows are gathered from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) rows: usize,
    /// Elements between rows.
    pub(super) stride: i64,
}

impl Table {
    /// Where a row begins; `None` if there is none of that number.
    pub(super) fn start(&self, row: i32) -> Option<i64> {
        let exists = usize::try_from(row).is_ok_and(|row| row < self.rows);
        exists.then(|| self.stride * i64::from(row))
    }
}

/// What the interpreter does for an instruction.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Load {
        arg: usize,
        map: IndexMap,
        dense: bool,
        /// Whether its readers may look at the argument itself, where a block is one stretch of it.
        direct: bool,
    },
    Gather {
        arg: usize,
        row: Reg,
        table: Table,
        map: IndexMap,
    },
    Splat(u32),
    Index(Affine),
    Unary(Unary, Reg),
    Binary(Binary, Reg, Reg),
    Select(Reg, Reg, Reg),
    Cast(DType, Reg),
    /// The number counts the region's row reductions.
    RowReduce(Reduction, Reg, usize),
    Permute(Vec<Stretch>, Reg),
    FakeQuant(Grid, Reg),
    Store {
        arg: usize,
        value: Reg,
        at: Affine,
        dense: bool,
    },
    Accumulate(usize),
}

/// A result that the rows of a region are combined into.
#[derive(Clone, Debug)]
pub(super) struct Accumulator {
    pub(super) arg: usize,
    pub(super) value: Reg,
    pub(super) kind: Reduction,
    pub(super) at: Affine,
    /// Elements for each kept row: the columns, or 1.
    pub(super) width: usize,
    /// Where they begin within a task's partial results.
    pub(super) offset: usize,
}

/// A region ready to run.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRegion {
    pub(super) rows: Vec<usize>,
    pub(super) kept: usize,
    pub(super) reduced: usize,
    pub(super) columns: usize,
    pub(super) registers: Vec<Register>,
    pub(super) steps: Vec<Step>,
    /// Steps whose results are the same for all rows: run once for each piece of the columns.
    pub(super) prologue: Vec<usize>,
    /// Steps of each pass. More than one only if long rows are cut: a pass ends at row reductions.
    pub(super) passes: Vec<Vec<usize>>,
    /// Row reductions that each pass finds, by number.
    pub(super) pass_reductions: Vec<Vec<(usize, Reduction)>>,
    pub(super) accumulators: Vec<Accumulator>,
    /// Rows of a block.
    pub(super) block_rows: usize,
    /// Columns of a block.
    pub(super) block_columns: usize,
    /// Rows of a task; never across kept rows if something is accumulated.
    pub(super) task_rows: usize,
    /// Blocks along the columns that one task runs.
    pub(super) task_column_blocks: usize,
    /// Row reductions in the region.
    pub(super) reductions: usize,
    pub(super) vectors: usize,
    pub(super) types: Vec<DType>,
    pub(super) touches: Vec<Touch>,
}

impl CompiledRegion {
    /// Compiles a region.
    pub(crate) fn new(region: &Region) -> Result<CompiledRegion, Problem> {
        check(region)?;
        let region = canonical(region);
        let types = region.reg_types();
        let mut builder =
            Builder { region: &region, types: &types, registers: Vec::new(), steps: Vec::new() };
        let mut accumulators = Vec::new();
        let mut reductions = 0;
        region.body.iter().for_each(|instr| builder.add(instr, &mut accumulators, &mut reductions));
        let Builder { mut registers, mut steps, .. } = builder;
        find_direct(&mut steps, &registers, &accumulators, &region);

        let row_op = region.columns_meet();
        let only_reduces =
            !region.body.iter().any(|i| matches!(i, Instr::Permute(..) | Instr::FakeQuant(..)));
        let cut_reductions = row_op && only_reduces && accumulators.is_empty() && region.columns > WHOLE_ROW;
        let whole = row_op && !cut_reductions;
        let block_columns = if whole { region.columns } else { region.columns.min(BLOCK) };
        let row_count = region.row_count();
        let reduced: usize = region.rows[region.rows.len() - region.reduced..].iter().product();
        let (kept, reduced) =
            if accumulators.is_empty() { (row_count, 1) } else { (row_count / reduced, reduced) };
        let scope = if accumulators.is_empty() { row_count } else { reduced };
        let block_rows = if cut_reductions { 1 } else { (BLOCK / block_columns).clamp(1, scope) };
        let column_blocks = region.columns.div_ceil(block_columns);
        let task_rows = if cut_reductions {
            1
        } else if accumulators.is_empty() {
            block_rows * BLOCKS_PER_TASK.div_ceil(column_blocks.min(BLOCKS_PER_TASK))
        } else {
            let pieces = ACCUMULATE_TASKS.div_ceil(kept * column_blocks);
            reduced.div_ceil(pieces).next_multiple_of(block_rows).max(2 * block_rows)
        };
        let task_column_blocks = if accumulators.is_empty() { column_blocks.min(BLOCKS_PER_TASK) } else { 1 };

        let last = if cut_reductions { registers.iter().map(|r| r.level).max().unwrap_or(0) } else { 0 };
        let mut passes: Vec<Vec<usize>> = (0..=last)
            .map(|pass| needed(&steps, &registers, &accumulators, pass, pass == last, cut_reductions))
            .collect();
        let found = |(pass, steps_of): (usize, &Vec<usize>)| {
            let reduction = |&i: &usize| match steps[i] {
                Step::RowReduce(kind, _, number) if registers[i].level == pass + 1 => Some((number, kind)),
                _ => None,
            };
            steps_of.iter().filter_map(reduction).collect()
        };
        let pass_reductions = passes.iter().enumerate().map(found).collect();
        let mut prologue = Vec::new();
        if !cut_reductions {
            let invariant = |&i: &usize| {
                !registers[i].class.row && !matches!(steps[i], Step::Store { .. } | Step::Accumulate(_))
            };
            prologue = passes[0].iter().copied().filter(invariant).collect();
            passes[0].retain(|i| !invariant(i));
        }
        let vectors = assign_vectors(&steps, &mut registers, &accumulators, &prologue);
        let mut compiled = CompiledRegion {
            rows: region.rows.clone(),
            kept,
            reduced,
            columns: region.columns,
            registers,
            steps,
            prologue,
            passes,
            pass_reductions,
            accumulators,
            block_rows,
            block_columns,
            task_rows,
            task_column_blocks,
            reductions,
            vectors,
            types: region.args.clone(),
            touches: Vec::new(),
        };
        compiled.touches = compiled.find_touches();
        Ok(compiled)
    }

    /// Elements of the scratch vectors and of the partial results that running needs.
    pub(super) fn scratch(&self) -> ScratchSize {
        let block = self.block_rows * self.block_columns;
        let (pieces, width) = (self.pieces(), self.partial_width());
        let partials = if self.accumulators.is_empty() {
            self.kept * self.reductions * (1 + if self.passes.len() > 1 { self.column_tasks() } else { 0 })
        } else {
            self.kept * pieces * width
        };
        let accumulators = self.accumulators.len();
        ScratchSize {
            vectors: self.vectors,
            accumulators,
            block,
            partials: if self.is_cut() { partials } else { 0 },
        }
    }

    fn is_cut(&self) -> bool {
        self.passes.len() > 1 || (!self.accumulators.is_empty() && self.pieces() > 1)
    }

    pub(super) fn domain(&self) -> Vec<usize> {
        self.rows.iter().copied().chain([self.columns]).collect()
    }

    /// Row reductions between a step and the loads.
    pub(super) fn level(&self, step: usize) -> usize {
        self.registers[step].level
    }

    /// Pieces that the reduced rows of a kept row are cut into.
    pub(super) fn pieces(&self) -> usize {
        self.reduced.div_ceil(self.task_rows)
    }

    /// Partial results of one task of an accumulation.
    pub(super) fn partial_width(&self) -> usize {
        self.accumulators.iter().map(|a| a.width).sum()
    }

    /// Tasks along the columns.
    pub(super) fn column_tasks(&self) -> usize {
        self.columns.div_ceil(self.block_columns * self.task_column_blocks)
    }

    fn find_touches(&self) -> Vec<Touch> {
        let rows_are_shared = self.columns > self.block_columns;
        let touch = |arg, write, at: &Affine| {
            let shared = rows_are_shared && !at.varies_along_columns();
            Touch { arg, write, at: at.clone(), anywhere: false, dynamic: false, shared }
        };
        let mut touches = Vec::new();
        for step in &self.steps {
            match step {
                Step::Load { arg, map, .. } => {
                    let dynamic = !map.guards.is_empty();
                    touches.push(Touch { dynamic, ..touch(*arg, false, &map.at) });
                }
                Step::Gather { arg, map, .. } => {
                    let (dynamic, anywhere) = (true, true);
                    touches.push(Touch { dynamic, anywhere, ..touch(*arg, false, &map.at) });
                }
                Step::Store { arg, at, .. } => touches.push(touch(*arg, true, at)),
                Step::Accumulate(i) => {
                    let a = &self.accumulators[*i];
                    touches.push(touch(a.arg, true, &a.at));
                }
                _ => {}
            }
        }
        touches
    }
}

/// Memory that a region needs to run, in elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ScratchSize {
    /// Scratch vectors for each thread.
    pub(crate) vectors: usize,
    /// Running accumulations for each thread.
    pub(crate) accumulators: usize,
    /// Elements of a vector.
    pub(crate) block: usize,
    /// Elements of partial results, for all tasks together.
    pub(crate) partials: usize,
}
