//! The static proof that no score depends on the future: from axis roles and each op's time rule.
//!
//! For every value, how far into the future of position t its element at t can look, for each data
//! input. It must never be optimistic: an op that says nothing precise mixes everything. The sequences of a
//! batch are later tokens to each other (windows overlap, and what a row scores another holds as context),
//! so an op that mixes the rows of a batch axis mixes everything too.

use crate::graph::{Graph, Node, ValueId};
use crate::op::{Op, Time};
use crate::slot::{Slot, Space};

/// How the element at position t depends on an input along time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reach {
    /// Not at all.
    Never,
    /// On positions up to t + k, and possibly every one before.
    Until(i64),
    /// On any position.
    Everything,
}

/// Dependence of one value on one data input: at which latest position, and whether on that alone.
pub fn reach(graph: &Graph, input: &Slot) -> Vec<Reach> {
    let mut reach = vec![Reach::Never; graph.value_count()];
    for (_, node) in graph.nodes() {
        let from = match &node.op {
            Op::Input(slot, _) if slot == input => Reach::Until(0),
            op => {
                let operands = node.operands.iter().map(|v| reach[v.index()]).max();
                let time = (op.record().time)(op, &graph.operand_types(node));
                through(operands.unwrap_or(Reach::Never), time)
            }
        };
        graph.results(node).for_each(|r| reach[r.index()] = from);
    }
    reach
}

fn through(operand: Reach, time: Time) -> Reach {
    match (operand, time) {
        (Reach::Never, _) => Reach::Never,
        (Reach::Everything, _) | (_, Time::All) => Reach::Everything,
        (Reach::Until(k), Time::Point | Time::Prefix) => Reach::Until(k),
        // y[t] = x[t − by] looks at t − by + k.
        (Reach::Until(k), Time::Shift(by)) => Reach::Until(k - by),
    }
}

/// Proves that `logits` at position t depend on tokens up to t only and on no target.
///
/// The error says what was found instead and where the dependence entered.
pub fn prove_causal(graph: &Graph, logits: ValueId) -> Result<(), String> {
    let tokens = Slot::new(Space::Data, "tokens");
    let targets = Slot::new(Space::Data, "targets");
    if reach(graph, &targets)[logits.index()] != Reach::Never {
        return Err(format!("the logits depend on {targets}"));
    }
    let reach = reach(graph, &tokens);
    if reach[logits.index()] <= Reach::Until(0) {
        return Ok(());
    }
    let culprit = graph.nodes().find(|(_, node)| {
        let own = graph.results(node).any(|r| reach[r.index()] > Reach::Until(0));
        own && node.operands.iter().all(|v| reach[v.index()] <= Reach::Until(0))
    });
    let place = culprit.map_or(String::new(), |(_, n)| format!(": `{}` at {}", n.op, n.origin.loc));
    Err(format!("the logits of a position depend on later tokens{place}"))
}

/// Proves that `nll` at position t depends on tokens up to t and on the target of t alone.
///
/// Together with [`prove_causal`] of the logits in the same graph: every target is scored once, by a
/// distribution that knows neither it nor what follows.
pub fn prove_pointwise(graph: &Graph, nll: ValueId) -> Result<(), String> {
    let [tokens, targets] = ["tokens", "targets"].map(|name| Slot::new(Space::Data, name));
    if reach(graph, &tokens)[nll.index()] > Reach::Until(0) {
        return Err("the loss of a position depends on later tokens".into());
    }
    let is_targets = |node: &Node| matches!(&node.op, Op::Input(slot, _) if *slot == targets);
    let needed = graph.needed([nll]);
    // Whether a value holds anything of a target; arena order is topological.
    let mut holds = vec![false; graph.value_count()];
    for (_, node) in graph.nodes() {
        let mut from = node.operands.iter().any(|v| holds[v.index()]);
        if from {
            let time = (node.op.record().time)(&node.op, &graph.operand_types(node));
            if time != Time::Point && graph.results(node).any(|r| needed[r.index()]) {
                let place = &node.origin.loc;
                return Err(format!(
                    "the loss reads targets of other positions through `{}` at {place}",
                    node.op
                ));
            }
        }
        from |= is_targets(node);
        graph.results(node).for_each(|r| holds[r.index()] = from);
    }
    if holds[nll.index()] {
        Ok(())
    } else {
        Err("the loss of a position does not depend on its target".into())
    }
}
