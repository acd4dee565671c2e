//! The abstract interpreter: pieces of every value that one value is computed from.

use smallvec::SmallVec;

use super::access::{Access, Index, Meeting};
use super::known::Known;
use super::zone::{Coordinate, ORIGIN, Zone};
use crate::graph::{Graph, Node, ValueId};
use crate::op::{Binary, Op};
use crate::slot::Slot;
use crate::ty::{DType, Role, Type};

/// What is known of some elements of a value.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Piece {
    /// Their indices: coordinate a + 1 is that along axis a.
    zone: Zone,
    known: Known,
    /// The tokens that they depend on: zones over the same coordinates, then the token's sequence and its position.
    reads: Vec<Zone>,
}

/// Where the pieces of some operands meet: all of a node's, or of a dot's pair.
struct Site<'p> {
    node: &'p Node,
    ty: &'p Type,
    /// Which operand of the node is the first.
    first: usize,
    operands: &'p [Vec<Piece>],
}

/// More pieces or reads than this are joined: the proof stays sound and fast, and knows less.
const MOST: usize = 12;

/// The pieces of each value, of one data input.
pub(super) struct Analysis<'g> {
    pub(super) graph: &'g Graph,
    /// Sequences of the input, and positions of each.
    source: [usize; 2],
    /// Empty for values that were not asked for.
    values: Vec<Vec<Piece>>,
}

impl<'g> Analysis<'g> {
    /// Of all that `value` is computed from.
    pub(super) fn of(graph: &'g Graph, input: &Slot, value: ValueId) -> Self {
        let ty = graph.inputs().find(|(slot, _)| *slot == input).map(|(_, value)| graph.ty(value));
        let size = |role| ty.and_then(|ty| ty.axes.iter().find(|a| a.role == role)).map_or(1, |a| a.size);
        let source = [size(Role::Batch), size(Role::Time)];
        let mut analysis = Analysis { graph, source, values: vec![vec![]; graph.value_count()] };
        let needed = graph.needed([value]);
        for (_, node) in graph.nodes() {
            for result in graph.results(node).filter(|r| needed[r.index()]) {
                analysis.values[result.index()] = match &node.op {
                    Op::Input(slot, ty) if slot == input => vec![analysis.source(ty)],
                    _ => analysis.result(node, result, &Known::clone),
                };
            }
        }
        analysis
    }

    /// The tokens that elements of a value depend on: zones over its indices, then sequence and position.
    pub(super) fn reads(&self, value: ValueId) -> Vec<Zone> {
        self.values[value.index()].iter().flat_map(|piece| piece.reads.clone()).collect()
    }

    /// The tokens that elements of a node's result would depend on if every number were finite.
    pub(super) fn reads_if_finite(&self, node: &Node, result: ValueId) -> Vec<Zone> {
        let pieces = self.result(node, result, &Known::if_finite);
        pieces.into_iter().flat_map(|piece| piece.reads).collect()
    }

    /// The tokens that elements of a node's result depend on through one operand.
    pub(super) fn reads_through(&self, node: &Node, result: ValueId, operand: usize) -> Vec<Zone> {
        let ty = self.graph.ty(result);
        let access = (node.op.record().access)(&node.op, &self.graph.operand_types(node), ty);
        let sizes: SmallVec<[usize; 6]> =
            ty.shape().into_iter().chain(access.summed.iter().copied()).collect();
        let of = &self.values[node.operands[operand].index()];
        let pieces = of.iter().map(|piece| self.moved(piece, &access.operands[operand], &sizes));
        sum(ty, pieces.collect()).reads
    }

    /// The last position of the input.
    pub(super) fn last(&self) -> i64 {
        self.source[1] as i64 - 1
    }

    /// The input itself: each element reads its own token.
    fn source(&self, ty: &Type) -> Piece {
        let sizes = ty.shape();
        let mut reads = Zone::of(sizes.iter().copied().chain(self.source));
        for (role, coordinate) in [Role::Batch, Role::Time].into_iter().zip(ty.rank() + 1..) {
            if let Some(axis) = ty.axes.iter().position(|a| a.role == role) {
                reads.limit(axis + 1, coordinate, 0);
                reads.limit(coordinate, axis + 1, 0);
            }
        }
        Piece { zone: Zone::of(sizes), known: Known::any(ty.dtype), reads: vec![reads] }
    }

