//! Failing system calls: a command whose calls on the files of one folder are counted, and of which one fails, or all from one on,
//! or all writes once the disk is full. `faults.c` does it, a library that is compiled here.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// `ENOENT` and the like are answers; these are faults.
pub const EIO: i32 = 5;
/// A full disk.
pub const ENOSPC: i32 = 28;

/// What a command's system calls meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing: they are counted.
    None,
    /// The call of this number, from 1 on, ends with an error.
    Once(u64, i32),
    /// All from this one on do: the device is gone.
    From(u64, i32),
    /// All from the `nth` call on do whose name begins so and that is of this file, relative to the folder.
    FromCall {
        /// How its name begins: `rename`.
        name: &'static str,
        /// The file.
        path: &'static str,
        /// Which of these calls, from 1 on.
        nth: u64,
        /// What it and all after it end with.
        error: i32,
    },
    /// The call of this number moves half of its bytes.
    Short(u64),
    /// So many bytes can be written, and no more.
    Room(u64),
}

/// A call on a file of the folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Its number, from 1 on.
    pub number: u64,
    /// Its name: `openat`.
    pub name: String,
    /// The file, relative to the folder.
    pub path: String,
    /// Whether it was made to fail.
    pub failed: bool,
}

/// The library, compiled.
pub struct Injector {
    folder: TempDir,
}

impl Injector {
    /// Compiles the library and tries it.
    ///
    /// # Errors
    /// Why it cannot be used here: another system, no C compiler, no filters of system calls.
    pub fn new() -> Result<Injector, String> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err("system calls are made to fail on Linux on x86-64 only".into());
        }
        let folder = tempfile::tempdir().map_err(|e| format!("a temporary folder: {e}"))?;
        let source = folder.path().join("faults.c");
        std::fs::write(&source, include_str!("faults.c"))
            .map_err(|e| format!("{}: {e}", source.display()))?;
        let injector = Injector { folder };
        let mut compiler = Command::new("cc");
        compiler.args(["-std=gnu11", "-O1", "-shared", "-fPIC", "-o"]);
        run(compiler.arg(injector.library()).arg(&source), "cc, which links Rust programs, too")?;
        let mut probe = Command::new("true");
        injector.preload(&mut probe, injector.folder.path(), "probe", Fault::None);
        run(&mut probe, "a program with filtered system calls")?;
        Ok(injector)
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("faults.so")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Makes a command's calls on files under `folder` meet a fault. `name` is nobody else's at the time.
    pub fn preload(&self, command: &mut Command, folder: &Path, name: &str, fault: Fault) {
        let _ = std::fs::remove_file(self.log(name));
        let folder = folder.canonicalize().expect("the folder is there");
        command
            .env("LD_PRELOAD", self.library())
            .env("FAULTS_UNDER", folder)
            .env("FAULTS_LOG", self.log(name));
        if let Fault::FromCall { name, path, .. } = fault {
            command.env("FAULTS_NAME", name).env("FAULTS_PATH", path);
        }
        let mut set = |variable: &str, value: u64| {
            command.env(variable, value.to_string());
        };
        match fault {
            Fault::None => {}
            Fault::Room(bytes) => set("FAULTS_ROOM", bytes),
            Fault::FromCall { nth, .. } => set("FAULTS_NTH", nth),
            Fault::Once(number, _) | Fault::From(number, _) | Fault::Short(number) => {
                set("FAULTS_AT", number)
            }
        }
        if let Fault::Once(_, error) | Fault::From(_, error) | Fault::FromCall { error, .. } = fault {
            set("FAULTS_ERRNO", error.unsigned_abs().into());
        }
        if let Fault::From(..) | Fault::FromCall { .. } = fault {
            set("FAULTS_ONWARDS", 1);
        }
    }

    /// The calls of the last command of that name, in their order.
    pub fn calls(&self, name: &str) -> Vec<Call> {
        let log = std::fs::read_to_string(self.log(name)).expect("the library writes a log");
        let mut calls: Vec<Call> = log.lines().map(call).collect();
        calls.sort_by_key(|call| call.number);
        calls
    }
}

fn call(line: &str) -> Call {
    let fields: Vec<&str> = line.splitn(4, ' ').collect();
    let [mark, number, name, path] = fields[..] else { panic!("a line of the log: {line}") };
    Call {
        number: number.parse().expect("a number"),
        name: name.to_owned(),
        path: path.to_owned(),
        failed: mark == "!",
    }
}

fn run(command: &mut Command, what: &str) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{what}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
