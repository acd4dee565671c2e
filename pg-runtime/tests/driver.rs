//! CubeCL's CUDA server on a driver without a GPU (`driver/fake_cuda.cpp`): devices are probed, bundles are read,
//! kernels are loaded and launched. What a GPU would compute is then left out, or computed by the very kernels,
//! compiled for the host. It shows what is asked of a driver, and nothing of how fast a GPU would be.
//!
//! It needs a C++ compiler and CUDA's (`scripts/cuda-tools`), and the feature `cuda`.

#![cfg(feature = "cuda")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pg_codegen::cuda::Tools;
use pg_codegen::kernels::emit_cuda;
use pg_codegen::machine::H100;
use pg_runtime::device::{Device, DeviceName};
use pg_runtime::gpu::run_recipe;
use pg_runtime::run::{JobOptions, RunOptions, requests};
use pg_testing::host_source::host_source;
use serde_json::Value;

const SMALL: &str = r#"pg_macros::model! {
    /// Attention over embeddings.
    small {
        const VOCAB = 1024;
        const DIM = 64;

        fn forward(tokens) {
            let x = gather(param("emb.weight", [VOCAB, DIM], normal(1.0)), tokens);
            linear(x + attention(x, 2, 1, 32), param("head.weight", [VOCAB, DIM], orthogonal))
        }

        optim { "*" => adamw(lr = 0.01) }
        train { batch_tokens = 128; micro_batch_tokens = 64; seq_len = 32; steps = 2; ema_decay = 0.5; }
        eval {
            seq_len = 32;
            stride = 16;
            max_targets = 96;
            ttt { chunk = 32; lr = 0.001; epochs = 1; batch_seqs = 2; }
        }
    }
}
"#;

/// A machine with the fake driver, a model and its bundle.
struct Machine(tempfile::TempDir);

