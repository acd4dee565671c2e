//! What is said of wrong models: place, cause and cure, as people read it. The models are `pg-testing/wrong_models`.

use std::fmt::Write as _;

use pg_ir::lang::Source;
use pg_testing::wrong_models::{Case, FILE, base, findings, groups};

fn said(case: &Case) -> String {
    findings(Source::parse(FILE, &case.text, &base), &case.options).to_string()
}

#[test]
fn wrong_models_are_explained() {
    let mut silent = Vec::new();
    for (group, cases) in groups() {
        let mut all = String::new();
        for case in &cases {
            let said = said(case);
            if said.is_empty() {
                silent.push(format!("{group}/{}", case.name));
            }
            writeln!(all, "──── {}\n\n{said}", case.name).unwrap();
        }
        insta::assert_snapshot!(group, all);
    }
    assert!(silent.is_empty(), "nothing is said of {silent:?}");
}
