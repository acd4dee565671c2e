//! A source compiled for Hopper, and what the kernel uses of a multiprocessor. The options are those of
//! CubeCL's CUDA server; what is compiled here is what it would run.

use std::path::Path;

use super::sass::Sass;
use super::tools::{Tools, ToolsError};

/// What the server's compiler is asked for: Hopper with its own instructions, and source lines in the
/// binary (`cubecl-cuda/src/compute/context.rs`).
pub fn server_options(include: &Path) -> Vec<String> {
    let headers = |folder: &Path| format!("--include-path={}", folder.display());
    vec![
        "--gpu-architecture=sm_90a".into(),
        headers(include),
        "-lineinfo".into(),
        headers(&include.join("cccl")),
    ]
}

/// Makes the assembler say what a kernel uses; it changes no instruction (a test holds it to that).
const REPORT: &str = "--ptxas-options=-v";

/// What a kernel uses, from the assembler's report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resources {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes a thread stores and loads because registers did not suffice.
    pub spill_bytes: u32,
    /// Bytes of a thread's stack, spills included.
    pub stack_bytes: u32,
    /// Bytes of shared memory declared in the source. What a launch asks for comes on top: CubeCL's kernels
    /// declare none.
    pub shared_bytes: u32,
    /// Named barriers.
    pub barriers: u32,
}

/// A kernel for `sm_90a`.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Its PTX.
    pub ptx: String,
    /// The binary that a driver loads, an ELF file.
    pub cubin: Vec<u8>,
    /// What it uses.
    pub resources: Resources,
    /// The compiler's log, with the assembler's report.
    pub log: String,
    tools: Tools,
}

impl Tools {
    /// Compiles one emitted kernel.
    ///
    /// # Errors
    /// If the compiler refuses the source, with its log.
    pub fn compile(&self, source: &str) -> Result<Compiled, ToolsError> {
        let mut options = server_options(&self.include);
        options.push(REPORT.into());
        let output = self.nvrtc.compile(source, &options)?;
        let resources = report(&output.log).ok_or_else(|| ToolsError::Failed {
            tool: "nvrtc",
            why: format!("its log has no report of a kernel:\n{}", output.log),
        })?;
        let ptx = String::from_utf8_lossy(&output.ptx).into_owned();
        Ok(Compiled { ptx, cubin: output.cubin, resources, log: output.log, tools: self.clone() })
    }

    /// The compiler's version, such as (13, 0).
    pub fn version(&self) -> (i32, i32) {
        self.nvrtc.version()
    }

    /// The instructions with the server's options and no other, for the test that the report changes nothing.
    #[cfg(test)]
    pub(super) fn compile_plainly(&self, source: &str) -> Result<Sass, ToolsError> {
        let output = self.nvrtc.compile(source, &server_options(&self.include))?;
        Sass::of(&output.cubin, &self.nvdisasm)
    }
}

impl Compiled {
    /// The kernel's instructions.
    ///
    /// # Errors
    /// If the disassembler does not run.
    pub fn sass(&self) -> Result<Sass, ToolsError> {
        Sass::of(&self.cubin, &self.tools.nvdisasm)
    }
}

/// Reads the assembler's report of the one kernel in a log.
pub(super) fn report(log: &str) -> Option<Resources> {
    let mut all = Resources::default();
    let mut found = false;
    for line in log.lines() {
        // "64 bytes stack frame, 52 bytes spill stores, 48 bytes spill loads", and
        // "ptxas info    : Used 40 registers, used 1 barriers, 64 bytes cumulative stack size, 512 bytes smem".
        let text = line.rsplit(": ").next().unwrap_or(line).trim();
        for part in text.split(", ") {
            let mut words = part.split_whitespace().skip_while(|w| w.eq_ignore_ascii_case("used"));
            let Some(count) = words.next().and_then(|w| w.parse::<u32>().ok()) else { continue };
            match words.collect::<Vec<_>>()[..] {
                ["registers"] => (all.registers, found) = (count, true),
                ["barriers"] => all.barriers = count,
                ["bytes", "smem"] => all.shared_bytes = count,
                ["bytes", "stack", "frame"] => all.stack_bytes = all.stack_bytes.max(count),
                ["bytes", "cumulative", "stack", "size"] => all.stack_bytes = all.stack_bytes.max(count),
                ["bytes", "spill", "stores" | "loads"] => all.spill_bytes += count,
                _ => {}
            }
        }
    }
    found.then_some(all)
}
