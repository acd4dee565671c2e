//! Kernels compiled ahead of time, from outside: what they use, `pg build`, `--bundle`, `pg doctor`. Tests that
//! need CUDA's compiler say so where it is missing and pass, unless PG_REQUIRE_CUDA_TOOLS=1.

#![cfg(feature = "cube")]

use std::ops::Deref;
use std::process::Output;

use pg_codegen::cuda::{Bundle, Manifest, Tools};
use pg_testing::commands::Scratch;
use serde_json::Value;

/// A model of a few kernels, with both of what tensor cores compute.
const SMALL: &str = r#"pg_macros::model! {
    /// Attention over embeddings.
    small {
        const VOCAB = 1024;
        const DIM = 64;

        fn forward(tokens) {
            let x = gather(param("emb.weight", [VOCAB, DIM], normal(0.02)), tokens);
            linear(x + attention(x, 2, 1, 32), param("head.weight", [VOCAB, DIM], orthogonal))
        }

        optim { "*" => adamw(lr = 0.01) }
        train { batch_tokens = 64; micro_batch_tokens = 64; seq_len = 32; steps = 2; }
        eval { seq_len = 32; stride = 32; max_targets = 128; }
    }
}
"#;

struct Dir(Scratch);

impl Deref for Dir {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.0
    }
}

