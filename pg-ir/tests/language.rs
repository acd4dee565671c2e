//! The language: what programs mean, and what is said of those that mean nothing.

use pg_ir::graph::Graph;
use pg_ir::lang::model::{Export, Model, Trigger};
use pg_ir::lang::{Diagnostics, Head, Options, Override, Severity, Source, Trace, elaborate, reference};
use pg_ir::op::Op;
use pg_ir::optim::Optimiser;

fn parse(text: &str) -> Result<Source, Diagnostics> {
    Source::parse("m.rs", text, &|path| match path {
        "base.rs" => Ok(BASE.to_string()),
        "loop.rs" => Ok("model! { l from \"loop.rs\" { } }".to_string()),
        other => Err(format!("no file {other}")),
    })
}

fn build_with(text: &str, set: &[(&str, &str)], profile: Option<&str>) -> Result<Model, Diagnostics> {
    let overrides = set.iter().map(|(k, v)| Override::set(*k, *v)).collect();
    elaborate(&parse(text)?, &Options { overrides, profile: profile.map(Into::into) })
}

/// A model around the body of `forward` and more items.
fn model(body: &str, items: &str) -> String {
    format!(
        "model! {{ m {{ {items}\nfn forward(tokens) {{ {body} }}\noptim {{ \"*\" => adamw(lr = 0.1) }} }} }}"
    )
}

#[track_caller]
fn good(result: Result<Model, Diagnostics>) -> Model {
    result.unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn messages(text: &str) -> Vec<String> {
    match build_with(text, &[], None) {
        Ok(_) => panic!("this elaborated"),
        Err(e) => e.list.into_iter().map(|d| d.message).collect(),
    }
}

fn graph(model: &Model, phase: usize) -> Graph {
    let request = Trace { phase, batch: 2, seq: 6, qat: true, head: Head::Loss };
    model.trace(&request).unwrap_or_else(|e| panic!("{e}")).builder.finish()
}

/// The computation without places.
fn ops(graph: &Graph) -> Vec<(Op, Vec<u32>)> {
    graph
        .nodes()
        .map(|(_, n)| (n.op.clone(), n.operands.iter().map(|v| v.index() as u32).collect()))
        .collect()
}

const BASE: &str = r#"model! {
    /// A base.
    base {
        const VOCAB = 32;
        const DIM = 8;
        const CLIP = 7;
        const RATE = 0.1;
        const RULE = "amax";
        const TAPS = [1, 2];
        fn forward(tokens) {
            let table = param("tok.weight", [VOCAB, DIM], normal(0.02));
            let x = gather(table, tokens);
            linear(x + scope("mlp") { mlp(x) }, table)
        }
        fn mlp(x) { project(relu(project(x, "fc", 2 * DIM)), "proj", DIM, zeros) }
        quant { "mlp.*" => int(clip = CLIP, rule = RULE) }
        optim { "*" => adamw(lr = RATE), "mlp.*" => muon(lr = RATE) }
        train { seq_len = 16; batch_tokens = 64; }
        profile small { DIM = 4; train.batch_tokens = 32; }
    }
}"#;

