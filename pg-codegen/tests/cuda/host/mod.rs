//! Emitted CUDA C++ executed on the CPU: compiled by the system's C++ compiler over headers that define
//! CUDA's built-ins, and run with every access watched. It judges memory and order; numbers are for the
//! tests that use it.

mod memory;

use std::ffi::{CStr, c_char, c_int};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use libloading::Library;
use pg_testing::host_source::host_source;

pub(crate) use self::memory::{Allocation, Buffer};

/// A kernel's source, and how it is launched.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) threads: u32,
    pub(crate) shared_bytes: usize,
}

/// Kernels compiled for the CPU.
pub(crate) struct Kernels {
    sources: Vec<(u32, usize)>,
    // One launch at a time: the headers' state is the library's.
    library: Mutex<Library>,
}

/// In which order the threads of a block go on, where CUDA leaves it open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Forward,
    Backward,
}

#[repr(C)]
struct Launch {
    args: *const memory::Arg,
    count: usize,
    threads: u32,
    grid: [u32; 3],
    shared_bytes: usize,
    reversed: c_int,
}

impl Kernels {
    /// Compiles kernels, or says what the compiler says.
    pub(crate) fn compile(sources: &[Source]) -> Kernels {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("pg-cuda-on-cpu-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut text = String::from("#include \"cuda_instructions.h\"\n");
        for (i, s) in sources.iter().enumerate() {
            text += &host_source(&s.text, &s.name, i);
        }
        std::fs::write(folder.join("kernels.cpp"), text).unwrap();
        let library = build(&folder);
        // The file may go: what is loaded stays.
        std::fs::remove_dir_all(&folder).unwrap();
        let sources = sources.iter().map(|s| (s.threads, s.shared_bytes)).collect();
        Kernels { sources, library: Mutex::new(library) }
    }

    /// Launches a kernel; the first fault, if there is one.
    pub(crate) fn run(
        &self,
        kernel: usize,
        buffers: &[Buffer<'_>],
        grid: [u32; 3],
        order: Order,
    ) -> Result<(), String> {
        type Run = unsafe extern "C" fn(*const Launch, *mut c_char, usize) -> c_int;
        let memories: Vec<memory::Memory> = buffers.iter().map(|b| b.allocation.raw()).collect();
        // Buffers of one allocation must show it by one address.
        let first =
            |b: &Buffer<'_>| buffers.iter().position(|o| std::ptr::eq(o.allocation, b.allocation)).unwrap();
        let args: Vec<memory::Arg> = buffers.iter().map(|b| b.raw(&memories[first(b)])).collect();
        let (threads, shared_bytes) = self.sources[kernel];
        let launch = Launch {
            args: args.as_ptr(),
            count: args.len(),
            threads,
            grid,
            shared_bytes,
            reversed: c_int::from(order == Order::Backward),
        };
        let mut message = vec![0u8; 1024];
        let library = self.library.lock().unwrap();
        // SAFETY: the structures are those of the header, and live during the call; what a kernel may touch is
        // checked there against the allocations' sizes.
        let faults = unsafe {
            let run: libloading::Symbol<'_, Run> = library.get(format!("run_{kernel}\0")).unwrap();
            run(&launch, message.as_mut_ptr().cast(), message.len())
        };
        match faults {
            0 => Ok(()),
            _ => Err(CStr::from_bytes_until_nul(&message).unwrap().to_string_lossy().into_owned()),
        }
    }
}

fn build(folder: &Path) -> Library {
    let headers = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cuda/host");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut command = Command::new(&compiler);
    // Sums as written: no contraction, which would round otherwise than the interpreter.
    command.args(["-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-ffp-contract=off", "-I", headers]);
    command.args(["kernels.cpp", "-o", "kernels.so"]).current_dir(folder);
    let output = command.output().unwrap_or_else(|e| panic!("{compiler}, a C++ compiler, does not run: {e}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: the library has no initialisers but those of empty containers.
    unsafe { Library::new(folder.join("kernels.so")).unwrap() }
}
