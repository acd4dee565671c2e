//! Storage precision: for a target that stores bf16, explicit rounds in the graph before fusion.
//!
//! Operands of contractions and attention, and activations that selection would keep, are rounded to bf16
//! where they are stored; whoever computes with them reads the rounded value as float32. Sums, reductions and
//! element-wise chains stay float32, and so do parameters, gradients and optimiser state, results, row scales,
//! and what is exponentiated, where a rounding would be a factor on the result. Fusion keeps what is written
//! here: a value is rounded whether or not it ends up in memory, so the fused and the unfused plan and the
//! interpreter compute the same.

use pg_ir::graph::{Builder, Graph, NodeId, ValueId};
use pg_ir::op::{Op, Operands, Unary};
use pg_ir::ty::{DType, Role};
use rustc_hash::FxHashSet;

use crate::passes::canonicalize::canonical;
use crate::passes::fold_constants;
use crate::passes::materialize::{is_widening, readers, worth_keeping};
use crate::passes::rewrites::Rewrite;
use crate::{CodegenError, Options};

/// Times that selection is asked what is worth keeping.
const MAX_ROUNDS: usize = 3;

/// The graph with storage of activations and operands in `storage`; the same graph for float32.
///
/// # Errors
/// If the graph cannot be lowered, as [`compile`](crate::compile) would say.
pub fn store_as(graph: &Graph, storage: DType) -> Result<Graph, CodegenError> {
    if storage != DType::BF16 {
        return Ok(graph.clone());
    }
    let mut graph = canonical(graph)?;
    // What is rounded changes what is worth keeping, so that something new may be kept; the third time rounds nothing or a
    // value or two, and what remains is stored as float32.
    for _ in 0..MAX_ROUNDS {
        let constants = fold_constants::find(&graph);
        let stored = worth_keeping(&graph, &constants, &Options::default());
        let everyone = vec![true; graph.value_count()];
        let chooser = Chooser { graph: &graph, readers: readers(&graph, &everyone), stored };
        let rounded: FxHashSet<ValueId> = {
            let operands = chooser.operands().into_iter().inspect(|_| Rewrite::RoundOperand.taken());
            operands.chain(chooser.activations().inspect(|_| Rewrite::RoundActivation.taken())).collect()
        };
        if rounded.is_empty() {
            break;
        }
        let given = chooser.given();
        graph = canonical(&Rewriter { given, rounded, ..Rewriter::new(&graph) }.rewrite()?)?;
    }
    Ok(graph)
}

/// What a view is a view of.
fn base(graph: &Graph, mut value: ValueId) -> ValueId {
    while graph.producer(value).op.is_view() {
        value = graph.producer(value).operands[0];
    }
    value
}

struct Chooser<'a> {
    graph: &'a Graph,
    readers: Vec<Vec<ValueId>>,
    stored: Vec<bool>,
}

impl Chooser<'_> {
    /// Values whose float32 form is given or asked for from outside: inputs and outputs.
    fn given(&self) -> FxHashSet<ValueId> {
        let inputs = self.graph.inputs().map(|(_, v)| v);
        inputs.chain(self.graph.outputs.iter().map(|o| base(self.graph, o.value))).collect()
    }

    /// What contractions and attention read, except the log-sum-exp, which is exponentiated.
    fn operands(&self) -> Vec<ValueId> {
        let mut found = Vec::new();
        for (_, node) in self.graph.nodes() {
            let is_read = |i: &usize| match node.op {
                Op::Dot(_) => true,
                Op::Attention { .. } => *i <= 2,
                Op::AttentionGrad { .. } => *i != 4,
                _ => false,
            };
            let read = (0..node.operands.len()).filter(is_read);
            let bases = read.map(|i| base(self.graph, node.operands[i]));
            found.extend(bases.filter(|v| self.graph.ty(*v).dtype == DType::F32));
        }
        found
    }

    /// What is kept a position of a sequence, unless it is one number a row or will be exponentiated.
    fn activations(&self) -> impl Iterator<Item = ValueId> + '_ {
        let given = self.given();
        self.graph.nodes().flat_map(|(id, node)| self.kept(id, node.op.is_view())).filter(move |v| {
            let ty = self.graph.ty(*v);
            let is_wide = ty.axes.last().is_some_and(|a| a.role != Role::Time && a.size > 1);
            ty.dtype == DType::F32
                && ty.time_axis().is_some()
                && is_wide
                && !given.contains(v)
                && !self.is_rounded(*v)
                && !self.is_exponentiated(*v)
        })
    }

    /// Results of a node that are kept; of attention only the output.
    fn kept(&self, id: NodeId, is_view: bool) -> Vec<ValueId> {
        let node = self.graph.node(id);
        let skip = usize::from(matches!(node.op, Op::Attention { .. }));
        let results = self.graph.results(node).take(node.results as usize - skip);
        results.filter(|v| !is_view && (self.stored[v.index()] || node.op.has_kernel())).collect()
    }

    /// Whether it has a bf16 form already, or is the float32 form of one.
    fn is_rounded(&self, value: ValueId) -> bool {
        let is_round = |v: &ValueId| self.graph.producer(*v).op == Op::Cast(DType::BF16);
        let readers = &self.readers[value.index()];
        is_widening(self.graph, self.graph.producer(value)) || readers.iter().all(is_round)
    }

    /// Whether an exponential is taken of it, of a view or of an element-wise function of it.
    fn is_exponentiated(&self, value: ValueId) -> bool {
        let (mut seen, mut stack) = (FxHashSet::default(), vec![value]);
        while let Some(at) = stack.pop() {
            for &reader in &self.readers[at.index()] {
                let op = &self.graph.producer(reader).op;
                match op {
                    Op::Unary(Unary::Exp) => return true,
                    Op::Unary(_) | Op::Binary(_) | Op::Select => {}
                    op if op.is_view() => {}
                    _ => continue,
                }
                if seen.insert(reader) && !self.stored[reader.index()] {
                    stack.push(reader);
                }
            }
        }
        false
    }
}