    /// The pieces of a node's result, if `assume` held of what is known of its operands.
    fn result(&self, node: &Node, result: ValueId, assume: &dyn Fn(&Known) -> Known) -> Vec<Piece> {
        let ty = self.graph.ty(result);
        let access = (node.op.record().access)(&node.op, &self.graph.operand_types(node), ty);
        let sizes: SmallVec<[usize; 6]> =
            ty.shape().into_iter().chain(access.summed.iter().copied()).collect();
        let mut operands: Vec<Vec<Piece>> = Vec::with_capacity(node.operands.len());
        for (&value, indices) in node.operands.iter().zip(&access.operands) {
            let axes = self.graph.ty(value).shape();
            let is_same =
                axes[..] == sizes[..] && indices.iter().enumerate().all(|(a, i)| *i == Index::along(a));
            let moved = |piece: &Piece| {
                let moved = if is_same { piece.clone() } else { self.moved(piece, indices, &sizes) };
                Piece { known: assume(&moved.known), ..moved }
            };
            operands
                .push(self.values[value.index()].iter().map(moved).filter(|p| !p.zone.is_empty()).collect());
        }
        if matches!(node.op, Op::Select) {
            operands[1].iter_mut().for_each(|piece| self.refine(node, piece));
        }
        let zone = Zone::of(sizes.iter().copied());
        let mut pieces = Vec::new();
        let groups = if operands.is_empty() { 1 } else { operands.len() / access.together };
        for group in 0..groups {
            let operands = &operands[group * access.together..][..access.together];
            let site = Site { node, ty, first: group * access.together, operands };
            self.combine(&site, &mut SmallVec::new(), &zone, &mut pieces);
        }
        if access.padded {
            pieces.extend(self.padding(node, ty, &access));
        }
        if groups > 1 || !access.summed.is_empty() {
            pieces = vec![sum(ty, pieces)];
        }
        normalised(pieces, ty.dtype)
    }

    /// Every way to take a piece of each operand such that they meet, and what the op makes of them.
    fn combine<'p>(
        &self,
        site: &Site<'p>,
        chosen: &mut SmallVec<[&'p Piece; 6]>,
        zone: &Zone,
        pieces: &mut Vec<Piece>,
    ) {
        let Some(next) = site.operands.get(chosen.len()) else {
            return self.meet(site, chosen, zone, pieces);
        };
        // Pieces of a branch that is not taken would only cut the other's up.
        let is_dead = matches!(site.node.op, Op::Select)
            && chosen.first().is_some_and(|c| c.known.truth() == Some(chosen.len() == 2));
        for piece in next.iter().take(if is_dead { 1 } else { usize::MAX }) {
            let mut both = zone.clone();
            if !is_dead {
                both.intersect(&piece.zone, |c| c);
            }
            if !both.is_empty() {
                chosen.push(piece);
                self.combine(site, chosen, &both, pieces);
                chosen.pop();
            }
        }
    }

    /// What an op makes of one piece of each operand.
    fn meet(&self, site: &Site<'_>, chosen: &[&Piece], zone: &Zone, pieces: &mut Vec<Piece>) {
        let Site { node, ty, first, .. } = *site;
        let known: SmallVec<[&Known; 6]> = chosen.iter().map(|p| &p.known).collect();
        let types = self.graph.operand_types(node);
        let operands = &types[first..first + chosen.len()];
        let whatever = |operand: usize| {
            let meets = |piece: &&Piece| {
                let mut both = zone.clone();
                both.intersect(&piece.zone, |c| c);
                !both.is_empty()
            };
            hull(site.operands[operand].iter().filter(meets), chosen[operand].known.clone())
        };
        let meeting = Meeting { zone, known: &known, whatever: &whatever, operands, dtype: ty.dtype };
        for case in (node.op.record().cases)(&node.op, &meeting) {
            let read = chosen.iter().zip(&case.reads).filter(|(_, read)| **read).flat_map(|(p, _)| &p.reads);
            let limited = |read: &Zone| {
                let mut read = read.clone();
                read.intersect(&case.zone, |c| c);
                read
            };
            let reads = read.map(limited).collect();
            pieces.push(Piece { zone: case.zone, known: case.known, reads });
        }
    }

    /// A piece of an operand at the indices of the op that reads it.
    fn moved(&self, piece: &Piece, indices: &[Index], sizes: &[usize]) -> Piece {
        let own = indices.len();
        let move_zone = |zone: &Zone, extra: &[usize]| {
            let axes = (1..=own).map(|c| (zone.bound(c, ORIGIN) + 1).max(1) as usize);
            let end = 1 + own + sizes.len();
            let mut both = Zone::of(axes.chain(sizes.iter().copied()).chain(extra.iter().copied()));
            both.intersect(zone, |c| if c <= own { c } else { c - own - 1 + end });
            for (axis, index) in indices.iter().enumerate() {
                let from = index.axis.map_or(ORIGIN, |a| 1 + own + a);
                both.limit(axis + 1, from, index.high);
                both.limit(from, axis + 1, -index.low);
            }
            let kept: SmallVec<[Coordinate; 12]> =
                std::iter::once(ORIGIN).chain(own + 1..end + extra.len()).collect();
            both.project(&kept)
        };
        let reads = piece.reads.iter().map(|read| move_zone(read, &self.source));
        let exact = |c: Coordinate| {
            let index = indices[c - 1];
            index.is_exact().then(|| (index.axis.map_or(ORIGIN, |a| a + 1), index.low))
        };
        Piece {
            zone: move_zone(&piece.zone, &[]),
            known: piece.known.clone().moved(sizes.len() + 1, exact),
            reads: reads.filter(|read| !read.is_empty()).collect(),
        }
    }

