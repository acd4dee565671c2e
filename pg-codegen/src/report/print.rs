//! Plans for people: what each launch computes, in the model's terms, and where every buffer lies.
//!
//! The text is deterministic, so that plans can be compared as golden files.

use std::fmt;

use pg_ir::graph::{Graph, ValueId};
use pg_ir::op::Op;

use crate::plan::{Kernel, Member, Place, Plan};

/// What a buffer holds: scope, op, type and place of the value.
pub(crate) fn label(graph: &Graph, value: ValueId) -> String {
    let mut node = graph.producer(value);
    // What is rounded for storage is called after what computed it.
    while let Op::Cast(_) = node.op {
        node = graph.producer(node.operands[0]);
    }
    let scope = if node.origin.scope.is_empty() { String::new() } else { format!("{} ", node.origin.scope) };
    let backward = if node.origin.backward { "grad of " } else { "" };
    let (name, ty) = (node.op.record().name, graph.ty(value));
    format!("{backward}{scope}{name} {ty} at {}:{}", node.origin.loc.file, node.origin.loc.line)
}

impl Plan {
    /// The first and last launch that uses each buffer.
    pub fn uses(&self) -> Vec<Option<(usize, usize)>> {
        let mut uses: Vec<Option<(usize, usize)>> = vec![None; self.buffers.len()];
        for (i, launch) in self.launches.iter().enumerate() {
            for arg in &launch.args {
                let entry = &mut uses[arg.0 as usize];
                *entry = Some((entry.map_or(i, |e| e.0), i));
            }
        }
        uses
    }

    /// Floating point operations of one run.
    pub fn flops(&self) -> f64 {
        self.launches.iter().map(|l| l.flops).sum()
    }

    /// Bytes that one run reads and writes.
    pub fn bytes(&self) -> f64 {
        self.launches.iter().map(|l| l.bytes).sum()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "program {}: {} launches of {} kernels, {:.3e} FLOP, {:.3e} bytes, arena {} bytes",
            self.program,
            self.launches.len(),
            self.kernels.len(),
            self.flops(),
            self.bytes(),
            self.arena_bytes
        )?;
        writeln!(f, "\nbuffers")?;
        for (i, (b, uses)) in self.buffers.iter().zip(self.uses()).enumerate() {
            let place = match &b.place {
                Place::External(slot) => slot.to_string(),
                Place::Temp { offset } => format!("arena+{offset}"),
                Place::Constant(_) => "constant".into(),
            };
            let life = uses.map_or("unused".into(), |(first, last)| format!("#{first}..#{last}"));
            write!(f, "  b{i} {} × {} {place} {life} {}", b.dtype, b.len, b.label)?;
            match b.place {
                Place::External(_) => writeln!(f)?,
                _ => writeln!(f, ": {}", b.why)?,
            }
        }
        writeln!(f, "\nlaunches")?;
        for (i, l) in self.launches.iter().enumerate() {
            let kernel = &self.kernels[l.kernel.0 as usize];
            let args: Vec<String> = l.args.iter().map(|a| format!("b{}", a.0)).collect();
            writeln!(
                f,
                "  #{i} k{} {}({}) {:.3e} FLOP {:.3e} bytes: {}",
                l.kernel.0,
                kernel.family(),
                args.join(", "),
                l.flops,
                l.bytes,
                l.provenance
            )?;
        }
        writeln!(f, "\nkernels")?;
        for (i, kernel) in self.kernels.iter().enumerate() {
            match kernel {
                Kernel::Region(region) => write!(f, "  k{i} {region}")?,
                Kernel::Contraction(contraction) => {
                    match contraction.shared {
                        Some(side) => writeln!(f, "  k{i} contraction, {side:?} operand shared")?,
                        None => writeln!(f, "  k{i} contraction")?,
                    }
                    for Member { matmul, segments, epilogue } in &contraction.members {
                        writeln!(f, "    {matmul:?}")?;
                        segments.iter().try_for_each(|segment| writeln!(f, "    plus {segment:?}"))?;
                        if let Some(region) = epilogue {
                            write!(f, "    epilogue {region}")?;
                        }
                    }
                }
                other => writeln!(f, "  k{i} {other:?}")?,
            }
        }
        Ok(())
    }
}
