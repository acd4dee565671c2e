//! Attention written by hand, whose masks the proof must understand: what is right is proved and equals the op, what is
//! off by one, transposed or on the wrong axis is refused.

use pg_ir::interp::{Environment, run};
use pg_ir::lang::model::Model;
use pg_ir::lang::{Options, Source, elaborate};
use pg_ir::programs;
use pg_ir::slot::{Slot, Space};

const SHAPE: (usize, usize) = (2, 9);

/// A model of one layer of attention, `mix` of q, k and v [batch, time, heads, width].
fn text(mix: &str) -> String {
    format!(
        r#"model! {{ m {{
    fn forward(tokens) {{
        let x = gather(param("t", [16, 8], normal(1.0)), tokens);
        let q = split_heads(project(x, "q", 8), 2);
        let k = split_heads(project(x, "k", 8), 2);
        let v = split_heads(project(x, "v", 8), 2);
        linear(merge_heads(mix(q, k, v)), param("head", [16, 8], normal(1.0)))
    }}
{mix}
    optim {{ "*" => adamw(lr = 0.1) }}
    train {{ seq_len = 16; }}
}} }}"#
    )
}

/// Softmax attention over the positions that `keep` leaves, with scores as `scores` gives them. The rest of the
/// arguments are its steps.
struct Attention<'a> {
    /// Of i [T, 1] and j [T]: a condition.
    drop: &'a str,
    /// What is added to the scores, of i and j.
    bias: &'a str,
    /// Where the mask drops a score.
    masked: &'a str,
    /// The last step before the values: of the scores s and the mask.
    weights: &'a str,
    values: &'a str,
}

const CAUSAL: Attention<'static> = Attention {
    drop: "gt(j, i)",
    bias: "0.0",
    masked: "-1e30",
    weights: "select(drop, 0.0, exp(s - reduce_max(s, -1)))",
    values: "select(lt(v * v, 1e8), v, 0.0)",
};

impl Attention<'_> {
    fn text(&self) -> String {
        let Attention { drop, bias, masked, weights, values } = self;
        text(&format!(
            r#"
    fn mix(q, k, v) {{
        let n = seq_len(q);
        let (i, j) = (reshape(iota(time(n)), [time(n), 1]), iota(time(n)));
        let drop = {drop};
        let s = dot(q, k, [[3, 3]], [[0, 0], [2, 2]]) * 0.5 + {bias};
        let s = select(drop, {masked}, s);
        let e = {weights};
        let y = dot(e / sum(e, -1), {values}, [[3, 1]], [[0, 0], [1, 2]]);
        transpose(y, [0, 2, 1, 3])
    }}"#
        ))
    }
}

fn model(text: &str) -> Model {
    let source = Source::parse("m.rs", text, &|_| Err("no base".into())).unwrap();
    elaborate(&source, &Options::default()).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Logits of fixed parameters and tokens.
fn logits(text: &str) -> Vec<f64> {
    let program = programs::logits(&model(text), 0, SHAPE, false).unwrap();
    let mut state = 1u64;
    let mut draw = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / f64::from(1u32 << 23) - 1.0
    };
    let mut slots: Vec<_> =
        program.graph.inputs().map(|(slot, v)| (slot.clone(), program.graph.ty(v).len())).collect();
    slots.sort_by_key(|(slot, _)| slot.to_string());
    let value =
        |slot: &Slot, draw: f64| if slot.space == Space::Data { (8.0 + 8.0 * draw).floor() } else { draw };
    let env: Environment = slots
        .into_iter()
        .map(|(slot, len)| {
            let values = (0..len).map(|_| value(&slot, draw())).collect();
            (slot, values)
        })
        .collect();
    run(&program.graph, &env).unwrap().remove(&Slot::new(Space::Result, "logits")).unwrap()
}

#[track_caller]
fn same(a: &str, b: &str) {
    let (a, b) = (logits(a), logits(b));
    let furthest = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(furthest < 1e-12, "they differ by {furthest}");
    assert!(a.iter().any(|x| x.abs() > 0.1));
}

