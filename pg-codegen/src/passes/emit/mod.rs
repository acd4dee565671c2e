//! Emission: the instructions that compute some values over a domain.
//!
//! It works on demand: "element `point` of value `v`, at every index of the domain". A value in memory
//! is a load; a view rewrites the point; anything else is computed from its operands at their points,
//! once for each different point. So fusion is nothing but not keeping a value in memory. Emission must
//! never compute something else than the graph says: what does not fit a domain is refused with the
//! value that has to be kept in memory for it to fit.

mod rows;

use pg_ir::graph::{Node, NodeId, ValueId};
use pg_ir::op::{Binary, Op, Reduction};
use pg_ir::ty::{DType, Type};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::index::access::{Blocked, Context, descend};
use crate::index::domain::{Domain, Draft};
use crate::index::view::{Point, Refused, regroup};
use crate::passes::rewrites::Rewrite;
use crate::region::{Affine, ArgId, Guard, Instr, Reg, Region};

/// An emitted region.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) region: Region,
    /// The value in each argument's buffer, and whether the region writes it.
    pub(crate) args: Vec<(ValueId, bool)>,
    /// What the region computes, in graph order.
    pub(crate) nodes: Vec<NodeId>,
    /// The domain that it was emitted over.
    pub(crate) domain: Domain,
}

/// Emits one region that writes `roots` (in graph order) over `domain`, refining it as needed.
pub(crate) fn build(cx: Context<'_>, roots: &[ValueId], domain: &Domain) -> Result<Built, Blocked> {
    let (axis, inner, reshaped) = match Emitter::new(cx, roots, domain).run() {
        Err(Blocked::Refine { axis, inner, reshaped }) => (axis, inner, reshaped),
        Err(Blocked::Store(value, why)) if roots.contains(&value) => return Err(Blocked::Misfit(why)),
        other => return other,
    };
    let finer = domain.refine(axis, inner);
    let first = build(cx, roots, &finer);
    if first.is_ok() || axis < domain.row_rank() {
        let rewrite = if axis < domain.row_rank() { Rewrite::SplitRows } else { Rewrite::SplitColumns };
        rewrite.taken();
        return first;
    }
    // Row instructions see the columns: both parts of the split axis, or the inner part alone.
    match build(cx, roots, &Domain { columns: finer.columns - 1, ..finer }) {
        Err(Blocked::Misfit(why)) => match (first, reshaped) {
            (Err(Blocked::Misfit(_)), Some(value)) => {
                Err(Blocked::Store(value, "a reshape of it splits the columns"))
            }
            (Err(Blocked::Misfit(_)), None) => Err(Blocked::Misfit(why)),
            (first, _) => first,
        },
        second => {
            Rewrite::SplitColumnsIntoRows.taken();
            second
        }
    }
}

/// Most values that one region computes from each other in a row. Emission recurses over them, on any caller's stack;
/// models have a tenth of that.
const MAX_DEPTH: usize = 256;

struct Emitter<'a> {
    cx: Context<'a>,
    roots: &'a [ValueId],
    domain: &'a Domain,
    draft: Draft,
    args: Vec<(ValueId, bool)>,
    /// Registers by value, point, and whether they are zero outside the point's guards.
    memo: FxHashMap<(ValueId, Point, bool), Reg>,
    /// Loads, constants and indices so far, to emit each once.
    leaves: Vec<Reg>,
    nodes: Vec<NodeId>,
    /// Values being computed, each for the one before.
    depth: usize,
    accumulates: bool,
}

impl<'a> Emitter<'a> {
    fn new(cx: Context<'a>, roots: &'a [ValueId], domain: &'a Domain) -> Self {
        let reduced = SmallVec::from_elem(false, domain.row_rank());
        let draft = Draft {
            domain: domain.clone(),
            reduced,
            fixed_columns: false,
            body: Vec::new(),
            args: Vec::new(),
        };
        let (args, memo, leaves, nodes) = Default::default();
        Emitter { cx, roots, domain, draft, args, memo, leaves, nodes, depth: 0, accumulates: false }
    }

    fn run(mut self) -> Result<Built, Blocked> {
        for &root in self.roots {
            let node = self.cx.graph.producer(root);
            match &node.op {
                Op::Reduce(kind, axes) => self.reduce_root(root, node.operands[0], *kind, axes)?,
                _ => self.root(root)?,
            }
        }
        self.nodes.sort_unstable();
        self.nodes.dedup();
        let domain = self.domain.clone();
        let region = self.draft.finish().ok_or(Blocked::Misfit("its columns are not one affine axis"))?;
        Ok(Built { region, args: self.args, nodes: self.nodes, domain })
    }

    /// Computes and stores a value that has one element per domain index, or one per row.
    fn root(&mut self, root: ValueId) -> Result<(), Blocked> {
        let ty = self.cx.graph.ty(root);
        let point = self.whole(ty)?;
        let (reg, _) = self.compute(root, &point)?;
        self.store(root, reg, point);
        Ok(())
    }

