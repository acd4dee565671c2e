//! A kernel's instructions, as the disassembler prints them, for assertions about what a kernel became.
//! It counts and finds; it judges nothing.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::tools::ToolsError;

/// One instruction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Instruction {
    /// Bytes from the start of the kernel.
    pub address: u32,
    /// With its modifiers, such as `LDG.E.128.CONSTANT`.
    pub name: String,
    /// With predicate and operands.
    pub text: String,
}

/// The instructions of a kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sass {
    /// As the disassembler printed them.
    pub text: String,
    /// In order.
    pub instructions: Vec<Instruction>,
}

impl Sass {
    /// Disassembles a cubin.
    pub(super) fn of(cubin: &[u8], nvdisasm: &Path) -> Result<Sass, ToolsError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let failed = |why: String| ToolsError::Failed { tool: "nvdisasm", why };
        // It reads files only; the name is this process's and this call's own.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("pg-{}-{number}.cubin", std::process::id()));
        std::fs::write(&file, cubin).map_err(|e| failed(e.to_string()))?;
        let output = Command::new(nvdisasm).args(["--print-code"]).arg(&file).output();
        let _ = std::fs::remove_file(&file);
        let output = output.map_err(|e| failed(e.to_string()))?;
        if !output.status.success() {
            return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let sass = Sass::parse(String::from_utf8_lossy(&output.stdout).into_owned());
        if sass.instructions.is_empty() {
            return Err(failed("it printed no instruction".into()));
        }
        Ok(sass)
    }

    /// What the disassembler printed.
    pub(super) fn parse(text: String) -> Sass {
        let instructions = text.lines().filter_map(instruction).collect();
        Sass { text, instructions }
    }

    /// How many instructions have a name that begins so.
    pub fn count(&self, name: &str) -> usize {
        self.instructions.iter().filter(|i| i.name.starts_with(name)).count()
    }

    /// The loops: from where a branch goes back to, to the branch, as positions in `instructions`. The
    /// branch that ends every kernel, to itself, is none.
    pub fn loops(&self) -> Vec<std::ops::RangeInclusive<usize>> {
        let branches = self.targets().into_iter().enumerate();
        branches.filter_map(|(at, to)| to.filter(|&to| to < at).map(|to| to..=at)).collect()
    }

    /// Of each instruction, where it branches to, as a position.
    pub(super) fn targets(&self) -> Vec<Option<usize>> {
        let at: HashMap<u32, usize> =
            self.instructions.iter().enumerate().map(|(n, i)| (i.address, n)).collect();
        let labels: HashMap<String, u32> = self.labels().into_iter().collect();
        let target = |i: &Instruction| {
            let label = i.text.split(['(', ')']).nth(1).filter(|_| i.name.starts_with("BRA"))?;
            at.get(labels.get(label)?).copied()
        };
        self.instructions.iter().map(target).collect()
    }

    /// The labels, with the address of the instruction after each.
    fn labels(&self) -> Vec<(String, u32)> {
        let mut pending: Vec<String> = Vec::new();
        let mut all = Vec::new();
        for line in self.text.lines() {
            if let Some(label) = line.trim().strip_suffix(':').filter(|l| l.starts_with(".L")) {
                pending.push(label.into());
            } else if let Some(i) = instruction(line) {
                all.extend(pending.drain(..).map(|label| (label, i.address)));
            }
        }
        all
    }
}

/// Parses `        /*00a0*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;`.
fn instruction(line: &str) -> Option<Instruction> {
    let (address, rest) = line.trim().strip_prefix("/*")?.split_once("*/")?;
    let address = u32::from_str_radix(address, 16).ok()?;
    let text = rest.trim().split(';').next()?.trim();
    let name = text.split_whitespace().find(|w| !w.starts_with('@'))?;
    Some(Instruction { address, name: name.into(), text: text.into() })
}
