//! The walk from a register to what it is computed of, beside the graph: see [`super::meaning`].
//!
//! It is at one row of a region's domain and at one of some columns. What it has found of a register in this row it does
//! not look for again, so a row costs what its instructions do. It must never take two computations for one because
//! their numbers agree: numbers are compared only where both sides are known without running anything.

use pg_ir::graph::{Graph, ValueId};
use pg_ir::op::Op;
use pg_ir::ty::DType;
use smallvec::SmallVec;

use super::describe;
use super::element::{Below, Coords, below, ravel, split, unravel};
use super::known::Known;
use super::points::{self, Row};
use crate::region::types::{Kind, RegType};
use crate::region::{Affine, IndexMap, Instr, Reg, Region};

/// What does not depend on the launch.
pub(super) struct Prepared {
    pub(super) registers: Vec<RegType>,
    /// Registers that follow from the place in the domain alone, by integer arithmetic.
    pub(super) exact: Vec<bool>,
    /// Where the next launch is compared.
    pub(super) rows: Vec<Row>,
}

impl Prepared {
    pub(super) fn new(region: &Region) -> Prepared {
        // `region::check` has passed.
        let registers = region.reg_types();
        let mut exact: Vec<bool> = Vec::with_capacity(registers.len());
        for (instr, register) in region.body.iter().zip(&registers) {
            let of = |r: &Reg| exact[*r as usize];
            let follows = match instr {
                Instr::Index(_) | Instr::ConstInt(_) => true,
                Instr::Binary(_, a, b) => of(a) && of(b),
                Instr::Select(c, a, b) => of(c) && of(a) && of(b),
                _ => false,
            };
            exact.push(follows && matches!(register.kind, Kind::Int | Kind::Bool));
        }
        Prepared { registers, exact, rows: points::all(region) }
    }
}

/// What an argument of a region holds.
#[derive(Clone, Copy)]
pub(super) enum Held {
    Nothing,
    Value(ValueId),
    /// A product's result as the region takes it: as it is, or rounded.
    Result(ValueId, DType),
}

/// A register that was found to be an element of a value, at a column.
type Same = (u32, ValueId, usize);

/// All that a register was found to be in one row.
pub(super) type Found = SmallVec<[Same; 6]>;

pub(super) struct Walk<'a> {
    pub(super) graph: &'a Graph,
    pub(super) known: &'a Known<'a>,
    pub(super) region: &'a Region,
    pub(super) prepared: &'a Prepared,
    /// By argument: what it holds.
    pub(super) held: Vec<Held>,
    /// The row at hand, and columns of it that stand for all.
    pub(super) index: Coords,
    pub(super) columns: SmallVec<[usize; 6]>,
    /// By register: what it was found to be in this row.
    pub(super) memo: &'a mut Vec<Found>,
}

