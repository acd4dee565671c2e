//! What `pg check` says of wrong models is what the front end finds, and no more. How it reads is in `pg-ir/tests/messages.rs`.

use pg_ir::lang::{Severity, Source};
use pg_testing::commands::Scratch;
use pg_testing::wrong_models::{Case, FILE, base, findings, groups};
use serde_json::Value;

#[test]
fn the_command_says_what_is_found() {
    let dir = Scratch::new(env!("CARGO_BIN_EXE_pg"));
    for name in ["base.rs", "loop.rs"] {
        std::fs::write(dir.path(name), base(name).unwrap()).unwrap();
    }
    for case in groups().into_iter().flat_map(|(_, cases)| cases) {
        std::fs::write(dir.path(FILE), &case.text).unwrap();
        let output = dir.pg(&arguments(&case).iter().map(String::as_str).collect::<Vec<_>>());
        let found = findings(Source::parse(FILE, &case.text, &base), &case.options);
        let code = if found.has_errors() { 1 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{}", case.name);
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        for (severity, key) in [(Severity::Error, "errors"), (Severity::Warning, "warnings")] {
            if found.has_errors() && severity == Severity::Warning {
                continue;
            }
            let said: Vec<&str> = json["models"][0][key].as_array().unwrap().iter().map(rendered).collect();
            let of_model = found.list.iter().filter(|d| d.severity == severity);
            let expected: Vec<String> = of_model.map(|d| found.render(d)).collect();
            assert_eq!(said, expected, "{}", case.name);
        }
    }
}

fn arguments(case: &Case) -> Vec<String> {
    let mut args: Vec<String> = ["check", FILE, "--json"].map(String::from).into();
    for o in &case.options.overrides {
        args.extend(["--set".into(), format!("{}={}", o.name, o.value)]);
    }
    args.extend(case.options.profile.iter().flat_map(|p| ["--profile".into(), p.clone()]));
    args
}

fn rendered(finding: &Value) -> &str {
    finding["rendered"].as_str().unwrap()
}
