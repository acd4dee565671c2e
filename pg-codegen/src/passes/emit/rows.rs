//! What works on whole rows: reductions, quantisers and permutations want the columns of the domain to be the row, and a
//! gather takes rows of a table.

use pg_ir::graph::{Node, ValueId};
use pg_ir::op::Reduction;
use pg_ir::ty::Type;

use super::Emitter;
use crate::index::access::{Blocked, locate};
use crate::index::view::{Point, Sizes, regroup};
use crate::region::{Affine, Guard, Instr, Reg};

impl Emitter<'_> {
    /// Checks that the columns of the domain are exactly the last axis of `value`, in order.
    pub(super) fn check_row(&mut self, value: ValueId, ty: &Type, point: &Point) -> Result<(), Blocked> {
        let d = self.domain;
        let why = Blocked::Store(value, "it works on whole rows, which are not this kernel's columns");
        let (width, last) = match (ty.axes.last(), point.coords.last()) {
            (Some(axis), Some(coord)) => (axis.size, coord.clone()),
            _ => (1, Affine::constant(d.rank(), 0)),
        };
        let columns = d.row_rank()..d.rank();
        let row = Affine::combine(d.rank(), &d.indices(columns), &pg_ir::interp::strides(d.column_sizes()));
        let outer = &point.coords[..point.coords.len().saturating_sub(1)];
        let fits = d.column_sizes().iter().product::<usize>() == width
            && last == row
            && outer.iter().all(|c| d.is_row_constant(c))
            && point.guards.iter().all(|g| d.is_row_constant(&g.expr));
        self.draft.fixed_columns = true;
        if fits { Ok(()) } else { Err(why) }
    }

    /// A reduction over exactly the columns of the domain.
    pub(super) fn row_reduce(
        &mut self,
        value: ValueId,
        x: ValueId,
        kind: Reduction,
        axes: &[usize],
        point: &Point,
    ) -> Result<Reg, Blocked> {
        let (d, ty) = (self.domain, self.cx.graph.ty(x));
        let why = Blocked::Store(value, "it reduces over other elements than this kernel's columns");
        let over: Sizes = axes.iter().map(|&a| ty.axes[a].size).collect();
        let is_per_row = point.coords.iter().all(|c| d.is_row_constant(c))
            && point.guards.iter().all(|g| d.is_row_constant(&g.expr));
        if !is_per_row || over.iter().product::<usize>() != d.column_sizes().iter().product::<usize>() {
            return Err(why);
        }
        let columns = d.indices(d.row_rank()..d.rank());
        let inner = regroup(&columns, d.column_sizes(), &over, &d.sizes).map_err(|_| why)?;
        let mut below = point.clone();
        axes.iter().zip(inner).for_each(|(&a, coord)| below.coords[a] = coord);
        let a = self.emit(x, &below, false)?;
        self.draft.fixed_columns = true;
        Ok(self.push(Instr::RowReduce(kind, a)))
    }

    /// Rows of a table: the table's map gets one more domain axis, the row.
    pub(super) fn gather(&mut self, node: &Node, point: &Point) -> Result<Reg, Blocked> {
        let cx = self.cx;
        let (table, ids) = (node.operands[0], node.operands[1]);
        let (rank, ids_rank) = (self.domain.rank(), cx.graph.ty(ids).rank());
        let at_ids = Point { coords: point.coords[..ids_rank].into(), guards: point.guards.clone() };
        // Outside the guards the id is 0, a row that exists.
        let row = self.emit(ids, &at_ids, true)?;
        let widened = |a: &Affine| {
            let mut a = a.clone();
            a.strides.push(0);
            a
        };
        let mut at_table = Point {
            coords: point.coords[ids_rank..].iter().map(widened).collect(),
            guards: point.guards.iter().map(|g| Guard { expr: widened(&g.expr), size: g.size }).collect(),
        };
        at_table.coords.insert(0, Affine::axis(rank + 1, rank));
        let mut sizes = self.domain.sizes.clone();
        let rows = cx.graph.ty(table).axes[0].size;
        sizes.push(rows);
        let stored = "rows of it are gathered";
        let (buffer, mut map) = locate(cx, table, at_table, &sizes).map_err(|e| match e {
            Blocked::Store(v, _) => Blocked::Store(v, stored),
            Blocked::Refine { axis, .. } if axis == rank => Blocked::Store(table, stored),
            other => other,
        })?;
        if self.roots.contains(&buffer) {
            return Err(Blocked::Misfit("rows of it are gathered"));
        }
        let stride = map.at.strides.pop().expect("the row axis");
        for guard in &mut map.guards {
            if guard.expr.strides.pop() != Some(0) {
                return Err(Blocked::Store(table, stored));
            }
        }
        let arg = self.arg(buffer, false);
        Ok(self.leaf(Instr::Gather { arg, row, rows, stride, map }))
    }
}
