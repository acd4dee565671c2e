//! Bounds of texts: at the bound all is well, one over is refused, and no stack overflows on the way.

use pg_ir::graph::{Graph, MAX_NODES};
use pg_ir::lang::model::Model;
use pg_ir::lang::{Diagnostics, Options, Source, elaborate};
use pg_testing::hostile::{chained_selects, model, nested, texts};

fn build(text: &str) -> Result<Model, Diagnostics> {
    let source = Source::parse("m.rs", text, &|_| Err("no base".into()))?;
    elaborate(&source, &Options::default())
}

#[track_caller]
fn refused(name: &str, text: &str, says: &str) {
    let Err(found) = build(text) else { panic!("{name} elaborates") };
    let messages: Vec<&str> = found.list.iter().map(|d| d.message.as_str()).collect();
    assert!(matches!(messages[..], [message] if message.contains(says)), "{name}: {messages:?}");
    assert!(found.to_string().len() < 20_000, "{name}");
    assert!(found.list[0].help.is_some() || says.contains("at most"), "{name}: what to do?");
}

#[track_caller]
fn accepted(name: &str, text: &str) -> Model {
    build(text).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn texts_that_ask_for_too_much_are_refused_with_one_message() {
    for hostile in texts() {
        refused(hostile.name, &hostile.text, hostile.says);
    }
}

/// The least stack that a thread of Rust's has by default, which tests and rustc's macros run on.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).unwrap().join().unwrap();
}

/// What nests to its bound in every way there is, and one over. Delimiters of the model itself, its items and its
/// functions count, and so do expressions around.
#[test]
fn nesting_has_a_bound() {
    on_a_small_stack(|| {
        let body = |code: String| model(&format!("let y = {code};"), "fn f(x) { x }");
        // `model! { m { fn forward(…) {` are three delimiters deep.
        let by_delimiters =
            [("(", ")"), ("{", "}"), ("if true {", "}"), ("scope(\"a\") {", "}"), ("f(", ")")];
        for (open, close) in by_delimiters {
            accepted(open, &body(nested(open, "1", close, 125)));
            refused(open, &body(nested(open, "1", close, 126)), "nest more than 128 deep");
        }
        let by_depth = [("|a| ", ""), ("- ", ""), ("", ".tanh()"), ("! ", "")];
        for (open, close) in by_depth {
            let inside = if open == "! " { "true" } else { "1.0" };
            accepted(open, &body(nested(open, inside, close, 127)));
            refused(open, &body(nested(open, inside, close, 128)), "nest more than 128 deep");
        }
        let loops = |n| model(&nested("for i in 0..1 {", "", "}", n), "");
        accepted("loops", &loops(125));
        refused("loops", &loops(126), "nest more than 128 deep");
        accepted("lists", &body(nested("[", "1", "]", 64)));
        refused("lists", &body(nested("[", "1", "]", 65)), "more than 64 deep");
    });
}

/// Left to right, operators need no depth.
#[test]
fn chains_have_no_bound_but_the_texts_own() {
    on_a_small_stack(|| {
        for (value, code) in [
            ("50000", vec!["1"; 50_000].join(" + ")),
            ("-39996", vec!["1 * 2"; 20_000].join(" - ")),
            ("true", vec!["true"; 50_000].join(" && ")),
            ("2", "if false { 1 } else ".repeat(5000) + "{ 2 }"),
        ] {
            let m = accepted(value, &model("", &format!("const A = {code};")));
            assert_eq!(m.consts["A"], value);
        }
    });
}

#[test]
fn values_have_budgets() {
    let list = |n: usize| model(&format!("let mut l = []; for i in 0..{n} {{ l.push(i); }}"), "");
    // The range and the list hold an item each, in both traces.
    accepted("items", &list((3 << 20) / 4 - 100));
    refused("items", &list((3 << 20) / 4 + 100), "more than 3145728 items");
    let text = |n: usize| model(&format!("let mut s = \"x\"; for i in 0..{n} {{ s = s + s; }}"), "");
    accepted("bytes", &text(23));
    refused("bytes", &text(24), "more than 67108864 bytes");
    let nodes = |n: usize| model(&format!("let mut y = x; for i in 0..{n} {{ y = tanh(y); }}"), "");
    accepted("nodes", &nodes(MAX_NODES - 100));
    refused("nodes", &nodes(MAX_NODES), "more than 200000 nodes");
}

/// What a phase gives is evaluated once for each of its settings, and every step of that is counted.
#[test]
fn given_values_have_the_budget_of_all() {
    let text = |constants: usize, lets: usize| {
        let declared: String = (0..constants).map(|i| format!("const C{i} = 1;")).collect();
        let given: String = (0..constants).map(|i| format!("C{i} = f();")).collect();
        let body = "let v = 1 + 1;".repeat(lets);
        model("", &format!("{declared} fn f() {{ {body} 1 }} phases {{ p at step(5) {{ {given} }} }}"))
    };
    accepted("few", &text(20, 100));
    refused("many", &text(400, 4000), "more than 10000000 steps");
}

/// The text form of a graph has bounds.
#[test]
fn graphs_in_text_have_bounds() {
    let of = |ty: &str| Graph::parse(&format!("%0 = input {{slot=@param:x, type={ty}}} : {ty}\n"));
    let axes = |n: usize| format!("f32[{}]", vec!["c1"; n].join(", "));
    assert!(of(&axes(16)).is_ok() && of("f32[c1099511627776]").is_ok());
    assert!(of(&axes(17)).unwrap_err().contains("at most 16 axes"));
    assert!(of("f32[c1099511627777]").unwrap_err().contains("over 1099511627776"));
    assert!(of("f32[c1048576, c1048577]").unwrap_err().contains("1099511627776 elements"));
}

/// No pass over a graph recurses: derivatives, verifier and proofs of a deep one, on a small stack.
#[test]
fn deep_graphs_need_no_deep_stack() {
    on_a_small_stack(|| {
        let model = accepted("selects", &chained_selects(20_000));
        let program = pg_ir::programs::grad(&model, 0, (1, 4), true, false).unwrap();
        pg_ir::verify::verify(&program.graph).unwrap();
        let text = program.graph.to_string();
        assert_eq!(Graph::parse(&text).unwrap(), program.graph);
    });
}