impl Machine {
    /// `None` if the test cannot run here.
    fn new() -> Option<Machine> {
        let require = std::env::var_os("PG_REQUIRE_CUDA_TOOLS").is_some_and(|v| v == "1");
        let skip = |why: String| {
            assert!(!require, "PG_REQUIRE_CUDA_TOOLS=1, but {why}");
            eprintln!("NOT RUN: {why}");
        };
        if let Err(e) = Tools::find() {
            skip(e.to_string());
            return None;
        }
        let machine = Machine(tempfile::tempdir().unwrap());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/driver/fake_cuda.cpp");
        std::fs::create_dir(machine.path("lib")).unwrap();
        let mut compiler = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".into()));
        compiler.args(["-std=c++17", "-O1", "-shared", "-fPIC", "-o"]).arg(machine.path("lib/libcuda.so"));
        let Ok(output) = compiler.arg(source).arg("-ldl").output() else {
            skip("there is no C++ compiler".into());
            return None;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(machine.path("small.rs"), SMALL).unwrap();
        machine.ok(&["build", "small.rs", "--out", "bundle"]);
        Some(machine)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn pg(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pg"));
        command.env("PG_CACHE", self.path("cache"));
        command.env("LD_LIBRARY_PATH", self.path("lib")).env("FAKE_CUDA_LOG", self.path("log"));
        if self.path("host").exists() {
            command.env("FAKE_CUDA_KERNELS", self.path("host"));
        }
        // No toolkit of this machine may help out.
        command.env("CUDA_PATH", "/nowhere").current_dir(self.0.path()).args(args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> Value {
        let output = self.pg(&[args, &["--json"]].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}; {error}"))
    }

    fn refused(&self, args: &[&str]) -> String {
        let output = self.pg(&[args, &["-q"]].concat());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.starts_with("error: ") && error.trim_end().lines().count() == 1, "{error}");
        error
    }

    /// What the driver did in the last process.
    fn driver(&self) -> HashMap<String, u32> {
        let log = std::fs::read_to_string(self.path("log")).unwrap();
        assert!(log.contains("faults 0"), "{log}");
        let words = log.lines().map(|l| l.split(' ').collect::<Vec<_>>());
        words.map(|w| (w[0].to_string(), w[1].parse().unwrap())).collect()
    }
}

const ON_BUNDLE: [&str; 4] = ["--device", "cuda", "--bundle", "bundle"];

/// One test, for the bundle takes the longest.
#[test]
fn cubecls_server_on_a_fake_driver() {
    let Some(machine) = Machine::new() else { return };
    a_run_from_a_bundle_loads_binaries_and_compiles_nothing(&machine);
    what_a_bundle_lacks_is_said_before_the_first_step(&machine);
    a_hopper_device_is_listed_and_without_a_compiler_only_a_bundle_runs(&machine);
    a_run_on_emulated_kernels_is_the_cpus(&machine);
}

/// The whole of a run: what CubeCL's server hands to the driver, executed by the kernels that were emitted.
fn a_run_on_emulated_kernels_is_the_cpus(machine: &Machine) {
    compile_for_the_host(machine);
    let emulated = machine.ok(&[&["run", "small.rs", "--out", "emulated"][..], &ON_BUNDLE].concat());
    let (driver, kernels) = (machine.driver(), emulated["bundle"]["kernels"].as_u64().unwrap() as u32);
    assert_eq!(
        (&emulated["bundle"]["compiled"], &emulated["validation"]["outcome"]),
        (&0.into(), &"passed".into())
    );
    // All but the roof's, which only a profile measures.
    assert!(driver["modules"] >= kernels - 3 && driver["modules"] <= kernels, "{driver:?} of {kernels}");
    let cpu = machine.ok(&["run", "small.rs", "--out", "cpu", "--precision", "bf16"]);
    let close = |what: &str, emulated: Option<f64>, cpu: Option<f64>, tolerance: f64| {
        let (a, b) = (emulated.unwrap_or(f64::NAN), cpu.unwrap_or(f64::NAN));
        println!("{what}: {a} emulated, {b} on the CPU");
        assert!((a - b).abs() <= tolerance * b.abs(), "{what}: {a} emulated, {b} on the CPU");
    };
    let steps = |folder: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(machine.path(folder).join("metrics.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (a, b) = (steps("emulated"), steps("cpu"));
    assert_eq!((a.len(), b.len()), (2, 2));
    for (a, b) in a.iter().zip(&b) {
        // Gradients are of values rounded to bf16, whose sums two devices take in another order.
        close("loss", a["loss"].as_f64(), b["loss"].as_f64(), 1e-4);
        close("gradient norm", a["grad_norm"].as_f64(), b["grad_norm"].as_f64(), 1e-2);
    }
    for score in ["initial", "live", "ema", "quantized", "sliding", "ttt"] {
        close(score, emulated["bpb"][score].as_f64(), cpu["bpb"][score].as_f64(), 1e-3);
    }
}

/// Compiles the bundle's kernels for the host, as `FAKE_CUDA_KERNELS` wants them.
fn compile_for_the_host(machine: &Machine) {
    let options = RunOptions {
        job: JobOptions { model: machine.path("small.rs"), ..JobOptions::default() },
        device: Device::absent(DeviceName::Cuda(0), H100),
        ..RunOptions::default()
    };
    let recipe = run_recipe(&requests(&options, &mut |_| {}).unwrap()).unwrap();
    let (mut text, mut index) = (String::from("#include \"cuda_instructions.h\"\n"), String::new());
    for (number, kernel) in recipe.distinct().into_iter().enumerate() {
        text += &host_source(&emit_cuda(kernel).unwrap(), kernel.name(), number);
        index += &format!("{} {}\n", kernel.name(), kernel.args().len());
    }
    let folder = machine.path("host");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("kernels.cpp"), text).unwrap();
    std::fs::write(folder.join("kernels.txt"), index).unwrap();
    let headers = concat!(env!("CARGO_MANIFEST_DIR"), "/../pg-codegen/tests/cuda/host");
    let mut compiler = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".into()));
    compiler.args(["-std=c++17", "-O1", "-w", "-shared", "-fPIC", "-ffp-contract=off", "-I", headers]);
    let output = compiler.args(["kernels.cpp", "-o", "kernels.so"]).current_dir(&folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn a_run_from_a_bundle_loads_binaries_and_compiles_nothing(machine: &Machine) {
    // This driver launches nothing yet, which validation would not have.
    let error = machine.pg(&[&["run", "small.rs", "--out", "run"][..], &ON_BUNDLE].concat());
    let error = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(error.contains("is miscompiled: ") && !machine.path("run/metrics.jsonl").exists(), "{error}");
    let run = ["run", "small.rs", "--out", "run", "--no-validate"];
    let run = machine.ok(&[&run[..], &ON_BUNDLE].concat());
    assert_eq!((&run["device"], &run["train"]["steps"]), (&"cuda:0".into(), &2.into()));
    assert_eq!(run["bundle"]["compiled"], 0, "{run}");
    let driver = machine.driver();
    let kernels = run["bundle"]["kernels"].as_u64().unwrap() as u32;
    // All but the roof's, which only a profile measures, and those of validated programs alone.
    assert!(driver["modules"] > kernels / 2 && driver["modules"] <= kernels, "{driver:?} of {kernels}");
    assert_eq!(driver["functions"], driver["modules"], "each kernel is loaded once: {driver:?}");
    assert!(driver["launches"] > 2 * driver["modules"], "{driver:?}");
    // Matrix products ask for more than a kernel gets without asking.
    assert!(driver["shared"] > 48 << 10, "{driver:?}");

    let eval = [&["eval", "run/artifact.pg", "--ttt", "--targets", "96"][..], &ON_BUNDLE].concat();
    assert_eq!(machine.ok(&eval)["device"], "cuda:0");
    assert!(machine.driver()["launches"] > 0);
    let profile = ["profile", "small.rs", "--steps", "1", "--micro-batches", "2"];
    let output = machine.pg(&[&profile[..], &ON_BUNDLE].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && error.contains("none was compiled"), "{error}");
}

fn what_a_bundle_lacks_is_said_before_the_first_step(machine: &Machine) {
    let wider = ["run", "small.rs", "--out", "no", "--set", "DIM=128"];
    let error = machine.refused(&[&wider[..], &ON_BUNDLE].concat());
    assert!(error.contains("kernels are missing (`") && error.contains("build it again"), "{error}");
    let longer = ["run", "small.rs", "--out", "no", "--seq-len", "16"];
    let error = machine.refused(&[&longer[..], &ON_BUNDLE].concat());
    assert!(error.contains("grad.first 2 × 32") && error.contains("grad.first 4 × 16"), "{error}");
    let stored = ["run", "small.rs", "--out", "no", "--precision", "f32"];
    let error = machine.refused(&[&stored[..], &ON_BUNDLE].concat());
    assert!(error.contains("precision: bf16 there, f32 here"), "{error}");
    std::fs::write(machine.path("tuning.txt"), "region.access = 4\n").unwrap();
    let tuned = ["run", "small.rs", "--out", "no", "--tuning", "tuning.txt"];
    let error = machine.refused(&[&tuned[..], &ON_BUNDLE].concat());
    assert!(error.contains("tuning: ") && error.contains("region.access = 4, "), "{error}");
    assert_eq!(machine.driver().get("launches"), Some(&0), "nothing ran");
    assert!(!machine.path("no/metrics.jsonl").exists());
}

fn a_hopper_device_is_listed_and_without_a_compiler_only_a_bundle_runs(machine: &Machine) {
    let devices = machine.ok(&["devices"]);
    let cuda = devices["devices"].as_array().unwrap().iter().find(|d| d["device"] == "cuda:0").unwrap();
    assert_eq!(cuda["description"], "NVIDIA H100 (a fake), compute capability 9.0");
    assert!(cuda["missing"].as_str().is_some_and(|m| m.contains("CUDA's")), "{cuda}");
    let error = machine.refused(&["run", "small.rs", "--device", "cuda", "--out", "no"]);
    assert!(error.contains("CUDA's compiler") || error.contains("CUDA's headers"), "{error}");
    let error = machine.refused(&["run", "small.rs", "--device", "cuda:1", "--bundle", "bundle"]);
    assert!(error.contains("there is no CUDA device 1: the driver lists 1"), "{error}");
}
