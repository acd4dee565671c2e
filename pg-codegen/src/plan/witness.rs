//! What a plan claims: which value of the graph each argument of each launch holds.
//!
//! Scheduling writes it down beside the plan, for [`verify`](crate::verify), which proves it launch by launch. No
//! executor sees it, and nothing may be decided by it.

use pg_ir::graph::{Graph, NodeId, ValueId};

use crate::plan::Plan;

/// The values of one launch.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Roles {
    /// By argument: the value that it holds when the launch begins, if the launch reads it.
    pub reads: Vec<Option<ValueId>>,
    /// By argument: the value that it holds when the launch has ended, if the launch writes it.
    pub writes: Vec<Option<ValueId>>,
    /// The nodes with a kernel family of their own that it computes: one, or one for each of several products.
    pub library: Vec<NodeId>,
}

impl Roles {
    /// Adds an argument that is only read.
    pub(crate) fn read(&mut self, value: ValueId) {
        self.reads.push(Some(value));
        self.writes.push(None);
    }

    /// Adds an argument that is only written.
    pub(crate) fn write(&mut self, value: ValueId) {
        self.reads.push(None);
        self.writes.push(Some(value));
    }

    /// Takes an argument out: its read and its written value.
    pub(crate) fn remove(&mut self, arg: usize) -> (Option<ValueId>, Option<ValueId>) {
        (self.reads.remove(arg), self.writes.remove(arg))
    }

    /// Adds the arguments and nodes of another.
    pub(crate) fn extend(&mut self, other: Roles) {
        self.reads.extend(other.reads);
        self.writes.extend(other.writes);
        self.library.extend(other.library);
    }
}

/// A plan that nobody has verified, with what it takes to do so.
#[derive(Clone, PartialEq, Debug)]
pub struct Lowered {
    /// The plan.
    pub plan: Plan,
    /// The graph that was scheduled: the program's after every pass over graphs.
    pub graph: Graph,
    /// By launch: the values that its arguments hold.
    pub roles: Vec<Roles>,
}
