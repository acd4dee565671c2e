//! Horizontal fusion: contractions that read one operand become one launch, so that it comes from memory once. A
//! layer's projections of one input are such, and the gradients of their weights.
//!
//! It joins dots, with the regions on their results, none of which waits for another, if what they share is a good part
//! of what each of them moves and tensor cores take it: others gain nothing by it. It must never make two launches wait
//! for each other, and never bind more buffers than a kernel may.

use std::collections::BTreeMap;

use pg_ir::graph::{Graph, ValueId};
use pg_ir::ty::DType;

use crate::CodegenError;
use crate::index::access::Context;
use crate::index::matrix::{is_symmetric, product};
use crate::passes::dag::{Access, Dag};
use crate::passes::fold_constants::Constants;
use crate::passes::fuse::{Dot, DotResult, Groups, MAX_ARGS, Work, dag};
use crate::passes::rewrites::Rewrite;
use crate::plan::Side;

/// A product joins others for an operand that is at least this part of all that it moves.
const PART: usize = 8;
/// Products of one launch: its kernel has code for the operand and the result of each.
const MOST: usize = 8;

/// What products must have in common: the operand's buffer, its offset and strides, matrices, rows or columns, and k.
type Shared = (ValueId, [usize; 4], [usize; 3]);

/// Joins products. `storage` is the element type of operands that tensor cores take.
pub(crate) fn join(
    graph: &Graph,
    constants: &Constants,
    groups: &mut Groups,
    storage: DType,
) -> Result<(), CodegenError> {
    let mut dag = dag(graph, &groups.work)?;
    for side in [Side::Left, Side::Right] {
        let cx = Context { graph, constants, stored: &groups.stored };
        let mut alike: BTreeMap<Shared, Vec<usize>> = BTreeMap::new();
        for (i, work) in groups.work.iter().enumerate() {
            // A result that a region computes in a slot's own place needs its launch for itself.
            let Some(dot) = work.single() else { continue };
            let leaves = matches!(dot.result, DotResult::Epilogue(_))
                && dot.writes().any(|v| groups.outputs.contains(&v));
            if let Some(shared) = shared(cx, dot, side, storage).filter(|_| !leaves) {
                alike.entry(shared).or_default().push(i);
            }
        }
        for mut who in alike.into_values() {
            while who.len() > 1 {
                who = join_first(&mut dag, &mut groups.work, side, &who);
            }
        }
    }
    groups.work.retain(|w| !matches!(w, Work::Gone));
    Ok(())
}

/// What a product would share with others on one side; `None` if it runs better alone.
fn shared(cx: Context<'_>, dot: &Dot, side: Side, storage: DType) -> Option<Shared> {
    let node = cx.graph.node(dot.node);
    let takes = |v: &ValueId| cx.graph.ty(*v).dtype == storage;
    // One triangle of a symmetric product is computed, by a kernel that knows it; and segments of k are walked by one
    // that has no other product.
    if is_symmetric(node) || dot.operands.len() > 2 || !dot.operands.iter().all(takes) {
        return None;
    }
    let m = product(cx, node).ok()?.matmul;
    let (at, view, free) = match side {
        Side::Left => (0, m.a, m.m),
        Side::Right => (1, m.b, m.n),
    };
    let bytes = |v: ValueId| cx.graph.ty(v).bytes();
    let own: usize = node.operands.iter().map(|&v| bytes(v)).sum();
    let moved = own + dot.writes().map(bytes).sum::<usize>();
    let strides = [view.offset, view.batch, view.row, view.col];
    (bytes(node.operands[at]) * PART >= moved).then_some((dot.operands[at], strides, [m.batch, free, m.k]))
}

/// Joins the first of some products with all of the others that can run with it, and gives those that cannot.
fn join_first(dag: &mut Dag, work: &mut [Work], side: Side, who: &[usize]) -> Vec<usize> {
    let into = who[0];
    let (mut together, mut others) = (vec![into], Vec::new());
    // The operand that they share is bound once.
    let own = |i: usize| work[i].reads().len() + work[i].writes().len() - 1;
    let mut bound = 1 + own(into);
    for &i in &who[1..] {
        let waits = dag.reaches(into, i) || dag.reaches(i, into);
        let both = || {
            let all = || together.iter().chain([&i]).map(|&j| &work[j]);
            Access {
                reads: all().flat_map(Work::reads).collect(),
                writes: all().flat_map(Work::writes).collect(),
            }
        };
        let fits = together.len() < MOST && bound + own(i) <= MAX_ARGS;
        if !waits && fits && dag.join(into, i, into, both()) {
            bound += own(i);
            together.push(i);
        } else {
            others.push(i);
        }
    }
    if together.len() == 1 {
        return others;
    }
    let rewrite = match side {
        Side::Left => Rewrite::ShareLeft,
        Side::Right => Rewrite::ShareRight,
    };
    rewrite.taken();
    let mut dots = Vec::new();
    for i in together {
        if let Work::Contraction(_, own) = std::mem::replace(&mut work[i], Work::Gone) {
            dots.extend(own);
        }
    }
    work[into] = Work::Contraction(Some(side), dots);
    others
}