impl Dir {
    fn with_model() -> Dir {
        let dir = Dir(Scratch::new(env!("CARGO_BIN_EXE_pg")));
        std::fs::write(dir.path("small.rs"), SMALL).unwrap();
        dir
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.pg(&[args, &["--json", "-q"]].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The one line of an error.
    fn refused(&self, args: &[&str]) -> String {
        one_error(&self.pg(&[args, &["-q"]].concat()))
    }
}

fn one_error(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("error: ") && error.trim_end().lines().count() == 1, "{error}");
    error
}

/// Whether CUDA's compiler is here.
fn tools() -> bool {
    match Tools::find() {
        Ok(_) => true,
        Err(e) if std::env::var_os("PG_REQUIRE_CUDA_TOOLS").is_some_and(|v| v == "1") => {
            panic!("PG_REQUIRE_CUDA_TOOLS=1, but {e}")
        }
        Err(e) => {
            eprintln!("NOT RUN: {e}");
            false
        }
    }
}

#[test]
fn kernels_show_what_they_use_and_dump_what_they_became() {
    if !tools() {
        return;
    }
    let dir = Dir::with_model();
    let report = dir.json(&["kernels", "small.rs", "--program", "grad.first", "--dump", "dump"]);
    assert!(report["compiler"].as_str().unwrap().starts_with("CUDA 13."), "{report}");
    let kernels = report["kernels"].as_array().unwrap();
    for kernel in kernels {
        assert!((8..=255).contains(&kernel["registers"].as_u64().unwrap()), "{kernel}");
        assert_eq!((&kernel["spill_bytes"], &kernel["stack_bytes"]), (&0.into(), &0.into()), "{kernel}");
        let occupancy = &kernel["occupancy"];
        let limits =
            ["by_registers", "by_shared_memory", "by_threads"].map(|l| occupancy[l].as_u64().unwrap());
        assert_eq!(occupancy["blocks"].as_u64(), limits.into_iter().min(), "{kernel}");
        let text = |ext: &str| {
            let path = dir.path("dump").join(format!("{}.{ext}", kernel["name"].as_str().unwrap()));
            std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        assert!(text("ptx").contains(".target sm_90a") && text("ptxas.txt").contains("registers"));
        assert!(
            text("sass").contains("EXIT")
                && text("cu").contains("__global__")
                && text("txt").contains("computes")
        );
    }
    let flash =
        kernels.iter().find(|k| k["name"].as_str().unwrap().starts_with("flash_")).expect("a flash kernel");
    let sass =
        std::fs::read_to_string(dir.path("dump").join(format!("{}.sass", flash["name"].as_str().unwrap())));
    assert!(sass.unwrap().contains("HMMA"), "matrix instructions");
    let table = dir.pg(&["kernels", "small.rs", "--program", "grad.first", "-q"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("blocks an SM") && table.contains(" by registers"), "{table}");
}

#[test]
fn a_bundle_is_built_once_and_refused_when_it_does_not_fit() {
    if !tools() {
        return;
    }
    let dir = Dir::with_model();
    let build = ["build", "small.rs", "--out", "made/bundle"];
    let report = dir.json(&build);
    assert_eq!(
        (&report["built"], &report["spilling"], &report["target"]),
        (&true.into(), &0.into(), &"h100".into())
    );
    let bundle = Bundle::open(&dir.path("made/bundle")).unwrap();
    assert_eq!(report["kernels"].as_u64(), Some(bundle.manifest().kernels.len() as u64));
    assert_eq!(bundle.manifest().built_for["precision"], "bf16");
    assert_eq!(Bundle::cached(&bundle.cache_root()), Some(bundle.manifest().kernels.len()));
    let beside: Vec<_> =
        std::fs::read_dir(dir.path("made")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(beside, ["bundle"], "nothing unfinished is left");

    assert_eq!(dir.json(&build)["built"], false);
    let other = [&build[..], &["--precision", "f32"]].concat();
    let error = dir.refused(&other);
    assert!(error.contains("holds a bundle of other kernels; --force replaces it"), "{error}");
    assert_eq!(dir.json(&[&other[..], &["--force"]].concat())["built"], true);
    assert_eq!(Bundle::open(&dir.path("made/bundle")).unwrap().manifest().built_for["precision"], "f32");

    // The bundle comes before the device: this machine needs none to hear of it.
    let run = ["run", "small.rs", "--device", "cuda", "--bundle", "made/bundle"];
    let edit = |change: &dyn Fn(&mut Manifest)| {
        let path = dir.path("made/bundle/manifest.json");
        let mut manifest: Manifest = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut manifest);
        std::fs::write(path, serde_json::to_string(&manifest).unwrap()).unwrap();
    };
    let generator = bundle.manifest().generator.clone();
    edit(&|m| m.generator = "0".into());
    let error = dir.refused(&run);
    assert!(
        error.contains("the kernel generator is 0 there and") && error.contains("build it again"),
        "{error}"
    );
    edit(&|m| m.generator = generator.clone());
    edit(&|m| m.kernels[0].digest = "0".into());
    assert!(dir.refused(&run).contains("is not the manifest's; build it again"), "{}", dir.refused(&run));
    std::fs::remove_dir_all(dir.path("made/bundle/cache")).unwrap();
    assert!(dir.refused(&run).contains("its kernels cannot be read"), "{}", dir.refused(&run));
    assert!(!dir.path("made/bundle/cache").exists(), "looking creates nothing");
    let error = dir.refused(&other);
    assert!(error.contains("cannot be used") && error.contains("--force replaces it"), "{error}");
}

#[test]
fn bad_places_and_targets_are_one_message() {
    let dir = Dir::with_model();
    let error = dir.refused(&["build", "small.rs", "--out", "b", "--target", "vulkan-cpu"]);
    assert!(error.contains("its driver compiles; the targets are h100, h200"), "{error}");
    let error = dir.refused(&["build", "small.rs", "--out", "b", "--target", "cpu"]);
    assert!(error.contains("no kernels are generated"), "{error}");
    for (command, expected) in [
        (
            &["run", "small.rs", "--bundle", "b"][..],
            "a bundle holds kernels for CUDA, and cpu does not run them",
        ),
        (
            &["run", "small.rs", "--device", "cuda", "--bundle", "b"],
            "there is no bundle in b: `pg build FILE --out DIR`",
        ),
        (&["profile", "small.rs", "--device", "vulkan", "--bundle", "b"], "and vulkan:0 does not run them"),
    ] {
        let error = dir.refused(command);
        assert!(error.contains(expected), "{error}");
    }
    if !tools() {
        return;
    }
    std::fs::write(dir.path("file"), "").unwrap();
    let error = dir.refused(&["build", "small.rs", "--out", "file"]);
    assert!(error.contains("file: Not a directory"), "{error}");
    let error = dir.refused(&["build", "small.rs", "--out", "file/bundle"]);
    assert!(error.contains("file/bundle: Not a directory"), "{error}");
    let error = dir.refused(&["build", "small.rs", "--out", ".", "--force"]);
    assert!(error.contains("something else in it than a bundle; name another"), "{error}");
    assert!(dir.path("small.rs").exists());
}

#[test]
fn without_tools_building_says_what_to_do_and_kernels_are_listed_all_the_same() {
    let dir = Dir::with_model();
    let pg = |args: &[&str]| dir.command(args).env("PG_CUDA_TOOLS", "/nowhere").output().unwrap();
    let error = one_error(&pg(&["build", "small.rs", "--out", "b", "-q"]));
    assert!(error.contains("was not found under /nowhere; run scripts/cuda-tools"), "{error}");
    assert!(!dir.path("b").exists());
    let table = pg(&["kernels", "small.rs", "--program", "score", "-q"]);
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("were not looked at: CUDA's compiler") && table.contains("score"), "{table}");
    let doctor = pg(&["doctor", "--json", "-q"]);
    assert_eq!(doctor.status.code(), Some(0), "what is missing is no error");
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let build = |f: &&Value| f["purpose"] == "build";
    let findings = report["findings"].as_array().unwrap().iter().filter(build);
    assert!(findings.clone().count() >= 3, "{report}");
    findings.for_each(|f| {
        assert!(f["ok"] == false && f["missing"].is_string() && f["remedy"].is_string(), "{f}")
    });
    assert!(!report["ready"].as_array().unwrap().contains(&"build".into()));
    let required = pg(&["doctor", "--require", "build", "-q"]);
    assert_eq!(required.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&required.stderr).contains("something is missing for `build`"));
}
