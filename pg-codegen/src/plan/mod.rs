//! A plan: everything an executor needs to run one program. Buffers with their places, kernels, and a
//! flat list of launches in order. Executors match on kernel families and region instructions only.

pub(crate) mod cost;
mod structure;
pub mod witness;

use std::sync::Arc;

use pg_ir::graph::ValueId;
use pg_ir::slot::Slot;
use pg_ir::ty::DType;

use crate::region::Region;
use crate::report::provenance::Provenance;

/// A buffer of a plan, by position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// A kernel of a plan, by position. Equal kernels are one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct KernelId(pub u32);

/// Where a buffer lives.
#[derive(Clone, PartialEq, Debug)]
pub enum Place {
    /// Outside the program: an input, an output, or state that it updates.
    External(Slot),
    /// The arena, at this byte offset (a multiple of 64).
    Temp {
        /// Bytes from the start of the arena.
        offset: usize,
    },
    /// Data known at compile time, as the bits of float32 or int32 elements.
    Constant(Arc<[u32]>),
}

/// A contiguous buffer.
#[derive(Clone, PartialEq, Debug)]
pub struct Buffer {
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub len: usize,
    /// Where it lives.
    pub place: Place,
    /// What it holds, in the model's terms.
    pub label: String,
    /// Why it is in memory: why there is a boundary between launches here.
    pub why: &'static str,
}

/// A matrix operand: strides in elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MatrixView {
    /// Element offset of the first matrix.
    pub offset: usize,
    /// Between matrices of a batch.
    pub batch: usize,
    /// Between rows.
    pub row: usize,
    /// Between columns.
    pub col: usize,
}

/// c[m, n] = Σ_k a[m, k] · b[k, n] for each matrix of a batch, plus c's old value if `accumulate`.
/// Arguments: a, b, c.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Matmul {
    /// Matrices.
    pub batch: usize,
    /// Rows of a and c.
    pub m: usize,
    /// Columns of b and c.
    pub n: usize,
    /// Columns of a, rows of b.
    pub k: usize,
    /// Left operand.
    pub a: MatrixView,
    /// Right operand.
    pub b: MatrixView,
    /// Result.
    pub c: MatrixView,
    /// Add to the result's old value.
    pub accumulate: bool,
    /// Each c equals its transpose, because b is aᵀ: one triangle of it need be computed.
    pub symmetric: bool,
}

/// Which operand of a product.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Side {
    /// a.
    Left,
    /// b.
    Right,
}

/// Products of one operand with others, none of which waits for another. They have `batch`, `k` and the view of that
/// operand in common, so their results lie side by side: with the left one shared along columns, with the right one
/// along rows.
#[derive(Clone, PartialEq, Debug)]
pub struct Matmuls {
    /// The operand that they share.
    pub shared: Side,
    /// The products, two or more, each a [`Kernel::Matmul`] or a [`Kernel::MatmulRegion`].
    pub members: Vec<Kernel>,
}

/// Shapes of causal attention: q, o [batch, time, heads, dim], k [batch, time, kv_heads, dim],
/// v [batch, time, kv_heads, dim], lse [batch, time, heads], all row-major and contiguous.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: usize,
    /// Positions.
    pub time: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; query head h reads head h / (heads / kv_heads).
    pub kv_heads: usize,
    /// Width of a head.
    pub dim: usize,
    /// Factor on q · k before the softmax.
    pub scale: f32,
}

impl Matmul {
    /// cᵀ = bᵀ · aᵀ: the same numbers at the same places, with b for the left operand and a for the right one.
    pub fn transposed(&self) -> Matmul {
        let turned = |x: MatrixView| MatrixView { row: x.col, col: x.row, ..x };
        let (a, b, c) = (turned(self.b), turned(self.a), turned(self.c));
        Matmul { m: self.n, n: self.m, a, b, c, ..self.clone() }
    }

    /// The same product, not added to anything, into memory of its own without gaps.
    pub fn densely(&self) -> Matmul {
        let c = MatrixView { offset: 0, batch: self.m * self.n, row: self.n, col: 1 };
        Matmul { c, accumulate: false, ..self.clone() }
    }
}

impl Matmuls {
    /// Positions of a member's arguments among those of all.
    pub fn args(&self, member: usize) -> Vec<usize> {
        let own = |kernel: &Kernel| kernel.arg_count() - 1;
        let first = 1 + self.members[..member].iter().map(own).sum::<usize>();
        let mut args: Vec<usize> = (first..first + own(&self.members[member])).collect();
        args.insert(usize::from(self.shared == Side::Right), 0);
        args
    }