#[test]
fn a_derived_model_replaces_functions_and_adds_to_blocks() {
    let text = r#"model! { wide from "base.rs" {
        const DIM = 16;
        fn mlp(x) { project(silu(project(x, "fc", DIM)), "proj", DIM, zeros) }
        export { "mlp.fc.weight" => f16 }
    } }"#;
    let m = good(build_with(text, &[], None));
    assert_eq!((m.name.as_str(), m.param_count()), ("wide", 32 * 16 + 2 * 16 * 16));
    assert_eq!(m.params["mlp.fc.weight"].export, Export::F16);
    assert!(matches!(m.params["mlp.proj.weight"].export, Export::TrainingGrid(_)));
    assert!(matches!(m.params["mlp.fc.weight"].optimiser, Optimiser::Muon(_)));
    assert_eq!(m.sources.iter().filter(|s| !s.file.starts_with("std/")).count(), 2);
    assert!(messages(r#"model! { l from "loop.rs" { } }"#)[0].contains("derives from itself"));
    assert!(messages(r#"model! { l from "none.rs" { } }"#)[0].contains("no file none.rs"));
}

#[test]
fn overrides_are_checked_against_their_defaults() {
    let m = good(build_with(BASE, &[("DIM", "4"), ("RATE", "1"), ("RULE", "floored"), ("TAPS", "[]")], None));
    assert_eq!(m.consts["DIM"], "4");
    assert_eq!((m.consts["RATE"].as_str(), m.consts["RULE"].as_str()), ("1.0", "floored"));
    assert_eq!(good(build_with(BASE, &[], Some("small"))).train.batch_tokens, 32);
    assert_eq!(good(build_with(BASE, &[("DIM", "6")], Some("small"))).consts["DIM"], "6");
    assert_eq!(good(build_with(BASE, &[("train.seed", "7")], None)).train.seed, 7);
    let bad = |set: (&str, &str)| build_with(BASE, &[set], None).unwrap_err().to_string();
    insta::assert_snapshot!("override_kind", bad(("DIM", "4.5")));
    insta::assert_snapshot!("override_name", bad(("DIMS", "4")));
    insta::assert_snapshot!("override_setting", bad(("train.seq_length", "4")));
    assert!(bad(("DIM", "(")).contains("is not a value"));
    insta::assert_snapshot!("profile_name", build_with(BASE, &[], Some("smal")).unwrap_err().to_string());
}

#[test]
fn phases_switch_constants_and_keep_parameters() {
    let text = r#"model! { m from "base.rs" {
        const CLIP = 0;
        phases { early at step(5) { TAPS = [3]; } late at fraction(0.5) { CLIP = 7; } }
    } }"#;
    let m = good(build_with(text, &[], None));
    let triggers: Vec<Trigger> = m.phases.iter().map(|p| p.trigger).collect();
    assert_eq!(triggers, [Trigger::Step(0), Trigger::Step(5), Trigger::Fraction(0.5)]);
    let quantisers =
        |phase| ops(&graph(&m, phase)).iter().filter(|(op, _)| matches!(op, Op::FakeQuant(_))).count();
    assert_eq!([quantisers(0), quantisers(1), quantisers(2)], [0, 0, 2]);
    assert_eq!(m.params["mlp.fc.weight"].grid.map(|g| g.clip), Some(7));
}

/// What a phase, a profile or `--set` gives a constant may name any constant, whatever the order of declarations.
#[test]
fn given_values_name_any_constant() {
    let text = |phases: &str| {
        format!(
            "model! {{ m from \"base.rs\" {{ const GAIN = 1.0; const SUM = GAIN + 1.0; const LATER = 2.0; const LAST = 3.0; \
             fn mlp(x) {{ project(GAIN * SUM * LATER * LAST * x, \"fc\", DIM) }} {phases} }} }}"
        )
    };
    let chained = text(
        "phases { a at step(5) { GAIN = LATER; } b at step(9) { LATER = 5.0; } c at step(11) { LATER = SUM; GAIN = TAPS[0]; } }",
    );
    let m = good(build_with(&chained, &[], None));
    let of = |m: &Model, phase: usize| -> Vec<String> {
        m.phases[phase].overrides.iter().map(|(name, value)| format!("{name} = {value}")).collect()
    };
    assert_eq!(of(&m, 1), ["GAIN = 2.0"]);
    // GAIN follows LATER, which a later phase changes.
    assert_eq!(of(&m, 2), ["LATER = 5.0"]);
    assert_eq!(of(&m, 3), ["LATER = 2.0", "GAIN = 1.0"]);
    let m = good(build_with(&text(""), &[("GAIN", "LAST"), ("LAST", "7")], None));
    assert_eq!((&*m.consts["GAIN"], &*m.consts["SUM"]), ("7.0", "8.0"));
    assert_eq!(m.consts.keys().rev().take(2).collect::<Vec<_>>(), ["LAST", "LATER"]);

    let itself = "`GAIN` is given a value that needs `GAIN` itself";
    assert_eq!(messages(&text("phases { a at step(5) { GAIN = 2.0 * GAIN; } }")), [itself]);
    assert_eq!(messages(&text("phases { a at step(5) { GAIN = LATER; LATER = SUM; } }")), [itself]);
    // What is only mentioned is not needed: a local of that name, a branch that is not taken.
    let mentions = |items: &str| format!("model! {{ m from \"base.rs\" {{ const SMALL = true; {items} }} }}");
    let local = "fn f(n) { let DIM = n; 2 * DIM } profile p { DIM = f(4); }";
    assert_eq!(good(build_with(&mentions(local), &[], Some("p"))).consts["DIM"], "8");
    let branch = "fn f(n) { if SMALL { n } else { DIM / 2 } } profile p { DIM = f(4); }";
    assert_eq!(good(build_with(&mentions(branch), &[], Some("p"))).consts["DIM"], "4");
    // More names than findings are kept.
    let names: Vec<String> = (0..40).map(|i| format!("const Z{i} = {i};")).collect();
    let sum: Vec<String> = (0..40).map(|i| format!("Z{i}")).collect();
    let many = format!("profile p {{ DIM = 4 + 0 * ({}); }} {}", sum.join(" + "), names.concat());
    assert_eq!(good(build_with(&mentions(&many), &[], Some("p"))).consts["DIM"], "4");
    // Kinds are still those of the declared values.
    let wrong = messages(&text("phases { a at step(5) { SUM = \"x\"; GAIN = SUM; } }"));
    assert_eq!(wrong, ["`SUM` is Float 2.0 by default, found Str x"]);
    // Declared values name what stands before them, in every phase.
    let late = "model! { m from \"base.rs\" { const A = B; const B = 1; fn mlp(x) { x * (A + B) } } }";
    assert_eq!(messages(late), ["unknown name `B`"]);
}

/// As many constants as a text can hold, each given the value of the next one.
#[test]
fn long_chains_of_given_values_end() {
    let n = 20_000;
    let declared: String = (0..n).map(|i| format!("const A{i} = 1;")).collect();
    let given: String = (0..n - 1).map(|i| format!("A{i} = A{};", i + 1)).collect();
    let text = format!(
        "model! {{ m from \"base.rs\" {{ {declared} fn mlp(x) {{ project(A0 * x, \"fc\", DIM) }} profile chained {{ {given} A{} = 3; }} }} }}",
        n - 1
    );
    let m = good(build_with(&text, &[], Some("chained")));
    assert_eq!(m.consts["A0"], "3");
}

/// Pasting a library function into a model file gives the same graph.
#[test]
fn library_functions_are_ordinary_text() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/int4mlp_12l.rs");
    let text = std::fs::read_to_string(path).unwrap();
    let set = [("LAYERS", "2"), ("VE_LAYERS", "[1]"), ("XSA_LAST", "1")];
    let plain = graph(&good(build_with(&text, &set, None)), 0);
    let at = text.find("        /// tokens [B, T] -> logits").unwrap();
    let mut pasted = 0;
    for f in reference() {
        let Some(body) = f.text.filter(|_| !text.contains(&format!("fn {}(", f.name))) else { continue };
        let with = format!("{}{body}\n{}", &text[..at], &text[at..]);
        let m = good(build_with(&with, &set, None));
        assert_eq!(ops(&graph(&m, 0)), ops(&plain), "{}", f.name);
        assert!(m.notes.list.iter().any(|n| n.severity == Severity::Warning && n.message.contains(&f.name)));
        pasted += 1;
    }
    assert!(pasted > 20, "{pasted}");
}