#[track_caller]
fn proved(text: &str) {
    model(text).prove().unwrap_or_else(|e| panic!("{e}\n{text}"));
}

#[track_caller]
fn refused(attention: &Attention<'_>, why: &[&str]) -> String {
    let text = attention.text();
    let error = model(&text).prove().map_err(|e| e.to_string()).expect_err(&text);
    for part in [&["depend on later tokens", "m.rs:"], why].concat() {
        assert!(error.contains(part), "{part}: {error}");
    }
    error
}

#[test]
fn attention_by_hand_is_the_op() {
    let built_in = text("    fn mix(q, k, v) { causal_attention(q, k, v, 0.5) }");
    proved(&built_in);
    proved(&CAUSAL.text());
    same(&CAUSAL.text(), &built_in);
    // The condition may be turned round, and masks may be made of masks.
    for drop in ["lt(i, j)", "gt(j - i, 0)", "gt(float(j), float(i))", "lt(2 * i - 2 * j, 0)"] {
        let attention = Attention { drop, ..CAUSAL };
        proved(&attention.text());
        same(&attention.text(), &built_in);
    }
    let keep = "select(keep, exp(s - reduce_max(s, -1)), 0.0)";
    let turned = Attention { weights: keep, ..CAUSAL }.text();
    let turned = turned
        .replace("let s = select(drop, -1e30, s)", "let keep = gt(i + 1, j); let s = select(keep, s, -1e30)");
    proved(&turned);
    same(&turned, &built_in);
    // exp(−∞) is zero whatever the scores are.
    let infinite = Attention { masked: "log(0.0)", weights: "exp(s - reduce_max(s, -1))", ..CAUSAL };
    proved(&infinite.text());
    same(&infinite.text(), &built_in);
}

#[test]
fn windows_and_biases_are_proved() {
    // Of a window as long as the sequence nothing is left out.
    for (width, is_all) in [("3", false), ("9", true)] {
        let drop = format!("select(gt(j, i), gt(j, i), gt(i - {width}, j - 1))");
        let window = Attention { drop: &drop, ..CAUSAL };
        proved(&window.text());
        let built_in = text("    fn mix(q, k, v) { causal_attention(q, k, v, 0.5) }");
        if is_all {
            same(&window.text(), &built_in);
        } else {
            assert_ne!(logits(&window.text()), logits(&built_in));
        }
    }
    let alibi = Attention { bias: "float(j - i) * 0.25", ..CAUSAL };
    proved(&alibi.text());
    // What is added to the scores is the same as a column more of q and k.
    let columns = text(
        r#"
    fn mix(q, k, v) {
        let at = reshape(float(positions(q)), [seq_len(q), 1, 1]);
        let (q, k) = (pad(q, 3, 0, 1), pad(k, 3, 0, 1));
        let last = eq(iota(5), 4);
        let y = causal_attention(select(last, 0.5, q), select(last, at, k), pad(v, 3, 0, 1), 0.5);
        slice(y, 3, 0, 4)
    }"#,
    );
    same(&alibi.text(), &columns);
}

#[test]
fn near_misses_are_refused() {
    for drop in ["gt(j, i + 1)", "gt(j - 1, i)", "lt(j, i)", "gt(i, j)", "gt(j, 3)", "gt(i, 3)", "eq(i, j)"] {
        refused(&Attention { drop, ..CAUSAL }, &[]);
    }
    refused(&Attention { drop: "gt(j, i + 1)", ..CAUSAL }, &["position i reads token i + 1"]);
    refused(&Attention { drop: "lt(j, i)", ..CAUSAL }, &["position 0 reads tokens up to the last"]);
    // Or instead of and; and the wrong branch.
    refused(&Attention { drop: "select(gt(j, i), gt(i - 3, j), gt(j, i))", ..CAUSAL }, &[]);
    refused(&Attention { weights: "select(drop, exp(s - reduce_max(s, -1)), 0.0)", ..CAUSAL }, &[]);
    // A mask of token values, and one that they could change.
    let value = "reshape(slice(q, 3, 0, 1), [2, head(2), time(n), 1])";
    let value = value.replace("slice(q", "slice(transpose(q, [0, 2, 1, 3])");
    refused(&Attention { drop: &format!("gt(float(j), {value})"), ..CAUSAL }, &[]);
    refused(&Attention { drop: &format!("gt(float(j), float(i) + 0.0 * {value})"), ..CAUSAL }, &[]);
}