    /// The products, without their regions.
    pub fn products(&self) -> impl Iterator<Item = &Matmul> {
        self.members.iter().filter_map(Kernel::product)
    }
}

impl Kernel {
    /// Number of arguments.
    pub fn arg_count(&self) -> usize {
        match self {
            Kernel::Region(region) => region.args.len(),
            Kernel::Matmul(_) | Kernel::ScatterAdd { .. } => 3,
            Kernel::MatmulRegion(_, region) => 1 + region.args.len(),
            Kernel::Matmuls(all) => 1 + all.members.iter().map(|m| m.arg_count() - 1).sum::<usize>(),
            Kernel::Attention(_) => 5,
            Kernel::AttentionGrad(_) => 9,
            Kernel::Copy { .. } => 2,
        }
    }

    /// The contraction of a single product.
    pub fn product(&self) -> Option<&Matmul> {
        match self {
            Kernel::Matmul(m) | Kernel::MatmulRegion(m, _) => Some(m),
            _ => None,
        }
    }

    /// Its regions, each with the positions among the launch's arguments of the region's own; none of a product's result.
    pub fn regions(&self) -> Vec<(&Region, Vec<Option<usize>>)> {
        match self {
            Kernel::Region(region) => vec![(region, (0..region.args.len()).map(Some).collect())],
            Kernel::MatmulRegion(_, region) => {
                vec![(region, [None].into_iter().chain((2..self.arg_count()).map(Some)).collect())]
            }
            Kernel::Matmuls(all) => {
                let of = |(i, member)| {
                    let own = all.args(i);
                    Kernel::regions(member).into_iter().map(move |(region, args)| {
                        (region, args.into_iter().map(|at| at.map(|at| own[at])).collect())
                    })
                };
                all.members.iter().enumerate().flat_map(of).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A kernel family with its parameters.
#[derive(Clone, PartialEq, Debug)]
pub enum Kernel {
    /// A fused region; its arguments are the region's.
    Region(Region),
    /// A contraction. Arguments: a, b, c.
    Matmul(Matmul),
    /// A contraction whose result a region takes up where it is computed. The result, rounded to the type of the
    /// region's argument 0, is that argument, which is in no buffer. The region's rows are the result's rows in
    /// order, or equal parts of them, and its lanes are their columns. It loads argument 0 only at its own place, and
    /// its rows do not meet. Arguments: a, b, then the region's from 1 on. `c` is of no meaning.
    MatmulRegion(Matmul, Region),
    /// Several contractions that share an operand. Arguments: that operand, then of each in turn all others of its own
    /// arguments.
    Matmuls(Matmuls),
    /// Arguments: q, k, v, o (written), lse (written).
    Attention(AttentionShape),
    /// Arguments: q, k, v, o, lse, do, then dq, dk, dv (written).
    AttentionGrad(AttentionShape),
    /// out[id] = Σ rows with that id, in order of position; rows without any are zero.
    /// Arguments: ids [count], values [count, width], out [rows, width] (written).
    ScatterAdd {
        /// Rows of the result.
        rows: usize,
        /// Elements of a row.
        width: usize,
        /// Ids.
        count: usize,
    },
    /// Copies `len` elements. Arguments: from, to (written).
    Copy {
        /// Elements.
        len: usize,
    },
}

/// One kernel run on some buffers.
#[derive(Clone, PartialEq, Debug)]
pub struct Launch {
    /// What runs.
    pub kernel: KernelId,
    /// Its arguments.
    pub args: Vec<BufferId>,
    /// What it computes: ops, scopes and source lines.
    pub provenance: Provenance,
    /// Floating point operations.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
}

impl Launch {
    /// What it computes, in a line for people.
    pub fn note(&self) -> String {
        self.provenance.to_string()
    }
}

/// What a buffer holds after a launch: a value of the graph as the last pass over graphs left it
/// ([`Pass::Rematerialize`](crate::pipeline::Pass::Rematerialize)). Only for holding plans to their graphs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Computed {
    /// Position of the launch.
    pub launch: usize,
    /// The buffer, which the launch writes.
    pub buffer: BufferId,
    /// The value. Where several launches write parts of it, or add to it, it is whole after the last of them.
    pub value: ValueId,
}

/// One program, ready to run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Plan {
    /// Name of the program.
    pub program: String,
    /// Buffers.
    pub buffers: Vec<Buffer>,
    /// Kernels, each once.
    pub kernels: Vec<Kernel>,
    /// Launches in order.
    pub launches: Vec<Launch>,
    /// What launches leave in buffers, in their order.
    pub computed: Vec<Computed>,
    /// Bytes of the arena that temporaries share.
    pub arena_bytes: usize,
}
