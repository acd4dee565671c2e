//! The graph: a flat arena of op nodes in topological order, each with its source location and scope.
//!
//! There are no blocks and no control flow. Passes never edit a graph: they rebuild it through a
//! [`Builder`], which infers types and hash-conses, so equal computations are one node.

mod builder;

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

pub use self::builder::{Builder, Results, common_axes};
use crate::op::{Op, Operands};
use crate::slot::Slot;
use crate::ty::Type;

/// A position in a model file or in the standard library, 1-based.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Loc {
    /// File name as the user gave it, or `std/NAME`.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub col: u32,
}

impl Loc {
    /// A location; `line` and `col` count from 1.
    pub fn new(file: impl Into<Arc<str>>, line: u32, col: u32) -> Self {
        Loc { file: file.into(), line, col }
    }

    /// The location of what a pass made up, named after the pass.
    pub fn pass(name: &str) -> Self {
        Loc::new(format!("<{name}>"), 0, 0)
    }
}

impl fmt::Display for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.col)
    }
}

/// A value of a graph: one result of one node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ValueId(pub(crate) u32);

impl ValueId {
    /// Position in the arena of values.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ValueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// An op node of a graph.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct NodeId(pub(crate) u32);

impl NodeId {
    /// Position in the arena of nodes.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a node comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The expression in the model or library text.
    pub loc: Loc,
    /// For an expression of the library: the call in the model's own text that leads to it.
    pub call: Option<Loc>,
    /// Parameter scope in force, as in `blocks.3.mlp`; empty at the top.
    pub scope: Arc<str>,
    /// Whether the node belongs to a derivative of that expression.
    pub backward: bool,
}

impl Origin {
    /// The origin of what a pass made up.
    pub fn pass(name: &str) -> Self {
        Origin { loc: Loc::pass(name), call: None, scope: "".into(), backward: false }
    }
}

/// One op with its operands.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// The op.
    pub op: Op,
    /// Operand values; all are results of earlier nodes.
    pub operands: Operands,
    /// First result; the others follow it.
    pub first: ValueId,
    /// Number of results.
    pub results: u32,
    /// Where it comes from.
    pub origin: Origin,
}

/// A value that leaves the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// Where it goes. State slots are overwritten when the program has run.
    pub slot: Slot,
    /// What goes there.
    pub value: ValueId,
}

/// Most nodes of a graph that a text describes. What derivatives and passes add is a small multiple of them.
pub const MAX_NODES: usize = 200_000;

/// A computation: nodes in topological order and what leaves it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    values: Vec<(Type, NodeId)>,
    /// What leaves the computation.
    pub outputs: Vec<Output>,
}

impl Graph {
    /// Nodes in topological order.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = (NodeId, &Node)> + DoubleEndedIterator {
        self.nodes.iter().enumerate().map(|(i, n)| (NodeId(i as u32), n))
    }

    /// A node by id.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Number of nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Number of values.
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// Type of a value.
    pub fn ty(&self, value: ValueId) -> &Type {
        &self.values[value.index()].0
    }

    /// The node that computes a value.
    pub fn producer(&self, value: ValueId) -> &Node {
        &self.nodes[self.values[value.index()].1.index()]
    }

    /// The id of the node that computes a value.
    pub fn producer_id(&self, value: ValueId) -> NodeId {
        self.values[value.index()].1
    }

    /// Results of a node.
    pub fn results(&self, node: &Node) -> impl Iterator<Item = ValueId> + use<> {
        (node.first.0..node.first.0 + node.results).map(ValueId)
    }

    /// Types of a node's operands.
    pub fn operand_types(&self, node: &Node) -> SmallVec<[&Type; 4]> {
        node.operands.iter().map(|&v| self.ty(v)).collect()
    }

    /// Types of a node's results.
    pub fn result_types(&self, node: &Node) -> SmallVec<[&Type; 4]> {
        self.results(node).map(|v| self.ty(v)).collect()
    }

    /// The inputs of the program with the values that hold them, in order of first use.
    pub fn inputs(&self) -> impl Iterator<Item = (&Slot, ValueId)> {
        self.nodes.iter().filter_map(|n| match &n.op {
            Op::Input(slot, _) => Some((slot, n.first)),
            _ => None,
        })
    }

    /// By value: whether some of `values` are computed from it; they themselves are among them.
    pub fn needed(&self, values: impl IntoIterator<Item = ValueId>) -> Vec<bool> {
        let mut needed = vec![false; self.value_count()];
        values.into_iter().for_each(|v| needed[v.index()] = true);
        for (_, node) in self.nodes().rev() {
            if self.results(node).any(|v| needed[v.index()]) {
                node.operands.iter().for_each(|v| needed[v.index()] = true);
            }
        }
        needed
    }

    /// The value written to a slot, if the program writes it.
    pub fn output(&self, slot: &Slot) -> Option<ValueId> {
        self.outputs.iter().find(|o| o.slot == *slot).map(|o| o.value)
    }
}
