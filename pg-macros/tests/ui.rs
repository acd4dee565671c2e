//! What `model!` says of models that do not check. The cases are in `tests/ui` at the root, beside what
//! rustc prints for each; `TRYBUILD=overwrite` writes that anew.

#[test]
fn errors_stand_at_the_offending_token() {
    trybuild::TestCases::new().compile_fail("../tests/ui/*.rs");
}