/// A user's `linear` does not change what the library's functions do.
#[test]
fn library_names_resolve_inside_the_library() {
    let body = r#"project(gather(param("t", [9, 4], ones), tokens), "head", 9)"#;
    let plain = good(build_with(&model(body, ""), &[], None));
    let shadowed = good(build_with(&model(body, "fn linear(x, w) { x }"), &[], None));
    assert_eq!(ops(&graph(&plain, 0)), ops(&graph(&shadowed, 0)));
    insta::assert_snapshot!("shadowing", shadowed.notes.to_string());
}

#[test]
fn compile_time_values() {
    // Each assertion runs in `forward`; what it compares says what it tests.
    let checks = r#"
        assert(7 / 7 + 2 * 3 - 1 % 2 == 6, "Int");
        assert(0.5 * 3 == 1.5 && floor(2.9) == 2 && round(2.5) == 3, "Float");
        assert(!(1 > 2) || false, "Bool");
        assert("a{1 + 1}b{{" == "a2b{{", "Str");
        let mut list = [1, 2];
        list.push(3);
        assert(list.pop() == 3 && len(list) == 2 && list[-1] == 2, "List");
        list += 5..7;
        assert(list == [1, 2, 5, 6] && contains(list, 5) && index_of(list, 6) == 3, "List");
        let copy = list;
        list.push(0);
        assert(len(copy) == 4, "lists are values");
        let mut total = 0;
        for [i, k] in [[1, 2], [3, 4]] { total += i * k; }
        assert(total == 14, "for");
        let add = |a, b| a + b;
        assert(add(1, 2) == 3 && (if total > 3 { "y" } else { "n" }) == "y", "closures");
        assert(twice(add, 2) == 4 && add_default(1) == 3 && add_default(b = 5, a = 1) == 6, "functions");
        gather(param("t", [9, 9], ones), tokens)
    "#;
    let items = "fn twice(f, x) { f(x, x) } fn add_default(a, b = a + 1) { a + b }";
    good(build_with(&model(checks, items), &[], None));
}

