//! What passes do, counted: one name for each rewrite, so that a search for miscompilations can say which of them it
//! has reached. Counts are of the process. A pass must count where it rewrites, and never decide by a count.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! rewrites {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// A rewrite of a pass.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Rewrite {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Rewrite {
            /// Every rewrite, in the order of the passes.
            pub const ALL: &[Rewrite] = &[$(Rewrite::$name,)+];
        }
    };
}

rewrites! {
    /// `concatenate_k`: a sum of dots becomes one over segments of k.
    ConcatenateK,
    /// `precision`: an operand of a contraction or of attention is stored as the target's tensor cores take it.
    RoundOperand,
    /// `precision`: an activation is stored rounded.
    RoundActivation,
    /// `precision`: a view is taken of the rounded value.
    ViewOfRounded,
    /// `cached_weights`: a quantised or rounded weight is written to state.
    WriteCachedWeight,
    /// `cached_weights`: a quantised or rounded weight is read from state.
    ReadCachedWeight,
    /// `canonicalize`: a node that no output needs is dropped.
    DropDead,
    /// `canonicalize`: an op that changes nothing is dropped.
    DropIdentity,
    /// `canonicalize`: a reduction over axes of size 1 only is dropped.
    DropReduction,
    /// `canonicalize`: a reshape of a reshape becomes one.
    MergeReshapes,
    /// `canonicalize`: a contraction's operand is transposed to [batch, free, contract].
    TransposeOperand,
    /// `canonicalize`: the transpose of x · xᵀ is x · xᵀ.
    DropSymmetricTranspose,
    /// `rematerialize`: the backward pass computes an operand of a library kernel again.
    RematerializeOperand,
    /// `rematerialize`: the backward pass computes another value again.
    RematerializeValue,
    /// `fold_constants`: a value is one number.
    FoldUniform,
    /// `fold_constants`: a value becomes a constant buffer.
    FoldTable,
    /// `materialize`: a contraction writes a view of its result.
    WriteView,
    /// `materialize`: a contraction adds to a state slot.
    AccumulateIntoSlot,
    /// `materialize`: a library kernel rounds its result as it writes.
    RoundAsWritten,
    /// `materialize`: a reduction over rows is kept.
    KeepColumnReduction,
    /// `materialize`: a long chain of instructions is cut.
    CutChain,
    /// `materialize`: a value is kept that would be computed for many rows.
    KeepRepeated,
    /// `materialize`: a value is kept that one region would compute at many points.
    KeepManyPoints,
    /// `materialize`: a value is kept that several kernels read.
    KeepShared,
    /// `materialize`: a view is copied, for a kernel that cannot walk it.
    CopyView,
    /// `materialize`: part of a value is kept, since its region would bind too many buffers.
    SplitBindings,
    /// `materialize`: emission asks for a value to be kept.
    KeepForEmission,
    /// `emit`: an axis of rows is split.
    SplitRows,
    /// `emit`: an axis of columns is split, both parts of it columns.
    SplitColumns,
    /// `emit`: an axis of columns is split, its outer part a row axis.
    SplitColumnsIntoRows,
    /// `emit`: elements outside a pad or shift become zero.
    ZeroOutside,
    /// `fuse`: regions are joined, and a value between them leaves memory.
    JoinThroughRegisters,
    /// `fuse`: regions are joined that both still store all they did.
    JoinSideBySide,
    /// `fuse`: a join is refused, since a third launch waits between the two.
    RefuseCycle,
    /// `fuse_epilogues`: a region takes a contraction's result from registers.
    AttachEpilogue,
    /// `fuse_epilogues`: likewise, and the result is written, too.
    AttachEpilogueAndStore,
    /// `fuse_epilogues`: a region's long rows are split into the result's.
    SplitEpilogueRows,
    /// `fuse_horizontally`: contractions share their left operand.
    ShareLeft,
    /// `fuse_horizontally`: contractions share their right operand.
    ShareRight,
    /// `order`: an output is computed in its slot, which the program does not read.
    WriteSlot,
    /// `order`: an output is computed over the slot's old value.
    OverwriteSlot,
    /// `order`: an output is copied into its slot at the end.
    CopyToSlot,
    /// `order`: a slot's old value is saved before the slot is overwritten.
    SaveSlot,
}

static COUNTS: [AtomicU64; Rewrite::ALL.len()] = [const { AtomicU64::new(0) }; Rewrite::ALL.len()];

impl Rewrite {
    /// Counts it.
    pub(crate) fn taken(self) {
        COUNTS[self as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often passes have taken it in this process.
    pub fn count(self) -> u64 {
        COUNTS[self as usize].load(Ordering::Relaxed)
    }
}