impl Walk<'_> {
    pub(super) fn begin(&mut self, row: &Row) {
        self.index.clone_from(&row.index);
        self.columns.clone_from(&row.columns);
        self.memo[..self.region.body.len()].iter_mut().for_each(SmallVec::clear);
    }

    pub(super) fn located(&self, root: ValueId, message: String) -> String {
        format!("writes {}, but at row {:?}, {message}", describe(self.graph, root), self.index)
    }

    pub(super) fn place(&self, at: &Affine, column: usize) -> i64 {
        let (last, rows) = at.strides.split_last().expect("a stride for the columns");
        let row: i64 = rows.iter().zip(&self.index).map(|(s, i)| s * *i as i64).sum();
        at.offset + row + last * column as i64
    }

    /// The place of an element that is read; `None` outside of guards.
    pub(super) fn read(&self, map: &IndexMap, column: usize) -> Option<i64> {
        let inside = map.guards.iter().all(|g| (0..g.size).contains(&self.place(&g.expr, column)));
        inside.then(|| self.place(&map.at, column))
    }

    fn is_wide(&self, reg: Reg) -> bool {
        self.prepared.registers[reg as usize].wide
    }

    /// Of the elements that a reduction combines into one, the n-th.
    pub(super) fn nth_of(&self, reduction: ValueId, axes: &[usize], element: usize, n: usize) -> usize {
        let x = self.graph.producer(reduction).operands[0];
        let from = &self.graph.ty(x).axes;
        let mut coords = unravel(element, &self.graph.ty(reduction).axes);
        let over: SmallVec<[usize; 4]> = axes.iter().map(|&a| from[a].size).collect();
        axes.iter().zip(split(n, &over)).for_each(|(&axis, coord)| coords[axis] = coord);
        ravel(&coords, from)
    }

    /// Whether a register, at a column of the row at hand, is an element of a value.
    pub(super) fn same(
        &mut self,
        reg: Reg,
        column: usize,
        value: ValueId,
        element: usize,
    ) -> Result<(), String> {
        let reg = self.followed(reg, column);
        let column = if self.is_wide(reg) { column } else { 0 };
        let key = (column as u32, value, element);
        if self.memo[reg as usize].contains(&key) {
            return Ok(());
        }
        let region = self.region;
        match &region.body[reg as usize] {
            Instr::Load { arg, map } => self.load(*arg, map, column, value, element)?,
            instr @ Instr::Gather { .. } => self.gather(instr, column, value, element)?,
            instr => match self.viewed(value, element) {
                Some((value, element)) => self.op(instr, reg, column, value, element)?,
                None if self.number(reg, column) == Some(0.0) => {}
                None => {
                    return Err(format!(
                        "r{reg} = {instr}, the graph has zero outside of {}",
                        self.about(value)
                    ));
                }
            },
        }
        self.memo[reg as usize].push(key);
        Ok(())
    }

    fn about(&self, value: ValueId) -> String {
        describe(self.graph, value)
    }

    /// The register that one is, where integers choose it.
    fn followed(&self, reg: Reg, column: usize) -> Reg {
        let mut reg = reg;
        while let Instr::Select(c, a, b) = &self.region.body[reg as usize]
            && self.prepared.exact[*c as usize]
            && let Some(chosen) = self.number(*c, column)
        {
            reg = if chosen != 0.0 { *a } else { *b };
        }
        reg
    }

    /// What an element is an element of, below views; `None` outside.
    fn viewed(&self, value: ValueId, element: usize) -> Option<(ValueId, usize)> {
        let (mut value, mut element) = (value, element);
        loop {
            match below(self.graph, value, element) {
                Some(Below::At(operand, at)) => (value, element) = (operand, at),
                Some(Below::Outside) => return None,
                None => return Some((value, element)),
            }
        }
    }

    /// The operand that a selection takes, if its condition is known.
    fn chosen(&self, value: ValueId, element: usize) -> Option<ValueId> {
        let node = self.graph.producer(value);
        if node.op != Op::Select || !self.known.is_known(node.operands[0]) {
            return None;
        }
        let condition = self.known.element(node.operands[0], element)?;
        Some(node.operands[if condition != 0.0 { 1 } else { 2 }])
    }

    /// The element of what an argument holds that an element of a value is: below views and known choices.
    fn reach(&self, held: Held, value: ValueId, element: usize) -> Result<Option<usize>, String> {
        let (mut value, mut element) = (value, element);
        loop {
            let node = self.graph.producer(value);
            let is_held = match held {
                Held::Nothing => false,
                Held::Value(held) => held == value,
                Held::Result(of, DType::BF16) => node.op == Op::Cast(DType::BF16) && node.operands[0] == of,
                Held::Result(of, _) => value == of,
            };
            if is_held {
                return Ok(Some(element));
            }
            match (below(self.graph, value, element), held) {
                (Some(Below::At(operand, at)), _) => (value, element) = (operand, at),
                (Some(Below::Outside), _) => return Ok(None),
                (None, held) => match (self.chosen(value, element), held) {
                    (Some(operand), _) => value = operand,
                    (None, Held::Value(held) | Held::Result(held, _)) => {
                        let (want, have) = (self.about(value), self.about(held));
                        return Err(format!("it reads {have}, the graph has {want} there"));
                    }
                    (None, Held::Nothing) => return Err("it reads what nothing is said of".into()),
                },
            }
        }
    }

    fn load(
        &mut self,
        arg: u32,
        map: &IndexMap,
        column: usize,
        value: ValueId,
        element: usize,
    ) -> Result<(), String> {
        let Some(at) = self.read(map, column) else { return self.is_zero(value, element) };
        let held = self.held[arg as usize];
        match self.reach(held, value, element)? {
            Some(want) if want as i64 == at => Ok(()),
            Some(want) => Err(format!("a{arg}[{map}] is element {at}, the graph has element {want} there")),
            None => Err(format!("a{arg}[{map}] is element {at}, the graph has zero there")),
        }
    }

    /// Whether an element is zero because views say so.
    fn is_zero(&self, value: ValueId, element: usize) -> Result<(), String> {
        let mut next = self.viewed(value, element);
        while let Some((value, element)) = next {
            if self.known.is_known(value) && self.known.element(value, element) == Some(0.0) {
                return Ok(());
            }
            let node = self.graph.producer(value);
            next = match &node.op {
                Op::Gather => {
                    let rest = self.table_element(value, element).1;
                    let rows = self.graph.ty(node.operands[0]).axes[0].size;
                    let width = self.graph.ty(node.operands[0]).len() / rows;
                    let inside =
                        [0, rows - 1].iter().find_map(|r| self.viewed(node.operands[0], r * width + rest));
                    match inside {
                        None => return Ok(()),
                        Some(_) => return Err(format!("the plan has zero outside of {}", self.about(value))),
                    }
                }
                _ => match self.chosen(value, element) {
                    Some(operand) => self.viewed(operand, element),
                    None => return Err(format!("the plan has zero, the graph {}", self.about(value))),
                },
            };
        }
        Ok(())
    }

    /// Of an element of a gather: which id, and which element of a row.
    fn table_element(&self, value: ValueId, element: usize) -> (usize, usize) {
        let node = self.graph.producer(value);
        let width = self.graph.ty(value).len() / self.graph.ty(node.operands[1]).len();
        (element / width, element % width)
    }

    fn gather(&mut self, instr: &Instr, column: usize, value: ValueId, element: usize) -> Result<(), String> {
        let &Instr::Gather { arg, row, rows, stride, ref map } = instr else { unreachable!("{instr}") };
        let Some(at) = self.read(map, column) else { return self.is_zero(value, element) };
        let (mut value, mut element) = self
            .viewed(value, element)
            .ok_or_else(|| format!("a{arg} is gathered from, the graph has zero there"))?;
        while let Some(operand) = self.chosen(value, element) {
            (value, element) =
                self.viewed(operand, element).ok_or("it gathers where the graph has zero".to_string())?;
        }
        let node = self.graph.producer(value);
        let Op::Gather = node.op else {
            return Err(format!("it gathers, the graph has {} there", self.about(value)));
        };
        let (id, rest) = self.table_element(value, element);
        self.same(row, column, node.operands[1], id)?;
        let table = self.graph.ty(node.operands[0]);
        if rows != table.axes[0].size {
            return Err(format!("it gathers from {rows} rows, the graph from {}", table.axes[0].size));
        }
        let width = table.len() / rows;
        let held = self.held[arg as usize];
        for row in [0, rows / 2, rows - 1] {
            let have = at + stride * row as i64;
            match self.reach(held, node.operands[0], row * width + rest)? {
                Some(want) if want as i64 == have => {}
                Some(want) => {
                    return Err(format!("row {row} of a{arg} is at element {have}, in the graph at {want}"));
                }
                None => return Err(format!("row {row} of a{arg} is at {have}, in the graph it is zero")),
            }
        }
        Ok(())
    }

    /// Whether an instruction that is no load is the op that computes an element.
    fn op(
        &mut self,
        instr: &Instr,
        reg: Reg,
        column: usize,
        value: ValueId,
        element: usize,
    ) -> Result<(), String> {
        let node = self.graph.producer(value);
        let operand = |i: usize| node.operands[i];
        if matches!(instr, Instr::Const(_) | Instr::ConstInt(_))
            && self.is_number(reg, column, value, element)
        {
            return Ok(());
        }
        let found = match (instr, &node.op) {
            (Instr::Unary(f, a), Op::Unary(g)) if f == g => self.same(*a, column, operand(0), element),
            (Instr::Binary(f, a, b), Op::Binary(g)) if f == g => self
                .same(*a, column, operand(0), element)
                .and_then(|()| self.same(*b, column, operand(1), element)),
            (Instr::Select(c, a, b), Op::Select) => self
                .same(*c, column, operand(0), element)
                .and_then(|()| self.same(*a, column, operand(1), element))
                .and_then(|()| self.same(*b, column, operand(2), element)),
            (Instr::Cast(to, a), Op::Cast(want)) if to == want => self.same(*a, column, operand(0), element),
            (Instr::RowReduce(kind, a), Op::Reduce(want, axes)) if kind == want => {
                self.row_reduce(*a, value, axes, element)
            }
            (Instr::FakeQuant(grid, a), Op::FakeQuant(want)) if grid == want => {
                self.row_of(value, element, column).and_then(|row| self.whole_row(*a, operand(0), row))
            }
            (Instr::Permute(perm, a), Op::Permute(want)) if perm == want => {
                let from = perm[column] as usize;
                self.row_of(value, element, column)
                    .and_then(|row| self.same(*a, from, operand(0), row + from))
            }
            (Instr::Index(at), Op::Iota(_)) if self.place(at, column) == element as i64 => Ok(()),
            _ => Err(format!("r{reg} = {instr}, the graph has {} there", self.about(value))),
        };
        if found.is_ok() || self.is_number(reg, column, value, element) {
            return Ok(());
        }
        match self.chosen(value, element) {
            Some(operand) => self.same(reg, column, operand, element).or(found),
            None => found,
        }
    }

    /// Whether a register is a number that the value is known to be.
    fn is_number(&self, reg: Reg, column: usize, value: ValueId, element: usize) -> bool {
        if !self.known.is_known(value) {
            return false;
        }
        let Some(have) = self.number(reg, column) else { return false };
        if let Some(want) = self.known.uniform(value) {
            return have == want || have.is_nan() && want.is_nan();
        }
        // Instructions compute in float32 what is known in float64.
        let close = |want: f64| (have - want).abs() <= 1e-6 * want.abs().max(1.0);
        self.known.element(value, element).is_some_and(close)
    }

    /// The first element of the row of a value that an element is in, if columns are the row's elements in order.
    fn row_of(&self, value: ValueId, element: usize, column: usize) -> Result<usize, String> {
        let width = self.graph.ty(value).axes.last().map_or(1, |a| a.size);
        if width != self.region.columns || element % width != column {
            return Err(format!("columns are not the rows of {}", self.about(value)));
        }
        Ok(element - column)
    }

    fn whole_row(&mut self, reg: Reg, value: ValueId, first: usize) -> Result<(), String> {
        for column in self.columns.clone() {
            self.same(reg, column, value, first + column)?;
        }
        Ok(())
    }

    fn row_reduce(&mut self, reg: Reg, value: ValueId, axes: &[usize], element: usize) -> Result<(), String> {
        let x = self.graph.producer(value).operands[0];
        let over: usize = axes.iter().map(|&a| self.graph.ty(x).axes[a].size).product();
        if over != self.region.columns {
            let columns = self.region.columns;
            return Err(format!("a row of {columns} is combined, the graph has {}", self.about(value)));
        }
        for column in self.columns.clone() {
            let from = self.nth_of(value, axes, element, column);
            self.same(reg, column, x, from)?;
        }
        Ok(())
    }
}