    fn store(&mut self, root: ValueId, value: Reg, point: Point) {
        let map = point.map(self.cx.graph.ty(root), self.domain.rank());
        self.draft.fixed_columns |= self.domain.is_row_constant(&map.at);
        let arg = self.arg(root, true);
        self.memo.insert((root, point, true), value);
        self.draft.body.push(Instr::Store { arg, value, at: map.at });
    }

    /// The point at which the domain walks all elements of a type once.
    fn whole(&self, ty: &Type) -> Result<Point, Blocked> {
        let d = self.domain;
        let axes = match ty.len() {
            n if n == d.len() => d.rank(),
            n if n == d.row_count() => d.row_rank(),
            _ => return Err(Blocked::Misfit("it has another number of elements")),
        };
        let coords = regroup(&d.indices(0..axes), &d.sizes[..axes], &ty.shape(), &d.sizes);
        let coords = coords.map_err(|e| match e {
            Refused::Refine { axis, inner } => Blocked::Refine { axis, inner, reshaped: None },
            Refused::NotAffine => Blocked::Misfit("its shape does not divide the rows alike"),
        })?;
        Ok(Point { coords, guards: Vec::new() })
    }

    /// Stores a reduction: over columns within each row, over row axes by accumulation.
    fn reduce_root(
        &mut self,
        root: ValueId,
        x: ValueId,
        kind: Reduction,
        axes: &[usize],
    ) -> Result<(), Blocked> {
        let (d, ty) = (self.domain, self.cx.graph.ty(x));
        let point = self.whole(ty)?;
        let is_used = |axis: usize, reduced: bool| {
            point.coords.iter().enumerate().any(|(i, c)| axes.contains(&i) == reduced && c.strides[axis] != 0)
        };
        if (0..d.rank()).any(|a| is_used(a, true) && is_used(a, false)) {
            return Err(Blocked::Misfit("it reduces part of an axis"));
        }
        let over: SmallVec<[bool; 6]> = (0..d.rank()).map(|a| is_used(a, true)).collect();
        let (over_rows, over_columns) = over.split_at(d.row_rank());
        let mut reg = self.emit(x, &point, true)?;
        if over_columns.contains(&true) {
            if over_columns.contains(&false) {
                return Err(Blocked::Misfit("it reduces part of the columns"));
            }
            reg = self.push(Instr::RowReduce(kind, reg));
            self.draft.fixed_columns = true;
        }
        let mut kept = point;
        axes.iter().for_each(|&a| kept.coords[a] = Affine::constant(d.rank(), 0));
        self.nodes.push(self.cx.graph.producer_id(root));
        if !over_rows.contains(&true) {
            self.store(root, reg, kept);
            return Ok(());
        }
        if self.accumulates && self.draft.reduced[..] != *over_rows {
            return Err(Blocked::Misfit("it accumulates over other axes"));
        }
        self.accumulates = true;
        self.draft.reduced = SmallVec::from_slice(over_rows);
        let at = kept.map(self.cx.graph.ty(root), d.rank()).at;
        self.draft.fixed_columns |= d.is_row_constant(&at);
        let arg = self.arg(root, true);
        self.draft.body.push(Instr::Accumulate { arg, value: reg, kind, at });
        Ok(())
    }

    /// The register of a value at a point. If `strict`, it is zero outside the point's guards;
    /// otherwise anything is fine there.
    fn emit(&mut self, value: ValueId, point: &Point, strict: bool) -> Result<Reg, Blocked> {
        let strict = strict && !point.guards.is_empty();
        let mut key = (value, point.clone(), true);
        if let Some(&reg) = self.memo.get(&key) {
            return Ok(reg);
        }
        key.2 = strict;
        if !strict && let Some(&reg) = self.memo.get(&key) {
            return Ok(reg);
        }
        if self.roots.contains(&value) {
            return Err(Blocked::Misfit("other elements of it are read than the row at hand"));
        }
        let (mut reg, zero_outside) = match self.cx.buffer_of(value) {
            Some(buffer) if !self.roots.contains(&buffer) => (self.load(buffer, value, point), true),
            _ if self.depth >= MAX_DEPTH => {
                return Err(Blocked::Store(value, "as many values as one kernel takes are computed from it"));
            }
            _ => {
                self.depth += 1;
                let computed = self.compute(value, point)?;
                self.depth -= 1;
                computed
            }
        };
        if strict && !zero_outside {
            reg = self.zero_outside(reg, &point.guards, self.cx.graph.ty(value).dtype);
        }
        key.2 = strict || zero_outside || point.guards.is_empty();
        self.memo.insert(key, reg);
        Ok(reg)
    }

    fn load(&mut self, buffer: ValueId, value: ValueId, point: &Point) -> Reg {
        let map = point.map(self.cx.graph.ty(value), self.domain.rank());
        let arg = self.arg(buffer, false);
        self.leaf(Instr::Load { arg, map })
    }

