//! Vectors of 32-bit elements on pages of their own.

use std::io;

use bytemuck::Pod;
use memmap2::MmapMut;

use crate::memory;

/// Smaller vectors gain nothing from large pages.
const LARGE: usize = 4 << 20;

/// A fixed-length, zero-initialised vector of 32-bit elements that starts on a page.
///
/// Fresh pages come from the operating system already zeroed, so one costs nothing until used. Large vectors ask
/// for large pages: what a step touches is far beyond what the processor can translate in small ones.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    /// `None` where there are no elements.
    map: Option<MmapMut>,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    ///
    /// # Panics
    /// If the system has no memory left, as any allocation does. What a user's numbers make large is asked for
    /// with [`Self::try_zeroed`].
    pub(crate) fn zeroed(len: usize) -> Self {
        Aligned::try_zeroed(len).unwrap_or_else(|e| panic!("no memory for {len} elements: {e}"))
    }

    /// `len` zeros, if the machine has so much memory: that the system promises it means nothing.
    pub(crate) fn try_zeroed(len: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(4).ok_or(io::ErrorKind::OutOfMemory)?;
        memory::check(bytes as u64)?;
        let map = if len == 0 {
            None
        } else {
            let map = MmapMut::map_anon(bytes)?;
            #[cfg(target_os = "linux")]
            if bytes >= LARGE {
                // Without them everything works, only slower.
                let _ = map.advise(memmap2::Advice::HugePage);
            }
            Some(map)
        };
        Ok(Aligned { map, len })
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The elements as floats, integers or bits.
    pub(crate) fn view<T: Element>(&self) -> &[T] {
        self.map.as_ref().map_or(&[], |map| bytemuck::cast_slice(&map[..4 * self.len]))
    }

    /// Pointer to the first element. Borrows no element: earlier pointers stay good.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u32 {
        self.map.as_mut().map_or(std::ptr::dangling_mut(), |map| map.as_mut_ptr().cast())
    }

    /// The elements as floats, integers or bits.
    pub(crate) fn view_mut<T: Element>(&mut self) -> &mut [T] {
        self.map.as_mut().map_or(&mut [], |map| bytemuck::cast_slice_mut(&mut map[..4 * self.len]))
    }
}

/// The 32-bit element types.
pub(crate) trait Element: Pod {}
impl Element for f32 {}
impl Element for i32 {}
impl Element for u32 {}
