//! A plan: everything an executor needs to run one program. Buffers with their places, kernels, and a
//! flat list of launches in order. Executors match on kernel families and region instructions only.

mod attention;
mod contraction;
mod copy;
pub(crate) mod cost;
mod family;
mod region;
pub mod result_regions;
mod scatter;
pub mod witness;

use std::sync::Arc;

use pg_ir::graph::ValueId;
use pg_ir::slot::Slot;
use pg_ir::ty::DType;

use self::attention::Attention;
use self::copy::Copy;
use self::family::Family;
use self::scatter::ScatterAdd;
use crate::region::Region;

pub use self::attention::AttentionShape;
pub use self::contraction::{Contraction, Matmul, MatrixView, Member, Segment, Side};
pub use self::family::{Param, ParamType};
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

impl Kernel {
    /// Asks its family.
    fn with<R>(&self, f: impl FnOnce(&dyn Family) -> R) -> R {
        match self {
            Kernel::Region(region) => f(region),
            Kernel::Contraction(contraction) => f(contraction),
            Kernel::Attention(shape) => f(&Attention { shape, is_gradient: false }),
            Kernel::AttentionGrad(shape) => f(&Attention { shape, is_gradient: true }),
            &Kernel::ScatterAdd { rows, width, count } => f(&ScatterAdd { rows, width, count }),
            &Kernel::Copy { len } => f(&Copy { len }),
        }
    }

    /// Its products, one for each segment of k.
    pub fn products(&self) -> impl Iterator<Item = Matmul> + '_ {
        let contraction = if let Kernel::Contraction(contraction) = self { Some(contraction) } else { None };
        contraction.into_iter().flat_map(Contraction::products)
    }

    /// Its regions, each with the positions among the launch's arguments of the region's own; none of a product's result.
    pub fn regions(&self) -> Vec<(&Region, Vec<Option<usize>>)> {
        match self {
            Kernel::Region(region) => vec![(region, (0..region.args.len()).map(Some).collect())],
            Kernel::Contraction(contraction) => {
                let mut regions = Vec::new();
                for (i, member) in contraction.members.iter().enumerate() {
                    let Some(region) = &member.epilogue else { continue };
                    let rest = contraction.args(i).into_iter().skip(member.operand_count()).map(Some);
                    regions.push((region, std::iter::once(None).chain(rest).collect()));
                }
                regions
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
    /// Products of matrices.
    Contraction(Contraction),
    /// Arguments: q, k, v, o (written), lse (written).
    Attention(AttentionShape),
    /// Arguments: q, k, v, o, lse, do, then dq, dk, dv (written).
    AttentionGrad(AttentionShape),
    /// `out[id]` = Σ rows with that id, in order of position; rows without any are zero.
    /// Arguments: ids `[count]`, values `[count, width]`, out `[rows, width]` (written).
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

impl From<Matmul> for Kernel {
    fn from(matmul: Matmul) -> Kernel {
        Kernel::Contraction(Contraction::of(matmul))
    }
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
