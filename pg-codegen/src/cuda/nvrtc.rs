//! The few functions of NVRTC, CUDA's compiler as a library, loaded at run time. It knows no option and no
//! kernel: text and options in, PTX, cubin and log out.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::ptr::null;

use libloading::Library;

use super::tools::ToolsError;

type NvrtcProgram = *mut std::ffi::c_void;
type Status = c_int;
type SizeOf = unsafe extern "C" fn(NvrtcProgram, *mut usize) -> Status;
type Copy = unsafe extern "C" fn(NvrtcProgram, *mut c_char) -> Status;

/// NVRTC, open for as long as this lives.
pub(super) struct Nvrtc {
    version: (i32, i32),
    error: unsafe extern "C" fn(Status) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut NvrtcProgram,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(NvrtcProgram, c_int, *const *const c_char) -> Status,
    destroy: unsafe extern "C" fn(*mut NvrtcProgram) -> Status,
    log: (SizeOf, Copy),
    ptx: (SizeOf, Copy),
    cubin: (SizeOf, Copy),
    // Last, for fields are dropped in order: the functions lie in it.
    _library: Library,
    _builtins: Library,
}

impl std::fmt::Debug for Nvrtc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Nvrtc {}.{}", self.version.0, self.version.1)
    }
}

/// What a compilation gave.
pub(super) struct Output {
    pub(super) ptx: Vec<u8>,
    pub(super) cubin: Vec<u8>,
    pub(super) log: String,
}

impl Nvrtc {
    /// Loads the library.
    pub(super) fn open(file: &Path) -> Result<Nvrtc, ToolsError> {
        let unusable = |e: libloading::Error| ToolsError::Unusable { file: file.into(), why: e.to_string() };
        // SAFETY: NVRTC's initialisers have no precondition. The types are those of nvrtc.h, which has kept them
        // since version 11.
        unsafe {
            // NVRTC opens its second library by name, which finds it only if it is open already.
            let builtins = Library::new(builtins(file)?).map_err(unusable)?;
            let library = Library::new(file).map_err(unusable)?;
            macro_rules! get {
                ($name:literal) => {
                    *library.get($name).map_err(unusable)?
                };
            }
            let read: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status = get!(b"nvrtcVersion\0");
            let mut version = (0, 0);
            read(&mut version.0, &mut version.1);
            Ok(Nvrtc {
                version,
                error: get!(b"nvrtcGetErrorString\0"),
                create: get!(b"nvrtcCreateProgram\0"),
                compile: get!(b"nvrtcCompileProgram\0"),
                destroy: get!(b"nvrtcDestroyProgram\0"),
                log: (get!(b"nvrtcGetProgramLogSize\0"), get!(b"nvrtcGetProgramLog\0")),
                ptx: (get!(b"nvrtcGetPTXSize\0"), get!(b"nvrtcGetPTX\0")),
                cubin: (get!(b"nvrtcGetCUBINSize\0"), get!(b"nvrtcGetCUBIN\0")),
                _library: library,
                _builtins: builtins,
            })
        }
    }

    /// Its version, such as (13, 0).
    pub(super) fn version(&self) -> (i32, i32) {
        self.version
    }

    /// Compiles a source.
    pub(super) fn compile(&self, source: &str, options: &[String]) -> Result<Output, ToolsError> {
        let text = |s: &str| {
            CString::new(s).map_err(|_| ToolsError::Rejected { log: "the source holds a zero byte".into() })
        };
        let source = text(source)?;
        let options = options.iter().map(|o| text(o)).collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
        let mut program: NvrtcProgram = std::ptr::null_mut();
        // SAFETY: the strings live until the program is destroyed, which is before this returns; the program is
        // used by this thread only.
        unsafe {
            // Without a name, as CubeCL's server: the name is part of the line table.
            self.check((self.create)(&mut program, source.as_ptr(), null(), 0, null(), null()))?;
            let status = (self.compile)(program, pointers.len() as c_int, pointers.as_ptr());
            let log = self.read(program, self.log).map(|b| String::from_utf8_lossy(&b).into_owned());
            let output = match (status, log) {
                (0, Ok(log)) => self.outputs(program, log),
                (_, Ok(log)) => Err(ToolsError::Rejected { log }),
                (_, Err(e)) => Err(e),
            };
            (self.destroy)(&mut program);
            output
        }
    }

    /// Reads what a compilation gave.
    ///
    /// # Safety
    /// The program must be one of this library's that was compiled and is not destroyed.
    unsafe fn outputs(&self, program: NvrtcProgram, log: String) -> Result<Output, ToolsError> {
        // SAFETY: by the caller's promise.
        let (ptx, cubin) = unsafe { (self.read(program, self.ptx)?, self.read(program, self.cubin)?) };
        Ok(Output { ptx, cubin, log })
    }

    /// Reads one of a program's results, without the zero that ends a text.
    ///
    /// # Safety
    /// The program must be one of this library's that is not destroyed.
    unsafe fn read(
        &self,
        program: NvrtcProgram,
        (size, copy): (SizeOf, Copy),
    ) -> Result<Vec<u8>, ToolsError> {
        let mut bytes = 0;
        // SAFETY: the program is alive by the caller's promise, and the buffer has the size that NVRTC asked for.
        unsafe {
            self.check(size(program, &mut bytes))?;
            let mut buffer = vec![0u8; bytes];
            self.check(copy(program, buffer.as_mut_ptr().cast()))?;
            if buffer.last() == Some(&0) && !buffer.starts_with(b"\x7fELF") {
                buffer.pop();
            }
            Ok(buffer)
        }
    }

    fn check(&self, status: Status) -> Result<(), ToolsError> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: NVRTC gives a static text for every status.
        let why = unsafe { CStr::from_ptr((self.error)(status)) };
        Err(ToolsError::Failed { tool: "nvrtc", why: why.to_string_lossy().into_owned() })
    }
}

/// The library beside NVRTC that it needs, whatever its version.
fn builtins(file: &Path) -> Result<PathBuf, ToolsError> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let named = |p: &PathBuf| {
        p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("libnvrtc-builtins.so."))
    };
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    files.filter(named).min().ok_or_else(|| ToolsError::Missing {
        what: "the second library of CUDA's compiler (libnvrtc-builtins.so)".into(),
        folder: folder.into(),
    })
}