    /// A branch of a select, where its condition holds: a comparison that bounds the branch's own value.
    fn refine(&self, node: &Node, piece: &mut Piece) {
        let (condition, branch) = (self.graph.producer(node.operands[0]), node.operands[1]);
        let (Op::Binary(Binary::Gt), &[larger, smaller]) = (&condition.op, &condition.operands[..]) else {
            return;
        };
        let of = |value: ValueId| hull(&self.values[value.index()], Known::any(self.graph.ty(value).dtype));
        let square = self.graph.producer(smaller);
        if larger == branch {
            piece.known = piece.known.compared(true, &of(smaller));
        } else if smaller == branch {
            piece.known = piece.known.compared(false, &of(larger));
        } else if square.op == Op::Binary(Binary::Mul) && square.operands.iter().all(|v| *v == branch) {
            piece.known = piece.known.squared_below(&of(larger));
        }
    }

    /// The zeros where there is no operand.
    fn padding(&self, node: &Node, ty: &Type, access: &Access) -> Vec<Piece> {
        let x = self.graph.ty(node.operands[0]);
        let sides = access.operands[0].iter().zip(&x.axes).enumerate().flat_map(|(axis, (index, x))| {
            let (mut before, mut after) = (Zone::of(ty.shape()), Zone::of(ty.shape()));
            before.limit(axis + 1, ORIGIN, -index.low - 1);
            after.limit(ORIGIN, axis + 1, index.low - x.size as i64);
            [before, after]
        });
        let known = Known::number(0.0, ty.rank() + 1);
        sides.map(|zone| Piece { zone, known: known.clone(), reads: vec![] }).collect()
    }
}

/// What is known of an element of which only some piece holds, or `none` if there is no piece.
fn hull<'p>(pieces: impl IntoIterator<Item = &'p Piece>, none: Known) -> Known {
    pieces.into_iter().map(|p| p.known.clone()).reduce(|a, b| a.or(&b)).unwrap_or(none)
}

/// The sum of all elements that meet in one of the result.
fn sum(ty: &Type, pieces: Vec<Piece>) -> Piece {
    let axes = ty.rank() + 1;
    let project = |read: Zone| {
        let end = read.coordinates();
        read.project(&(0..axes).chain(end - 2..end).collect::<SmallVec<[Coordinate; 8]>>())
    };
    let reads = pieces.into_iter().flat_map(|piece| piece.reads).filter(|r| !r.is_empty()).map(project);
    Piece { zone: Zone::of(ty.shape()), known: Known::any(ty.dtype), reads: reads.collect() }
}

/// The same pieces, with little of it said twice.
fn normalised(pieces: Vec<Piece>, dtype: DType) -> Vec<Piece> {
    let any = Known::any(dtype);
    let mut merged: Vec<Piece> = Vec::with_capacity(pieces.len());
    for piece in pieces.into_iter().filter(|p| !p.zone.is_empty()) {
        let same = |m: &Piece| {
            m.known == piece.known
                && (m.known == any || m.zone.includes(&piece.zone) || piece.zone.includes(&m.zone))
        };
        match merged.iter().position(same) {
            Some(at) => join(&mut merged[at], piece),
            None => merged.push(piece),
        }
    }
    if merged.len() > MOST {
        let all = merged.drain(..).reduce(|mut a, b| {
            a.known = a.known.or(&b.known);
            join(&mut a, b);
            a
        });
        merged.extend(all);
    }
    merged.iter_mut().for_each(|piece| piece.reads = least(std::mem::take(&mut piece.reads)));
    merged
}

fn join(into: &mut Piece, piece: Piece) {
    into.zone.join(&piece.zone);
    into.reads.extend(piece.reads);
}

/// The same points in few zones.
fn least(reads: Vec<Zone>) -> Vec<Zone> {
    let mut kept: Vec<Zone> = Vec::with_capacity(reads.len().min(MOST));
    for read in reads.into_iter().filter(|r| !r.is_empty()) {
        if kept.iter().any(|k| k.includes(&read)) {
            continue;
        }
        kept.retain(|k| !read.includes(k));
        match kept.get_mut(MOST - 1) {
            Some(last) => last.join(&read),
            None => kept.push(read),
        }
    }
    kept
}
