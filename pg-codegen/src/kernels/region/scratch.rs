//! A region's shared memory: each buffer is made when it is first used, and used by all steps that need one like it. A step
//! ends with a barrier, so that the next may write. [`super::shared_bytes`] counts what is made here.

use cubecl::prelude::*;

use super::value::Width;

type Singles = NativeExpand<SharedMemory<Vector<f32, Const<1>>>>;
type Vectors = NativeExpand<SharedMemory<Vector<f32, Width>>>;

/// The buffers.
#[derive(Default)]
pub(super) struct Scratch {
    warps: Option<Singles>,
    single: Option<Singles>,
    wide: Option<Vectors>,
    row_columns: Option<Singles>,
    row_vectors: Option<Vectors>,
}

impl Scratch {
    /// A result of each warp.
    pub(super) fn warps(&mut self, scope: &mut Scope, len: usize) -> Singles {
        made(&mut self.warps, || shared::expand::<Const<1>>(scope, len))
    }

    /// An element of each thread.
    pub(super) fn single(&mut self, scope: &mut Scope, len: usize) -> Singles {
        made(&mut self.single, || shared::expand::<Const<1>>(scope, len))
    }

    /// A vector of each thread.
    pub(super) fn wide(&mut self, scope: &mut Scope, len: usize) -> Vectors {
        made(&mut self.wide, || shared::expand::<Width>(scope, len))
    }

    /// Rows whose columns move one by one.
    pub(super) fn row_columns(&mut self, scope: &mut Scope, len: usize) -> Singles {
        made(&mut self.row_columns, || shared::expand::<Const<1>>(scope, len))
    }

    /// Rows whose columns move in whole chunks.
    pub(super) fn row_vectors(&mut self, scope: &mut Scope, len: usize) -> Vectors {
        made(&mut self.row_vectors, || shared::expand::<Width>(scope, len))
    }
}

fn made<T: Clone>(buffer: &mut Option<T>, make: impl FnOnce() -> T) -> T {
    buffer.get_or_insert_with(make).clone()
}

#[cube]
fn shared<N: Size>(#[comptime] len: usize) -> SharedMemory<Vector<f32, N>> {
    SharedMemory::<Vector<f32, N>>::new(len)
}