    /// Computes a value from its operands. Also says whether the result is zero outside the guards.
    fn compute(&mut self, value: ValueId, point: &Point) -> Result<(Reg, bool), Blocked> {
        let cx = self.cx;
        let (node, ty) = (cx.graph.producer(value), cx.graph.ty(value));
        if let Some(number) = cx.constants.uniform(value) {
            return Ok((self.constant(number, ty.dtype), false));
        }
        self.nodes.push(cx.graph.producer_id(value));
        let d = self.domain;
        let instr = match &node.op {
            Op::Pad { .. } | Op::Shift { .. } => {
                let below = descend(cx, node, point, &d.sizes)?;
                return Ok((self.emit(node.operands[0], &below, true)?, true));
            }
            op if op.is_view() => {
                let below = descend(cx, node, point, &d.sizes)?;
                return Ok((self.emit(node.operands[0], &below, false)?, false));
            }
            Op::Iota(_) => return Ok((self.leaf(Instr::Index(point.coords[0].clone())), false)),
            Op::StopGradient => return Ok((self.operand(node, 0, point)?, false)),
            Op::Gather => return self.gather(node, point).map(|reg| (reg, true)),
            Op::Reduce(kind, axes) => {
                return Ok((self.row_reduce(value, node.operands[0], *kind, axes, point)?, false));
            }
            Op::Unary(f) => Instr::Unary(*f, self.operand(node, 0, point)?),
            Op::Binary(f) => Instr::Binary(*f, self.operand(node, 0, point)?, self.operand(node, 1, point)?),
            Op::Select => {
                let c = self.operand(node, 0, point)?;
                Instr::Select(c, self.operand(node, 1, point)?, self.operand(node, 2, point)?)
            }
            Op::Cast(to) => Instr::Cast(*to, self.operand(node, 0, point)?),
            Op::FakeQuant(grid) => {
                self.check_row(value, ty, point)?;
                Instr::FakeQuant(*grid, self.operand(node, 0, point)?)
            }
            Op::Permute(perm) => {
                self.check_row(value, ty, point)?;
                Instr::Permute(perm.clone(), self.operand(node, 0, point)?)
            }
            _ => return Err(Blocked::Store(value, "it is computed by a kernel of its own family")),
        };
        Ok((self.push(instr), false))
    }

    /// The register of a node's operand at the node's own point.
    fn operand(&mut self, node: &Node, operand: usize, point: &Point) -> Result<Reg, Blocked> {
        self.emit(node.operands[operand], point, false)
    }

    fn zero_outside(&mut self, reg: Reg, guards: &[Guard], dtype: DType) -> Reg {
        Rewrite::ZeroOutside.taken();
        let zero = self.constant(0.0, dtype);
        let mut out = reg;
        for guard in guards {
            let (low, high) = guard.expr.interval(&self.domain.sizes);
            let index = self.leaf(Instr::Index(guard.expr.clone()));
            if low < 0 {
                let minus_one = self.leaf(Instr::ConstInt(-1));
                let inside = self.push(Instr::Binary(Binary::Gt, index, minus_one));
                out = self.push(Instr::Select(inside, out, zero));
            }
            if high >= guard.size {
                let size = self.leaf(Instr::ConstInt(guard.size as i32));
                let inside = self.push(Instr::Binary(Binary::Gt, size, index));
                out = self.push(Instr::Select(inside, out, zero));
            }
        }
        out
    }

    fn constant(&mut self, number: f64, dtype: DType) -> Reg {
        match dtype {
            DType::F32 | DType::BF16 => self.leaf(Instr::Const(number as f32)),
            DType::I32 => self.leaf(Instr::ConstInt(number as i32)),
            DType::Bool => {
                let bit = self.leaf(Instr::ConstInt(i32::from(number != 0.0)));
                let zero = self.leaf(Instr::ConstInt(0));
                self.push(Instr::Binary(Binary::Gt, bit, zero))
            }
        }
    }

    fn arg(&mut self, value: ValueId, written: bool) -> ArgId {
        let found = self.args.iter().position(|&a| a == (value, written));
        let at = found.unwrap_or_else(|| {
            self.args.push((value, written));
            self.draft.args.push(self.cx.graph.ty(value).dtype);
            self.args.len() - 1
        });
        at as ArgId
    }

    fn push(&mut self, instr: Instr) -> Reg {
        self.draft.body.push(instr);
        self.draft.body.len() as Reg - 1
    }

    /// A load, constant or index, once for all its uses.
    fn leaf(&mut self, instr: Instr) -> Reg {
        if let Some(&reg) = self.leaves.iter().find(|&&r| self.draft.body[r as usize] == instr) {
            return reg;
        }
        let reg = self.push(instr);
        self.leaves.push(reg);
        reg
    }
}
