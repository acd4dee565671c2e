//! Validation in whole commands: what `pg run` and `pg check --deep` say of it, the cache, and that a run on a device
//! that computes something else stops before its first step with the place.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use pg_codegen::plan::{Kernel, Plan};
use pg_codegen::region::Instr;
use pg_ir::lang::layout::Layout;
use pg_ir::op::Binary;
use pg_runtime::device::{Device, DeviceName};
use pg_runtime::executor::{Backend, ExecError, Executor};
use pg_runtime::run::{JobOptions, RunError, RunOptions, run};
use pg_runtime::validate::{Difference, ValidateError};
use pg_testing::commands::Scratch;
use serde_json::Value;

/// As little of a run as there can be.
const SHORT: [&str; 7] =
    ["--steps", "1", "--no-full-size", "--set", "eval.max_targets=200", "--set", "eval.stride=128"];

struct Dir(Scratch);

impl Deref for Dir {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.0
    }
}

impl Dir {
    fn new() -> Dir {
        Dir(Scratch::new(env!("CARGO_BIN_EXE_pg")))
    }

    fn ok(&self, args: &[&str]) -> Output {
        let output = self.pg(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// The object that a command prints.
    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_slice(&self.ok(&[&["--json"], args].concat()).stdout).unwrap()
    }

    /// The one file that the cache holds.
    fn cached(&self) -> PathBuf {
        let files = std::fs::read_dir(self.path("cache/validated")).unwrap().map(|e| e.unwrap().path());
        let [only] = files.collect::<Vec<_>>().try_into().unwrap();
        only
    }
}

fn tiny() -> String {
    format!("{}/../models/tiny.rs", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_run_is_validated_once_and_says_so() {
    let (dir, tiny) = (Dir::new(), tiny());
    let args = [&["run", &tiny], &SHORT[..]].concat();
    let first = dir.json(&args);
    let found = &first["validation"];
    assert_eq!((&found["outcome"], &found["cached"]), (&"passed".into(), &false.into()), "{found}");
    let programs = found["programs"].as_array().unwrap();
    let names: Vec<&str> = programs.iter().map(|p| p["program"].as_str().unwrap()).collect();
    assert_eq!(names, ["grad.first.qat", "score", "update"]);
    for p in programs {
        assert!(p["outputs"].as_u64() > Some(0) && p["not_compared"] == Value::Array(vec![]), "{p}");
        assert!(p["error"].as_f64() > Some(0.0) && p["error"].as_f64() <= p["bound"].as_f64(), "{p}");
        assert!(p["covered"].as_u64() <= p["launches"].as_u64(), "{p}");
    }
    let (launches, covered) = (found["launches"].as_u64().unwrap(), found["covered"].as_u64().unwrap());
    assert_eq!(found["uncovered"].as_array().unwrap().len() as u64, launches - covered);
    assert!(covered * 10 >= launches * 9, "{covered} of {launches}");
    // `report.json` has the same.
    let report =
        std::fs::read(Path::new(&dir.path("")).join(first["run_dir"].as_str().unwrap()).join("report.json"));
    let report: Value = serde_json::from_slice(&report.unwrap()).unwrap();
    assert_eq!(&report["validation"], found);

    let second = dir.ok(&args);
    let text = String::from_utf8(second.stdout).unwrap();
    let expected = format!("validated: yes (3 programs, {covered} of {launches} launches covered, cached)");
    assert!(text.contains(&expected), "{text}");
    // Another model, other settings: another file.
    let other = dir.json(&[&args[..], &["--set", "LAYERS=3"]].concat());
    assert_eq!(other["validation"]["cached"], false);
}

#[test]
fn a_cache_that_is_not_whole_is_ignored_and_written_anew() {
    let (dir, tiny) = (Dir::new(), tiny());
    let args = ["check", "--deep", &tiny, "--set", "LAYERS=1"];
    let deep = || dir.json(&args)["models"][0]["validation"]["cached"].as_bool().unwrap();
    assert!(!deep() && deep());
    let whole = std::fs::read(dir.cached()).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"{}", b"", &[0xff; 100]] {
        std::fs::write(dir.cached(), damaged).unwrap();
        assert!(!deep(), "{} bytes", damaged.len());
        assert!(deep(), "it was written anew");
    }
    // A folder that cannot be written is no reason not to run.
    std::fs::remove_dir_all(dir.path("cache")).unwrap();
    std::fs::write(dir.path("cache"), "a file").unwrap();
    let output = dir.ok(&args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the next run will validate again"), "{said}");
}

#[test]
fn it_can_be_left_out_and_the_report_says_so() {
    let (dir, tiny) = (Dir::new(), tiny());
    let args = [&["run", &tiny, "--no-validate"], &SHORT[..]].concat();
    let output = dir.ok(&args);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("validated: skipped\n"), "{text}");
    let report = dir.json(&args);
    assert_eq!(report["validation"]["outcome"], "skipped");
    assert!(!dir.path("cache").exists());
}

#[test]
fn a_deep_check_shows_every_program() {
    let (dir, tiny) = (Dir::new(), tiny());
    let text = String::from_utf8(dir.ok(&["check", "--deep", &tiny, "--set", "LAYERS=1"]).stdout).unwrap();
    for program in ["grad.first.qat", "score", "grad.first", "update", "adapt"] {
        assert!(text.lines().any(|l| l.split_whitespace().next() == Some(program)), "{program}: {text}");
    }
    assert!(text.contains("launches covered") && text.contains("agrees with float64"), "{text}");
    let bf16 = dir.json(&["check", "--deep", &tiny, "--set", "LAYERS=1", "--precision", "bf16"]);
    let grad = &bf16["models"][0]["validation"]["programs"][0];
    assert!(grad["error"].as_f64() > Some(1e-5), "rounded to bfloat16: {grad}");
    let output = dir.pg(&["check", &tiny, "--device", "vulkan"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && error.contains("only --deep"), "{error}");
}

/// The processor, but each plan is changed before it runs.
#[derive(Debug)]
struct Faulty {
    cpu: Device,
    fault: fn(&mut Plan),
}

impl Backend for Faulty {
    fn prepare(&self, plan: Arc<Plan>) -> Result<Box<dyn Executor>, ExecError> {
        let mut plan = (*plan).clone();
        (self.fault)(&mut plan);
        self.cpu.prepare(Arc::new(plan))
    }

    fn ways(&self, plan: &Plan) -> Vec<String> {
        self.cpu.ways(plan, &Layout::default()).unwrap()
    }
}

/// What a run of tiny on a faulty device ends with.
fn difference(fault: fn(&mut Plan)) -> (Box<Difference>, String) {
    let folder = tempfile::tempdir().unwrap();
    let faulty = Faulty { cpu: Device::cpu(), fault };
    let set = |name: &str, value: &str| (name.to_string(), value.to_string());
    let options = RunOptions {
        job: JobOptions {
            model: tiny().into(),
            overrides: vec![set("LAYERS", "2"), set("eval.max_targets", "200")],
            steps: Some(1),
            skip_full_size: true,
            ..JobOptions::default()
        },
        device: Device::new(DeviceName::Cpu, "faulty".into(), Arc::new(faulty)),
        out: Some(folder.path().join("run")),
        ..RunOptions::default()
    };
    let error = run(&options, &mut |_| {}).unwrap_err();
    assert!(!folder.path().join("run/metrics.jsonl").exists(), "nothing was trained");
    let message = error.to_string();
    match error {
        RunError::Validate(ValidateError::Differs(difference)) => (difference, message),
        other => panic!("{other}"),
    }
}

/// The first launch that computes something of a place: found by what it computes, since plans differ in positions.
fn find(plan: &Plan, family: &str, scope: &str) -> Option<usize> {
    let is_it = |i: usize| {
        let launch = &plan.launches[i];
        let kernel = &plan.kernels[launch.kernel.0 as usize];
        let site = launch.provenance.main_site();
        kernel.family() == family && site.is_some_and(|s| s.name() == scope)
    };
    (0..plan.launches.len()).find(|&i| is_it(i))
}

#[test]
fn a_product_that_is_left_out_is_found() {
    let (d, message) = difference(|plan| {
        if let Some(at) = find(plan, "contraction", "grad of blocks.1.mlp") {
            plan.launches.remove(at);
        }
    });
    assert!(d.program.starts_with("grad.first.qat 2 × 64"), "{message}");
    assert!(d.blame.first.contains("grad of blocks.1.mlp"), "{message}");
    assert!(d.wrong > 1 && d.error > d.bound, "{message}");
    assert!(d.blame.lines.iter().any(|l| l.contains("tiny.rs:")), "{message}");
    for part in ["is miscompiled", "float64 gives", "model lines: ", "nothing was trained"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn swapped_operands_are_found() {
    let (d, message) =
        difference(|plan| {
            // The first difference of two values of the loss, whose order matters.
            let Some(at) = plan.launches.iter().position(|l| {
                l.provenance.sites.iter().any(|s| s.lines.iter().any(|l| l.file.contains("head")))
            }) else {
                return;
            };
            let kernel = plan.launches[at].kernel.0 as usize;
            if let Kernel::Region(region) = &mut plan.kernels[kernel] {
                for instr in &mut region.body {
                    if let Instr::Binary(Binary::Sub | Binary::Div, a, b) = instr {
                        std::mem::swap(a, b);
                        return;
                    }
                }
            }
        });
    assert!(d.blame.first.starts_with("first launch that differs: #"), "{message}");
    assert!(d.blame.first.contains("std/head.pg"), "{message}");
}

#[test]
fn a_constant_that_is_a_little_off_is_found_though_the_unfused_plan_has_it_too() {
    let (d, message) = difference(|plan| {
        for kernel in &mut plan.kernels {
            let Kernel::Region(region) = kernel else { continue };
            for instr in &mut region.body {
                // The bound on logits.
                if let Instr::Const(value) = instr
                    && *value == 30.0
                {
                    *value = 30.03;
                }
            }
        }
    });
    assert!(d.unfused.is_some_and(|off| off > d.bound), "{message}");
    assert!(d.blame.first.starts_with("first launch that differs: #"), "{message}");
    assert!(message.contains("without fusion it is off by"), "{message}");
}

#[test]
fn a_fault_of_the_optimiser_is_found() {
    let (d, message) = difference(|plan| {
        if let Some(at) = find(plan, "contraction", "muon.4.384x128").filter(|_| plan.program == "update") {
            plan.launches.remove(at);
        }
    });
    assert_eq!(d.program, "update", "{message}");
    assert!(d.output.ends_with("after the step"), "{message}");
}
