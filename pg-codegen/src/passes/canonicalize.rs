//! Canonical form of a graph, on which lowering works: only live nodes, no identities, and every `dot`
//! with operands [batch, free, contract]. The transpose of x · xᵀ is x · xᵀ.
//!
//! It must not change what any output computes, nor copy anything: what it adds are views.

use pg_ir::graph::{Builder, Graph, Node, Results, ValueId};
use pg_ir::op::{DotDims, Op, Operands};
use pg_ir::ty::{DType, Type};
use smallvec::SmallVec;

use crate::CodegenError;
use crate::index::matrix::is_symmetric;
use crate::passes::rewrites::Rewrite;

/// Rebuilds `graph` in canonical form.
pub(crate) fn canonical(graph: &Graph) -> Result<Graph, CodegenError> {
    let live = graph.needed(graph.outputs.iter().map(|o| o.value));
    let mut b = Builder::rebuilding(graph);
    let mut renamed: Vec<Option<ValueId>> = vec![None; graph.value_count()];
    for (_, node) in graph.nodes() {
        if !graph.results(node).any(|v| live[v.index()]) {
            Rewrite::DropDead.taken();
            continue;
        }
        b.set_origin(node.origin.clone());
        let operands: SmallVec<[ValueId; 4]> =
            node.operands.iter().map(|v| renamed[v.index()].expect("operands come first")).collect();
        let results = rebuild(&mut b, graph, node, &operands).map_err(|why| CodegenError::at(node, why))?;
        for (old, new) in graph.results(node).zip(results) {
            renamed[old.index()] = Some(new);
        }
    }
    for output in &graph.outputs {
        b.output(output.slot.clone(), renamed[output.value.index()].expect("outputs are live"));
    }
    Ok(b.finish())
}

fn rebuild(b: &mut Builder, graph: &Graph, node: &Node, operands: &[ValueId]) -> Result<Results, String> {
    let one = |v| Ok(Results::from_slice(&[v]));
    let &[first, ..] = operands else { return b.push(node.op.clone(), operands) };
    let from = b.ty(first).clone();
    if is_identity(&node.op, &from) {
        Rewrite::DropIdentity.taken();
        return one(first);
    }
    match &node.op {
        Op::Reduce(kind, axes) => {
            let real: SmallVec<[usize; 4]> =
                axes.iter().copied().filter(|&a| from.axes[a].size > 1).collect();
            if real.is_empty() {
                Rewrite::DropReduction.taken();
            }
            match (real.is_empty(), from.dtype) {
                (true, DType::F32) => one(first),
                (true, _) => b.push(Op::Cast(DType::F32), operands),
                (false, _) => b.push(Op::Reduce(*kind, real), operands),
            }
        }
        Op::Reshape(axes) => {
            // A reshape of a reshape is one reshape.
            let below = b.graph().producer(first);
            let is_reshape = matches!(below.op, Op::Reshape(_));
            let source = if is_reshape { below.operands[0] } else { first };
            if is_reshape {
                Rewrite::MergeReshapes.taken();
            }
            one(b.try_reshape(source, axes.clone())?)
        }
        Op::Dot(dims) => {
            // Of several pairs, all have the ranks of the first.
            let (rank_a, rank_b) = (graph.ty(node.operands[0]).rank(), graph.ty(node.operands[1]).rank());
            let (n_batch, n_contract) = (dims.batch.len(), dims.contract.len());
            let order = |batch: Vec<usize>, free: Vec<usize>, contract: Vec<usize>| -> SmallVec<[usize; 4]> {
                batch.into_iter().chain(free).chain(contract).collect()
            };
            let lhs = |pairs: &[(usize, usize)]| pairs.iter().map(|p| p.0).collect::<Vec<_>>();
            let rhs = |pairs: &[(usize, usize)]| pairs.iter().map(|p| p.1).collect::<Vec<_>>();
            let mut moved = Operands::new();
            for pair in operands.chunks_exact(2) {
                let x = order(lhs(&dims.batch), dims.lhs_free(rank_a), lhs(&dims.contract));
                let y = order(rhs(&dims.batch), dims.rhs_free(rank_b), rhs(&dims.contract));
                moved.extend([transposed(b, pair[0], x)?, transposed(b, pair[1], y)?]);
            }
            let dims = DotDims {
                batch: (0..n_batch).map(|i| (i, i)).collect(),
                contract: (0..n_contract)
                    .map(|i| (rank_a - n_contract + i, rank_b - n_contract + i))
                    .collect(),
            };
            b.push(Op::Dot(dims), &moved)
        }
        op => b.push(op.clone(), operands),
    }
}

fn transposed(b: &mut Builder, x: ValueId, perm: SmallVec<[usize; 4]>) -> Result<ValueId, String> {
    let rank = perm.len();
    let swaps_last = rank >= 2
        && perm.iter().enumerate().all(|(i, &p)| p == if i + 2 < rank { i } else { 2 * rank - 3 - i });
    let op = Op::Transpose(perm);
    if is_identity(&op, b.ty(x)) {
        return Ok(x);
    }
    if swaps_last && is_symmetric(b.graph().producer(x)) {
        Rewrite::DropSymmetricTranspose.taken();
        return Ok(x);
    }
    Rewrite::TransposeOperand.taken();
    b.try_op(op, &[x])
}

/// Whether the op gives its first operand back unchanged.
fn is_identity(op: &Op, x: &Type) -> bool {
    match op {
        Op::StopGradient => true,
        Op::Cast(dtype) => *dtype == x.dtype,
        Op::Reshape(axes) | Op::Broadcast(axes) => *axes == x.axes,
        Op::Transpose(perm) => perm.iter().enumerate().all(|(i, &p)| i == p),
        Op::Slice { axis, len, .. } => *len == x.axes[*axis].size,
        Op::Pad { before, after, .. } => before + after == 0,
        Op::Shift { by, .. } => *by == 0,
        Op::Permute(perm) => perm.iter().enumerate().all(|(i, &p)| i == p as usize),
        _ => false,
    }
}
