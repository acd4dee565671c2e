//! Launches of contractions: members, the operand that they share, segments of k, and epilogues.

use pg_ir::graph::{Node, NodeId, ValueId};

use super::{Made, Planner, share_args};
use crate::CodegenError;
use crate::index::matrix;
use crate::passes::emit::Built;
use crate::passes::fuse::{Dot, DotResult};
use crate::plan::cost::{self, LaunchCost};
use crate::plan::witness::Roles;
use crate::plan::{BufferId, Contraction, Kernel, Member, Side};

impl Planner<'_> {
    /// Dots; an operand that they share is bound, and counted, once.
    pub(super) fn contraction(
        &mut self,
        shared: Option<Side>,
        dots: &[Dot],
    ) -> Result<Made<Kernel>, CodegenError> {
        let mut members = Vec::new();
        let (mut args, mut nodes, mut cost) = (Vec::new(), Vec::new(), LaunchCost::default());
        let mut roles = Roles::default();
        for dot in dots {
            let mut one = self.dot(dot)?;
            if let Some(side) = shared {
                let at = usize::from(side == Side::Right);
                let common = one.args.remove(at);
                let role = one.roles.remove(at);
                let operand = self.cx.graph.node(dot.node).operands[at];
                let again = self.cx.graph.ty(operand).bytes() as f64;
                if members.is_empty() {
                    args.push(common);
                    roles.reads.push(role.0);
                    roles.writes.push(role.1);
                    cost.bytes += again;
                }
                one.cost.bytes -= again;
            }
            args.extend(one.args);
            roles.extend(one.roles);
            nodes.extend(one.nodes);
            cost.flops += one.cost.flops;
            cost.bytes += one.cost.bytes;
            members.push(one.kernel);
        }
        let kernel = Kernel::Contraction(Contraction { shared, members });
        Ok(Made { kernel, args, roles, nodes, cost })
    }

    fn dot(&mut self, dot: &Dot) -> Result<Made<Member>, CodegenError> {
        let node = self.cx.graph.node(dot.node);
        let member = matrix::product(self.cx, node)
            .map_err(|e| CodegenError::at(node, format!("internal error: {e:?}")))?;
        let args: Vec<BufferId> = dot.operands.iter().map(|&v| self.buffer(v)).collect::<Result<_, _>>()?;
        let mut roles = Roles { library: vec![dot.node], ..Roles::default() };
        dot.operands.iter().for_each(|&v| roles.read(v));
        let (nodes, cost) = (vec![dot.node], LaunchCost::default());
        let operands = Made { kernel: member, args, roles, nodes, cost };
        match &dot.result {
            DotResult::Stored(value) => self.stored(operands, dot.node, *value),
            DotResult::Epilogue(built) => self.epilogue(operands, node, built),
        }
    }

    /// A dot that writes to a value's buffer, where absorption may have it add, or lie as a view.
    fn stored(
        &mut self,
        mut made: Made<Member>,
        id: NodeId,
        value: ValueId,
    ) -> Result<Made<Member>, CodegenError> {
        let graph = self.cx.graph;
        let node = graph.node(id);
        let result = made.args.len();
        made.args.push(self.buffer(value)?);
        made.roles.write(value);
        made.cost = self.cost(node, &[value]);
        let m = &mut made.kernel.matmul;
        if let Some(absorbed) = self.groups.absorbed.get(&id) {
            (m.c, m.accumulate) = (absorbed.c, absorbed.accumulate.is_some());
            // An old value may be anything, and executors mirror rows.
            m.symmetric &= !m.accumulate && m.c.col == 1;
            made.cost.bytes += if m.accumulate { graph.ty(node.first).bytes() as f64 } else { 0.0 };
            if let Some(slot) = &absorbed.accumulate {
                let mut inputs = graph.inputs();
                made.roles.reads[result] = inputs.find(|(s, _)| *s == slot).map(|(_, old)| old);
            }
        }
        if m.symmetric {
            made.cost.flops *= (m.m + 1) as f64 / (2 * m.m) as f64;
        }
        Ok(made)
    }

    /// A dot whose result a region takes.
    fn epilogue(
        &mut self,
        mut made: Made<Member>,
        node: &Node,
        built: &Built,
    ) -> Result<Made<Member>, CodegenError> {
        // Argument 0 is in no buffer.
        let nowhere = BufferId(u32::MAX);
        let rest: Result<Vec<BufferId>, _> = built.args[1..].iter().map(|&(v, _)| self.buffer(v)).collect();
        let (region, bound, mut rest) = share_args(built, [vec![nowhere], rest?].concat());
        let len = |b: &BufferId| if *b == nowhere { 0 } else { self.plan.buffers[b.0 as usize].len };
        let lens: Vec<usize> = bound.iter().map(len).collect();
        made.cost = cost::region(&region, &lens);
        let types = self.cx.graph.operand_types(node);
        made.cost.flops += node.op.cost(&types, &self.cx.graph.result_types(node)).flops;
        made.cost.bytes += types.iter().map(|t| t.bytes()).sum::<usize>() as f64;
        made.args.extend(&bound[1..]);
        rest.remove(0);
        made.roles.extend(rest);
        made.nodes.extend(&built.nodes);
        made.kernel.epilogue = Some(region);
        Ok(made)
    }
}
