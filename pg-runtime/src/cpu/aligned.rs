//! Vectors of 32-bit elements that start on a cache line.

use bytemuck::{Pod, Zeroable};

/// One cache line, the unit of allocation.
#[derive(Clone, Copy, Pod, Zeroable, Debug)]
#[repr(C, align(64))]
struct Line([u32; LINE]);

const LINE: usize = 16;

/// A fixed-length, zero-initialised vector of 32-bit elements on a 64-byte boundary.
///
/// Fresh pages come from the operating system already zeroed, so a large one costs nothing until used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        Aligned { lines: bytemuck::zeroed_vec(len.div_ceil(LINE)), len }
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The elements as floats, integers or bits.
    pub(crate) fn view<T: Element>(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }

    /// Pointer to the first element. Borrows no element: earlier pointers stay good.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u32 {
        self.lines.as_mut_ptr().cast()
    }

    /// The elements as floats, integers or bits.
    pub(crate) fn view_mut<T: Element>(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// The 32-bit element types.
pub(crate) trait Element: Pod {}
impl Element for f32 {}
impl Element for i32 {}
impl Element for u32 {}
