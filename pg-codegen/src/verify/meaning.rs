//! Regions against the graph: at points of a region's domain, every register that leads to a store is the element of
//! the graph's value that it has to be, op by op, down to the elements that are loaded.
//!
//! It walks the region's program and the graph together, from what is stored to what is loaded. An instruction must be
//! the op that it stands for; a load must read the very element of the value that its argument holds; views lie between
//! them on the graph's side alone. Where integers known at this point choose one side of a selection, it follows that
//! side: so zeros outside of guards are compared, and what is computed there and thrown away is not. It knows nothing of
//! how regions are emitted, and accepts nothing that it cannot follow.

use pg_ir::graph::ValueId;
use pg_ir::op::Op;
use smallvec::SmallVec;

use super::access::{Part, regions};
use super::element::join;
use super::points;
use super::walk::{Found, Held, Prepared, Walk};
use super::{Check, Finding, Subject};
use crate::plan::witness::Roles;
use crate::region::{Affine, Instr, Reg};

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    // By kernel: its regions.
    let mut kernels: Vec<Vec<Prepared>> = s.plan.kernels.iter().map(|_| Vec::new()).collect();
    let mut memo = Vec::new();
    for (i, launch, roles) in s.launches() {
        let known = &mut kernels[launch.kernel.0 as usize];
        for (which, part) in regions(s.kernel(launch)).into_iter().enumerate() {
            let is_first = which == known.len();
            if is_first {
                known.push(Prepared::new(part.region));
            }
            let prepared = &mut known[which];
            let checked = check_part(s, roles, &part, prepared, &mut memo);
            checked.map_err(|e| Finding::at(Check::Meaning, i, e))?;
            if is_first {
                prepared.rows = points::few(part.region);
            }
        }
    }
    Ok(())
}

fn check_part(
    s: Subject<'_>,
    roles: &Roles,
    part: &Part<'_>,
    prepared: &Prepared,
    memo: &mut Vec<Found>,
) -> Result<(), String> {
    let result = part.product.map(|product| s.graph.node(roles.library[product]).first);
    let mut held = Vec::new();
    for (own, arg) in part.args.iter().enumerate() {
        held.push(match (arg, result) {
            (Some(at), _) => roles.reads[*at].map_or(Held::Nothing, Held::Value),
            (None, Some(value)) => Held::Result(value, part.region.args[own]),
            (None, None) => Held::Nothing,
        });
    }
    memo.resize(memo.len().max(part.region.body.len()), Found::new());
    let index = SmallVec::new();
    let columns = SmallVec::new();
    let (graph, known) = (s.graph, s.known);
    let mut walk = Walk { graph, known, region: part.region, prepared, held, index, columns, memo };
    for row in &prepared.rows {
        walk.begin(row);
        for instr in &part.region.body {
            let written = |arg: u32| part.args[arg as usize].and_then(|at| roles.writes[at]);
            match instr {
                Instr::Store { arg, value, at } => {
                    let Some(root) = written(*arg) else { continue };
                    walk.store(root, *value, at).map_err(|e| walk.located(root, e))?;
                }
                Instr::Accumulate { arg, value, kind, at } => {
                    let Some(root) = written(*arg) else { continue };
                    let Op::Reduce(want, axes) = &graph.producer(root).op else {
                        return Err(format!("it accumulates {}", s.describe(root)));
                    };
                    if want != kind {
                        return Err(format!("it combines {} by {kind:?}", s.describe(root)));
                    }
                    walk.accumulate(root, axes, *value, at).map_err(|e| walk.located(root, e))?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

impl Walk<'_> {
    fn store(&mut self, root: ValueId, value: Reg, at: &Affine) -> Result<(), String> {
        let all = at.varies_along_columns();
        for column in if all { self.columns.clone() } else { SmallVec::from_slice(&[0]) } {
            let element = self.place(at, column) as usize;
            self.same(value, column, root, element).map_err(|e| format!("column {column}: {e}"))?;
        }
        Ok(())
    }

    /// A reduction over rows: its rows in order, and perhaps all columns of each, are the reduced axes in order.
    fn accumulate(&mut self, root: ValueId, axes: &[usize], value: Reg, at: &Affine) -> Result<(), String> {
        let x = self.graph.producer(root).operands[0];
        let kept = self.region.rows.len() - self.region.reduced;
        let reduced = &self.region.rows[kept..];
        let row = join(&self.index[kept..], reduced);
        let (rows, columns) = (reduced.iter().product::<usize>(), self.region.columns);
        let over: usize = axes.iter().map(|&a| self.graph.ty(x).axes[a].size).product();
        let (value, within) = match &self.region.body[value as usize] {
            Instr::RowReduce(kind, inner) if rows != over => {
                if Op::Reduce(*kind, SmallVec::from_slice(axes)) != self.graph.producer(root).op {
                    return Err(format!("a row is combined by {kind:?}"));
                }
                (*inner, columns)
            }
            _ => (value, 1),
        };
        if rows * within != over {
            return Err(format!("it combines {} elements, the graph {over}", rows * within));
        }
        let all = within > 1 || at.varies_along_columns();
        for column in if all { self.columns.clone() } else { SmallVec::from_slice(&[0]) } {
            let nth = if within > 1 { row * columns + column } else { row };
            let to = self.place(at, if within > 1 { 0 } else { column }) as usize;
            let from = self.nth_of(root, axes, to, nth);
            self.same(value, column, x, from).map_err(|e| format!("column {column}: {e}"))?;
        }
        Ok(())
    }
}