#[test]
fn a_mask_after_the_softmax_or_on_another_axis_is_too_late() {
    // The sum of the softmax saw every score.
    let late = CAUSAL.text().replace("let s = select(drop, -1e30, s);", "").replace(
        "let e = select(drop, 0.0, exp(s - reduce_max(s, -1)));",
        "let e = select(drop, 0.0, softmax(s));",
    );
    let error = model(&late).prove().unwrap_err().to_string();
    assert!(error.contains("depend on later tokens") && error.contains("`reduce_max"), "{error}");
    assert!(error.contains("--> m.rs:"), "{error}");
    // Normalised over the queries of a key.
    let columns = CAUSAL.text().replace("(s, -1)", "(s, 2)");
    assert!(model(&columns).prove().is_err());
    // The values are met along the wrong axis.
    let wrong = CAUSAL.text().replace("[[3, 1]], [[0, 0], [1, 2]]", "[[2, 1]], [[0, 0], [1, 2]]");
    assert!(model(&wrong).prove().is_err());
}

#[test]
fn what_is_zero_only_for_some_numbers_is_no_mask() {
    let scores_alone = Attention { weights: "exp(s - reduce_max(s, -1))", ..CAUSAL };
    refused(&scores_alone, &["known to be zero"]);
    // Scores that small are as good as masked ones: then weights go to later positions.
    let small = scores_alone.text().replace("* 0.5 + 0.0", "* 0.5 - 2e30");
    let right = CAUSAL.text().replace("* 0.5 + 0.0", "* 0.5 - 2e30");
    assert_ne!(logits(&small)[0], logits(&right)[0]);
    let unbounded = Attention { values: "v", ..CAUSAL };
    refused(&unbounded, &["0 · ∞", "select(lt(v * v, 1e8), v, 0.0)"]);
}

#[test]
fn the_attention_of_the_reference_is_the_op() {
    let chapter = include_str!("../reference/causality.md");
    let example = chapter.split("\nfn attend").nth(1).and_then(|rest| rest.split("\n\nfn attn").next());
    let example = format!("fn attend{}", example.expect("an example"));
    let by_hand = text(&format!("{example}\n    fn mix(q, k, v) {{ attend(q, k, v) }}"));
    proved(&by_hand);
    same(&by_hand, &text("    fn mix(q, k, v) { causal_attention(q, k, v, 0.5) }"));
}

#[test]
fn a_model_that_leaks_at_one_size_is_refused() {
    let leaking = |when: &str| {
        let mixed = format!("let x = if {when} {{ x + sum(x, 1) }} else {{ x }};\n        let q");
        let text = CAUSAL.text().replacen("let q", &mixed, 1);
        let sizes = "train { batch_tokens = 1024; micro_batch_tokens = 128; seq_len = 16; }\n    eval { seq_len = 48; }";
        model(&text.replace("train { seq_len = 16; }", sizes)).prove()
    };
    leaking("dim(x, 0) > 64").unwrap();
    for (when, size) in
        [("dim(x, 0) == 8", "8 × 16"), ("seq_len(x) == 48", "2 × 48"), ("seq_len(x) > 47", "2 × 48")]
    {
        let error = leaking(when).unwrap_err().to_string();
        assert!(error.contains("depend on later tokens") && error.contains("`sum"), "{when}: {error}");
        assert!(error.contains(size), "{when}: {error}");
    }
}