/// Rebuilds the graph; each value has a float32 form, a bf16 form, or both.
struct Rewriter<'a> {
    graph: &'a Graph,
    /// Values whose float32 form stays.
    given: FxHashSet<ValueId>,
    /// Values that get a bf16 form.
    rounded: FxHashSet<ValueId>,
    b: Builder,
    wide: Vec<Option<ValueId>>,
    narrow: Vec<Option<ValueId>>,
}

impl<'a> Rewriter<'a> {
    fn new(graph: &'a Graph) -> Self {
        let forms = vec![None; graph.value_count()];
        let (given, rounded) = Default::default();
        Rewriter { graph, given, rounded, b: Builder::rebuilding(graph), wide: forms.clone(), narrow: forms }
    }

    fn rewrite(mut self) -> Result<Graph, CodegenError> {
        for (_, node) in self.graph.nodes() {
            self.b.set_origin(node.origin.clone());
            let fail = |why| CodegenError::at(node, why);
            if node.op.is_view() {
                let (from, to) = (node.operands[0].index(), node.first.index());
                // A float32 form that only a round gives is made behind the view.
                if let Some(narrow) = self.narrow[from] {
                    Rewrite::ViewOfRounded.taken();
                    self.narrow[to] = Some(self.b.try_op(node.op.clone(), &[narrow]).map_err(fail)?);
                }
                if let Some(wide) = self.wide[from].filter(|_| !self.is_only_narrow(node.operands[0])) {
                    self.wide[to] = Some(self.b.try_op(node.op.clone(), &[wide]).map_err(fail)?);
                }
                continue;
            }
            let operands: Operands =
                node.operands.iter().map(|&v| self.form(v, node.op.has_kernel())).collect();
            let results = self.b.push(node.op.clone(), &operands).map_err(fail)?;
            for (old, new) in self.graph.results(node).zip(results) {
                self.wide[old.index()] = Some(new);
                if self.rounded.contains(&old) {
                    self.narrow[old.index()] = Some(self.b.op(Op::Cast(DType::BF16), &[new]));
                }
                if self.is_only_narrow(old) {
                    self.wide[old.index()] = None;
                }
            }
        }
        for output in &self.graph.outputs {
            let value = self.form(output.value, false);
            self.b.output(output.slot.clone(), value);
        }
        Ok(self.b.finish())
    }

    /// Whether the float32 form of a value is its bf16 form, widened.
    fn is_only_narrow(&self, value: ValueId) -> bool {
        let base = base(self.graph, value);
        self.rounded.contains(&base) && !self.given.contains(&base)
    }

    /// The form of a value that a node reads: kernels of a family of their own read what is stored.
    fn form(&mut self, value: ValueId, as_stored: bool) -> ValueId {
        let at = value.index();
        match (self.narrow[at], self.wide[at]) {
            (Some(narrow), _) if as_stored => narrow,
            (_, Some(wide)) => wide,
            (Some(narrow), None) => {
                let wide = self.b.op(Op::Cast(DType::F32), &[narrow]);
                self.wide[at] = Some(wide);
                wide
            }
            (None, None) => unreachable!("every value has a form"),
        }
    }
}