#[test]
fn shared_parameters_are_one() {
    let table = r#"param("t", [9, 4], ones)"#;
    let twice = |second: &str| format!("linear(gather({table}, tokens), {second})");
    assert!(messages(&model(&twice(table), ""))[0].contains("`t` is declared twice"));
    let m = good(build_with(&model(&twice(r#"param("t", [9, 4], ones, shared = true)"#), ""), &[], None));
    assert_eq!(m.param_count(), 36);
    let other = model(&twice(r#"param("t", [4, 9], ones, shared = true)"#), "");
    assert!(messages(&other)[0].contains("another shape"));
}

#[test]
fn tensors_of_a_loop_are_causal_by_construction() {
    let text = model(r#"shift(gather(param("t", [9, 9], ones), tokens), -1)"#, "");
    assert_eq!(messages(&text), ["a negative shift along time would read the future"]);
}

#[test]
fn each_finding_has_a_place_and_a_cure() {
    let table = r#"let x = gather(param("t", [9, 4], ones), tokens); "#;
    let cases = [
        ("tensor_condition", "if x { 1 } else { 2 }", ""),
        ("unknown_method", "x.squrae()", ""),
        ("unknown_argument", "mean(x, axes = 1)", ""),
        ("missing_argument", "softcap(x)", ""),
        ("shape", "x + param(\"b\", [3], ones)", ""),
        ("library_shape", "rms_norm(linear(x, param(\"w\", [4, 3], ones)))", ""),
        ("division", "let w = DIM / HEADS; x", "const DIM = 10; const HEADS = 4;"),
        ("recursion", "f(x)", "fn f(x) { g(x) } fn g(x) { f(x) }"),
        ("assertion", "split_heads(x, 3)", ""),
        ("immutable", "let y = 1; y = 2; x", ""),
        ("logits_shape", "sum(x)", ""),
        ("in_place_of_loops", "while 1 < 2 {} x", ""),
        ("setting", "x", "train { seq_len = 0; batch_token = 3; }"),
        ("optimiser_kind", "x", "optim { \"t\" => 3 }"),
        ("glob", "x", "quant { \"q\" => int(clip = 7) }"),
        ("muon", "x * param(\"g\", [4], ones)", "optim { \"g\" => muon(lr = 0.1) }"),
        ("item", "x", "quants { }"),
        ("integer_tensor", "x * (tokens * 0.5)", ""),
        ("endless", "for i in 0..10000000 { } x", ""),
    ];
    for (name, body, items) in cases {
        let text = model(&format!("{table}{body}"), items);
        let found = match build_with(&text, &[], None) {
            Ok(_) => panic!("{name} elaborated"),
            Err(e) => e.to_string(),
        };
        insta::assert_snapshot!(name, found);
    }
}

#[test]
fn text_that_does_not_lex_is_explained() {
    for (name, text) in [
        ("lex_unclosed", "model! { m { fn f( { } } }"),
        ("lex_extra", "model! { m { } } }"),
        ("lex_string", "model! { m { const A = \"abc; } }"),
        ("lex_token", "model! { m { const A = \u{2603}; } }"),
        ("no_model", "fn main() {}"),
        ("parse", "model! { m { const A 3; } }"),
    ] {
        insta::assert_snapshot!(name, parse(text).unwrap_err().to_string());
    }
}

/// Whatever the text, the answer is a model or findings.
#[test]
fn no_input_panics() {
    let whole = BASE;
    for cut in (0..whole.len()).filter(|i| whole.is_char_boundary(*i)).step_by(7) {
        let _ = build_with(&whole[..cut], &[], None);
        let _ = build_with(&format!("{}{}", &whole[..cut], &whole[(cut + 9).min(whole.len())..]), &[], None);
    }
    let odd = [
        "param(\"x\", [0], ones)",
        "param(\"x\", [9999999999, 9999999999], ones)",
        "reshape(tokens, [])",
        "slice(tokens, 5, 0, 1)",
        "slice(tokens, 1, 9223372036854775807, 9223372036854775807)",
        "-9223372036854775807 - 2",
        "sum(tokens, [0, 0, 1])",
        "permute_columns(float(tokens), [9])",
        "dot(float(tokens), float(tokens), contract = [[0, 0], [0, 0]])",
        "dot(float(tokens), float(tokens), contract = [[0, 0]], batch = [[0, 0]])",
        "transpose(tokens, [0, 0])",
        "causal_attention(tokens, tokens, tokens, 1.0)",
        "pad(tokens, 0, 9223372036854775807, 9223372036854775807)",
        "shift(tokens, 9223372036854775807)",
        "select(tokens, 1, 2)",
        "iota(-1)",
        "tokens[100]",
        "partial_rope(param(\"x\", [4], ones), 2)",
        "partial_rope(reshape(float(tokens), [2, 256, 1, 1]), 99)",
        "xsa(tokens, tokens)",
        "unet(tokens, [], 3)",
    ];
    for body in odd {
        let _ = build_with(&model(body, ""), &[], None);
    }
}

/// A block's setting, or a rule's value, that is out of range.
#[test]
fn ranges_are_checked() {
    let body = "gather(param(\"t\", [9, 9], ones), tokens)";
    let says = |items: &str, what: &str| {
        let found = messages(&model(body, items));
        assert!(found.iter().any(|m| m.contains(what)), "{items}: {found:?}");
    };
    // Nobody wrote the sequence length that does not divide.
    says("train { batch_tokens = 1000; }", "train.seq_len = 256 does not divide");
    says("train { seq_len = 64; } eval { seq_len = 32; stride = 33; }", "over the window");
    for (setting, what) in [
        ("ema_decay = 1.0", "below 1"),
        ("momentum_start = 1.5", "below 1"),
        ("seconds = 0.0", "above 0"),
        ("steps = 0", "at least 1"),
    ] {
        says(&format!("train {{ {setting}; }}"), what);
    }
    says("eval { max_targets = 0; }", "at least 1");
    says("eval { ttt { momentum = 1; } }", "below 1");
    for (rule, what) in [
        ("adamw(lr = -1)", "from 0"),
        ("adamw(lr = 1, beta1 = 1)", "below 1"),
        ("adamw(lr = 1, beta2 = -0.5)", "below 1"),
        ("adamw(lr = 1, eps = 1.0 / 0.0)", "finite"),
        ("muon(lr = 1, ns_steps = 0)", "at least 1"),
    ] {
        says(&format!("optim {{ \"t\" => {rule} }}"), what);
    }
    says("phases { p at fraction(1.5) { } }", "below 1");
    for init in ["normal(-1)", "uniform(-1)"] {
        let body = format!("gather(param(\"t\", [9, 9], {init}), tokens)");
        assert!(messages(&model(&body, ""))[0].contains("from 0"));
    }
    let ttt = build_with(BASE, &[("eval.ttt.lr", "0.1")], None).unwrap_err().to_string();
    assert!(ttt.contains("no test-time training"), "{ttt}");
}

#[test]
fn integers_and_lists_have_bounds() {
    let table = "gather(param(\"t\", [9, 9], ones), tokens)";
    for (body, what) in [
        ("let x = tokens * 3000000000;", "does not fit an int32 tensor"),
        ("let x = (-9223372036854775807 - 1) / -1;", "does not fit into 64 bits"),
        ("let mut l = [1]; for i in 0..30 { l = l + l; }", "at most 1048576 items"),
        ("let mut l = [1]; for i in 0..30 { l += l; }", "at most 1048576 items"),
        ("let mut l = 0..1048576; l.push(1);", "at most 1048576 items"),
        ("let l = 0..1048577;", "too long"),
    ] {
        let found = messages(&model(&format!("{body} {table}"), ""));
        assert!(found.iter().any(|m| m.contains(what)), "{body}: {found:?}");
    }
}

#[test]
fn phases_leave_alone_what_is_fixed_for_the_run() {
    let with = |phases: &str| {
        format!("model! {{ m from \"base.rs\" {{ const LEN = 16; {phases} train {{ seq_len = LEN; }} }} }}")
    };
    let early = |settings: &str| with(&format!("phases {{ p at step(5) {{ {settings} }} }}"));
    assert_eq!(
        messages(&early("CLIP = 0; RATE = 0.2;")),
        ["a phase cannot change RATE: optimisers are fixed for the run"]
    );
    assert!(messages(&early("LEN = 8;"))[0].contains("`train` settings are fixed"));
    let text = early("CLIP = 1 + DIM / 8; RULE = floored;");
    let m = good(build_with(&text, &[], None));
    let shown: Vec<(&str, &str)> =
        m.phases[1].overrides.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(shown, [("CLIP", "2"), ("RULE", "floored")]);
    let m = good(build_with(&text, &[("CLIP", "31")], None));
    assert_eq!(m.phases[1].overrides[0].1, "31");
    assert_eq!(m.quantised_in(1)[0].1.clip, 31);
}

#[test]
fn a_leak_is_shown_at_the_lines_that_it_passes() {
    let text = r#"model! {
    m {
        fn forward(tokens) {
            let table = param("tok.weight", [32, 8], normal(0.02));
            let mut x = gather(table, tokens);
            for i in 0..2 {
                x = x + scope("blocks.{i}") { centred(x) };
            }
            linear(rms_norm(x), table)
        }
        fn centred(x) {
            relu(project(x - mean(x, 1), "fc", 8))
        }
        optim { "*" => adamw(lr = 0.1) }
    }
}"#;
    let refused = good(build_with(text, &[], None)).prove().unwrap_err();
    insta::assert_snapshot!("leak", refused.to_string());
}

#[test]
fn likely_mistakes_are_warned_about() {
    let text = r#"model! {
    m {
        const VOCAB = 64;
        const DIM = 8;
        const UNUSED = 3;
        const WIDTH = 16;
        fn forward(tokens) {
            let table = param("tok.weight", [32, DIM], normal(0.02));
            let lost = param("lost.weight", [DIM, DIM], normal(0.02));
            let mut x = gather(table, tokens);
            for i in 0..2 {
                scope("blocks.{i}") {
                    x = x + project(relu(project(x * param("gain", [DIM], ones), "fc", 16)), "proj", DIM);
                }
            }
            linear(rms_norm(x), table)
        }
        fn nobody(x) { helper(x) + WIDTH }
        fn helper(x) { unknown_name(x) }
        quant {
            "blocks.*.gain" => int(clip = 7),
            "blocks.0.fc.weight" => int(clip = 7),
        }
        optim {
            "*" => adamw(lr = 0.1),
            "blocks.*.fc.weight" => muon(lr = 0.1),
            "blocks.*" => adamw(lr = 0.2),
        }
        phases { late at step(500) { DIM = 8; } never at lr_scale_below(0.5) { DIM = 8; } }
        train { steps = 200; }
    }
}"#;
    let m = good(build_with(text, &[], None));
    insta::assert_snapshot!("lints", m.notes.to_string());
    assert!(m.notes.list.iter().all(|d| d.severity == Severity::Warning));
    // What a base has and a derived model does not use is no mistake of either.
    assert!(good(build_with(BASE, &[], None)).notes.to_string().contains("`TAPS` is never used"));
    let derived = good(build_with("model! { d from \"base.rs\" { const DIM = 16; } }", &[], None));
    assert_eq!(derived.notes.to_string(), "");
}
