//! Memory that kernels on the CPU work on: aligned as a driver aligns it, with a flag for each byte that
//! somebody has written.

use std::cell::UnsafeCell;

use half::bf16;
use pg_ir::ty::DType;

#[repr(C, align(256))]
#[derive(Clone, Copy)]
struct Line([u8; 256]);

/// The header's description of an allocation.
#[repr(C)]
pub(super) struct Memory {
    data: *mut u8,
    bytes: usize,
    written: *mut u8,
}

/// The header's description of a buffer.
#[repr(C)]
pub(super) struct Arg {
    memory: *const Memory,
    offset: usize,
    bytes: usize,
}

/// An allocation of a device.
pub(crate) struct Allocation {
    // Kernels write through pointers, one launch at a time.
    data: UnsafeCell<Vec<Line>>,
    written: UnsafeCell<Vec<u8>>,
    bytes: usize,
}

/// A part of an allocation, as a kernel gets it.
#[derive(Clone, Copy)]
pub(crate) struct Buffer<'a> {
    pub(crate) allocation: &'a Allocation,
    /// In bytes.
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// Bytes of an element in a buffer: booleans take a word.
fn size(dtype: DType) -> usize {
    if dtype == DType::BF16 { 2 } else { 4 }
}

impl Allocation {
    /// Memory that nobody has written.
    pub(crate) fn new(bytes: usize) -> Allocation {
        // What must not be read is no innocent number.
        let data = UnsafeCell::new(vec![Line([0xff; 256]); bytes.div_ceil(256)]);
        Allocation { data, written: UnsafeCell::new(vec![0; bytes]), bytes }
    }

    /// Memory that holds some values.
    pub(crate) fn holding(dtype: DType, values: &[f64]) -> Allocation {
        let allocation = Allocation::new(size(dtype) * values.len());
        allocation.whole().write(dtype, values);
        allocation
    }

    /// All of it as a buffer.
    pub(crate) fn whole(&self) -> Buffer<'_> {
        Buffer { allocation: self, offset: 0, bytes: self.bytes }
    }

    pub(super) fn raw(&self) -> Memory {
        // SAFETY: only addresses are taken.
        unsafe {
            let (data, written) = (&mut *self.data.get(), &mut *self.written.get());
            Memory { data: data.as_mut_ptr().cast(), bytes: self.bytes, written: written.as_mut_ptr() }
        }
    }
}

impl Buffer<'_> {
    pub(super) fn raw(&self, memory: &Memory) -> Arg {
        assert!(self.offset + self.bytes <= memory.bytes);
        Arg { memory, offset: self.offset, bytes: self.bytes }
    }

    fn with<T>(&self, f: impl FnOnce(&mut [u8], &mut [u8]) -> T) -> T {
        let memory = self.allocation.raw();
        assert!(self.offset + self.bytes <= memory.bytes);
        // SAFETY: in bounds, and nothing else refers to the bytes while this runs.
        unsafe {
            let data = std::slice::from_raw_parts_mut(memory.data.add(self.offset), self.bytes);
            let written = std::slice::from_raw_parts_mut(memory.written.add(self.offset), self.bytes);
            f(data, written)
        }
    }

    /// Writes values as elements of a type.
    pub(crate) fn write(&self, dtype: DType, values: &[f64]) {
        let encode = |&x: &f64| -> Vec<u8> {
            match dtype {
                DType::F32 => (x as f32).to_le_bytes().into(),
                DType::BF16 => bf16::from_f32(x as f32).to_le_bytes().into(),
                DType::I32 => (x as i32).to_le_bytes().into(),
                DType::Bool => u32::from(x != 0.0).to_le_bytes().into(),
            }
        };
        let bytes: Vec<u8> = values.iter().flat_map(encode).collect();
        self.with(|data, written| {
            data[..bytes.len()].copy_from_slice(&bytes);
            written[..bytes.len()].fill(1);
        });
    }

    /// The elements.
    pub(crate) fn read(&self, dtype: DType) -> Vec<f64> {
        let word = |b: &[u8]| [b[0], b[1], b[2], b[3]];
        let decode = |b: &[u8]| match dtype {
            DType::F32 => f64::from(f32::from_le_bytes(word(b))),
            DType::BF16 => f64::from(bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            DType::I32 => f64::from(i32::from_le_bytes(word(b))),
            DType::Bool => f64::from(u32::from_le_bytes(word(b))),
        };
        self.with(|data, _| data.chunks_exact(size(dtype)).map(decode).collect())
    }

    /// Forgets what was written here.
    pub(crate) fn forget(&self) {
        self.with(|data, written| {
            data.fill(0xff);
            written.fill(0);
        });
    }
}
