//! Epilogues: regions that run on a matmul's result where it is written, block of rows by block of rows, so that
//! the result need not be read back, and need not be written if nothing else wants it.
//!
//! It takes regions that fusion has made and attaches each to the matmul before it, if the region is
//! element-wise over the result's own rows, or if its columns meet within rows that the target has at hand whole: the
//! heads of a projection, which are normed and rotated where they are projected. It must never make two launches
//! wait for each other, and must leave every value in memory that another launch reads.

use pg_ir::graph::{Graph, NodeId, ValueId};
use pg_ir::op::Op;

use crate::CodegenError;
use crate::machine::Epilogues;
use crate::passes::emit::Built;
use crate::passes::fuse::{Dot, DotResult, Groups, MAX_ARGS, Work, dag};
use crate::passes::rewrites::Rewrite;
use crate::region::{Affine, ArgId, Instr, Region};

/// Attaches regions to the contractions whose results they read.
pub(crate) fn attach(graph: &Graph, groups: &mut Groups, epilogues: Epilogues) -> Result<(), CodegenError> {
    let mut dag = dag(graph, &groups.work)?;
    // The last matmul first: of two results that one region reads, the first is in memory by then.
    for at in (0..groups.work.len()).rev() {
        let Some(Dot { node: id, operands, result: DotResult::Stored(result) }) = groups.work[at].single()
        else {
            continue;
        };
        let (id, operands, result) = (*id, operands.clone(), *result);
        if groups.absorbed.contains_key(&id) || groups.outputs.contains(&result) {
            continue;
        }
        let readers = dag.readers(result).to_vec();
        let fits = |r: &usize| {
            let Work::Region(built) = &groups.work[*r] else { return None };
            if built.args.len() + operands.len() > MAX_ARGS {
                return None;
            }
            let (rows, columns) = shape(graph, id);
            let region = by_rows(&built.region, columns);
            let is_whole = region.row_count() * region.columns == rows * columns;
            if !is_whole || !epilogues.take(&region, columns, graph.ty(result).dtype) {
                return None;
            }
            let built = on_tile(&Built { region, ..built.clone() }, result, readers.len() > 1)?;
            let dot = Dot { node: id, operands: operands.clone(), result: DotResult::Epilogue(built) };
            let work = Work::Contraction(None, vec![dot]);
            dag.join(at, *r, at, work.access()?).then_some((*r, work))
        };
        let Some((region, work)) = readers.iter().find_map(fits) else { continue };
        let is_kept = readers.len() > 1;
        let rewrite = if is_kept { Rewrite::AttachEpilogueAndStore } else { Rewrite::AttachEpilogue };
        rewrite.taken();
        groups.stored[result.index()] = is_kept;
        groups.work[at] = work;
        groups.work[region] = Work::Gone;
    }
    groups.work.retain(|w| !matches!(w, Work::Gone));
    Ok(())
}

/// Rows, of all matrices of a batch, and columns of a canonical dot's result.
fn shape(graph: &Graph, dot: NodeId) -> (usize, usize) {
    let node = graph.node(dot);
    let Op::Dot(dims) = &node.op else { unreachable!("a dot") };
    let right = graph.ty(node.operands[1]).shape();
    let columns = right[dims.batch.len()..right.len() - dims.contract.len()].iter().product();
    (graph.ty(node.first).len() / columns, columns)
}

/// A region over rows of a result whose argument 0 is the block of it at hand; `None` if it reads other places of it
/// than its own. With `keep` it also writes the result to memory.
fn on_tile(built: &Built, result: ValueId, keep: bool) -> Option<Built> {
    let region = &built.region;
    let tile = built.args.iter().position(|a| *a == (result, false))?;
    let mut loads = region.body.iter().enumerate().filter_map(|(i, instr)| match instr {
        Instr::Load { arg, map } if *arg as usize == tile => Some((i, map)),
        _ => None,
    });
    let (loaded, map) = loads.next()?;
    let own_place = map.guards.is_empty() && is_own_place(&map.at, region);
    let gathered =
        region.body.iter().any(|i| matches!(i, Instr::Gather { arg, .. } if *arg as usize == tile));
    if !own_place || gathered || loads.next().is_some() {
        return None;
    }
    let mut out = built.clone();
    move_first(&mut out, tile);
    if keep {
        let at = own(&out.region);
        out.region.body.push(Instr::Store { arg: out.args.len() as ArgId, value: loaded as u32, at });
        out.region.args.push(out.region.args[0]);
        out.args.push((result, true));
    }
    Some(out)
}

/// The region with rows of `columns` columns, where it is element-wise and fusion merged several of them into one. What
/// is stored once a row would then be stored several times.
fn by_rows(region: &Region, columns: usize) -> Region {
    let mut out = region.clone();
    if region.columns > columns
        && region.columns.is_multiple_of(columns)
        && !region.columns_meet()
        && !region.stores_once_a_row()
    {
        Rewrite::SplitEpilogueRows.taken();
        out.rows.push(region.columns / columns);
        out.columns = columns;
        let split = |a: &mut Affine| {
            let column = *a.strides.last().expect("the columns");
            let at = a.strides.len() - 1;
            a.strides.insert(at, column * columns as i64);
        };
        out.body.iter_mut().flat_map(Instr::affines_mut).for_each(split);
    }
    out
}

fn own(region: &Region) -> Affine {
    Affine::row_major(&region.rows, region.columns, 0)
}

fn is_own_place(at: &Affine, region: &Region) -> bool {
    let strides = at.strides.iter().zip(own(region).strides);
    let same = strides.zip(region.sizes()).all(|((a, b), n)| n == 1 || *a == b);
    at.offset == 0 && same
}

/// Makes an argument the first.
fn move_first(built: &mut Built, arg: usize) {
    let moved = |a: ArgId| match a as usize {
        a if a == arg => 0,
        a if a < arg => a as ArgId + 1,
        a => a as ArgId,
    };
    built.args[..=arg].rotate_right(1);
    built.region.args[..=arg].rotate_right(1);
    built.region.body.iter_mut().filter_map(Instr::arg_mut).for_each(|a| *a = moved(*a));
}
