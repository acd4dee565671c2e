//! Memory of launch arguments, shared by the tasks of a launch. The one place where bounds are not
//! checked at each access; everything that makes that right was checked when the plan was bound.

use pg_ir::ty::DType;

use super::aligned::Element;
use super::math;

/// One argument of one launch.
///
/// Tasks on several threads read and write through copies of it. That no task writes what another
/// touches is not checked here: binding proves it (stores are injective, and what a launch both reads
/// and writes it reads at the very indices that it writes).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arg {
    ptr: *mut u8,
    len: usize,
    dtype: DType,
}

// SAFETY: an `Arg` is a pointer into memory that `CpuExecutor::run` holds borrowed for the whole launch;
// the accessors' contract excludes conflicting accesses.
unsafe impl Send for Arg {}
// SAFETY: as above.
unsafe impl Sync for Arg {}

impl Arg {
    /// Memory of `len` elements. Read-only memory may be passed: binding rejects plans that write it.
    pub(crate) fn new(ptr: *mut u8, len: usize, dtype: DType) -> Self {
        Arg { ptr, len, dtype }
    }

    /// Element type.
    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The same memory as bytes.
    pub(crate) fn as_bytes(self) -> Arg {
        Arg { len: self.len * self.dtype.size(), dtype: DType::Bool, ..self }
    }

    /// Address range, for overlap checks and tests.
    pub(crate) fn addresses(&self) -> std::ops::Range<usize> {
        let start = self.ptr as usize;
        start..start + self.len * self.dtype.size()
    }

    /// Whether elements `start .. start + len` exist.
    #[inline(always)]
    pub(crate) fn holds(&self, start: i64, len: usize) -> bool {
        start >= 0 && len <= self.len && start as usize <= self.len - len
    }

    /// Elements of a stored type.
    ///
    /// # Safety
    /// The range must be inside, `T` must be the argument's element type, and no other task may write
    /// the range while the slice lives.
    #[inline(always)]
    pub(crate) unsafe fn read<'a, T: Stored>(self, start: usize, len: usize) -> &'a [T] {
        debug_assert!(self.holds(start as i64, len), "{start}+{len} of {}", self.len);
        debug_assert_eq!(size_of::<T>(), self.dtype.size());
        // SAFETY: in bounds by the caller's promise; memory is aligned to its element type and any bits
        // are a valid `T`.
        unsafe { std::slice::from_raw_parts(self.ptr.cast::<T>().add(start), len) }
    }

    /// Elements of a stored type, to write.
    ///
    /// # Safety
    /// As for [`Self::read`], and no other task may read the range either.
    #[inline(always)]
    pub(crate) unsafe fn write<'a, T: Stored>(self, start: usize, len: usize) -> &'a mut [T] {
        debug_assert!(self.holds(start as i64, len), "{start}+{len} of {}", self.len);
        debug_assert_eq!(size_of::<T>(), self.dtype.size());
        // SAFETY: as in `read`, and exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.cast::<T>().add(start), len) }
    }

    /// Writes float32 numbers, rounded where the argument stores bfloat16.
    ///
    /// # Safety
    /// As for [`Self::write`]; the argument's elements are floats.
    #[inline(always)]
    pub(crate) unsafe fn write_floats(self, start: usize, len: usize, number: impl Fn(usize) -> f32) {
        // SAFETY: by the caller's promise.
        unsafe {
            if self.dtype == DType::BF16 {
                let to = self.write::<u16>(start, len).iter_mut();
                to.enumerate().for_each(|(i, t)| *t = math::to_bf16(number(i)));
            } else {
                self.write::<f32>(start, len).iter_mut().enumerate().for_each(|(i, t)| *t = number(i));
            }
        }
    }

    /// Pointer to an element, for routines that take strides.
    #[inline(always)]
    pub(crate) fn at(self, offset: usize) -> *mut u8 {
        debug_assert!(offset <= self.len);
        self.ptr.wrapping_add(offset * self.dtype.size())
    }
}

/// Types that elements are stored as: 32 bits, bfloat16 bits, or a boolean byte.
pub(crate) trait Stored: bytemuck::Pod {}
impl<T: Element> Stored for T {}
impl Stored for u16 {}
impl Stored for u8 {}
