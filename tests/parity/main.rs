//! Every fixture case, computed by the interpreter in float64 and by an executor, against the oracle. The
//! executor is the CPU's, or that of the device that `PG_DEVICE` names.
//!
//! Cases are folders with `case.json` and `tensors.safetensors` in `tests/fixtures` and in the folder that
//! `PG_FIXTURES` names. The model is built only by overriding constants of `models/int4mlp_12l.rs` through
//! the parser. A tensor's error is |out − ref| / |ref| in the 2-norm; tolerances stand in the case.

mod case;
mod checks;

use std::path::PathBuf;

use case::Case;
use pg_testing::files::root;

fn folders() -> Vec<PathBuf> {
    let shipped = root().join("tests/fixtures");
    let more = std::env::var_os("PG_FIXTURES").map(PathBuf::from);
    let mut found = Vec::new();
    for root in [Some(shipped), more].into_iter().flatten() {
        let entries = std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        let cases = entries.map(|e| e.unwrap().path()).filter(|p| p.join("case.json").exists());
        let before = found.len();
        found.extend(cases);
        assert!(found.len() > before, "{} holds no cases", root.display());
    }
    found.sort();
    found
}

#[test]
fn every_case_agrees_with_the_oracle() {
    let mut failures = Vec::new();
    for folder in folders() {
        let case = Case::load(&folder);
        let errors = match case.kind() {
            "gradient" => checks::gradient(&case),
            "optimiser" => checks::optimiser(&case),
            "gptq_lite" => checks::gptq_lite(&case),
            "sliding" => checks::sliding(&case),
            "ttt" => checks::ttt(&case),
            other => vec![format!("there is no check for cases of kind `{other}`")],
        };
        println!("{} {}", if errors.is_empty() { "ok  " } else { "FAIL" }, folder.display());
        failures.extend(errors.into_iter().map(|e| format!("{}: {e}", folder.display())));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
