//! Model texts that ask for too much: deep, long, or growing while they are evaluated. Each is small to write down and
//! must end in one finding, soon and in little memory.

/// A text and what is said of it.
pub struct Hostile {
    /// For messages of tests.
    pub name: &'static str,
    /// The model file.
    pub text: String,
    /// Part of the one finding.
    pub says: &'static str,
}

/// A model with `body` in its forward function and `items` beside it.
pub fn model(body: &str, items: &str) -> String {
    format!(
        r#"pg_macros::model! {{
    m {{
        {items}
        fn forward(tokens) {{
            let x = gather(param("emb.weight", [1024, 8], normal(0.02)), tokens);
            {body}
            linear(x, param("head.weight", [1024, 8], normal(0.02)))
        }}
        optim {{ "*" => adamw(lr = 0.01) }}
        train {{ batch_tokens = 512; seq_len = 128; steps = 3; }}
    }}
}}
"#
    )
}

/// `n` selects in a row, which is deep as a graph but not as a text, and sound.
pub fn chained_selects(n: usize) -> String {
    let step = "y = select(gt(y, 0.0), y * 1.0001, y);";
    model(&format!("let mut y = x; for i in 0..{n} {{ {step} }} let x = y;"), "")
}

/// `open` and `close` around `inside`, so many times.
pub fn nested(open: &str, inside: &str, close: &str, depth: usize) -> String {
    format!("{}{inside}{}", open.repeat(depth), close.repeat(depth))
}

/// Each constant holds the one before twice.
fn doubling_constants() -> String {
    (1..40).fold("const A0 = [1];".into(), |text, i| format!("{text} const A{i} = [A{}, A{}];", i - 1, i - 1))
}

/// All of them.
pub fn texts() -> Vec<Hostile> {
    let mut all = deep();
    all.extend(long());
    all.extend(growing());
    all
}

fn deep() -> Vec<Hostile> {
    let delimiters = "delimiters nest more than 128 deep";
    let expressions = "expressions nest more than 128 deep";
    let values = "hold each other more than 64 deep";
    let in_body = |code: String| model(&format!("let y = {code};"), "");
    let constant = |code: String| model("", &format!("const A = {code};"));
    let calls: String = (0..60)
        .map(|i| format!("fn f{i}(x) {{ {} }}\n", nested("{", &format!("f{}(x)", i + 1), "}", 100)))
        .collect();
    [
        ("blocks", in_body(nested("{", "1", "}", 1650)), delimiters),
        ("parentheses", constant(nested("(", "1", ")", 2700)), delimiters),
        ("patterns", model(&format!("let {} = 1;", nested("[", "a", "]", 5000)), ""), delimiters),
        ("closures", in_body("|a| ".repeat(5000) + "1"), expressions),
        ("signs", constant("- ".repeat(5000) + "1"), expressions),
        ("methods", in_body("x".to_string() + &".tanh()".repeat(5000)), expressions),
        ("indices", in_body("[1]".to_string() + &"[0]".repeat(5000)), expressions),
        ("operators of all levels", in_body(nested("1 || 1 && 1 == 1 + 1 * (", "1", ")", 100)), expressions),
        ("a deep list", model("let mut l = [1]; for i in 0..1000000 { l = [l]; }", ""), values),
        ("a deep closure", model("let mut f = |x| x; for i in 0..100000 { f = |y| f(y); }", ""), values),
        (
            "deep calls",
            model("let y = f0(1);", &format!("{calls} fn f60(x) {{ x }}")),
            "evaluated more than 256 deep",
        ),
    ]
    .map(|(name, text, says)| Hostile { name, text, says })
    .into()
}

fn long() -> Vec<Hostile> {
    let rules = |rule: &str, n: usize| model("", &format!("optim {{ {} }}", format!("{rule}, ").repeat(n)));
    let named = |n: usize| "scope(\"a_scope_of_thirty_characters_1\") {".repeat(n) + "1" + &"}".repeat(n);
    [
        (
            "digits",
            model("", &format!("const A = {};", "1".repeat(100_000))),
            "a number has at most 64 characters",
        ),
        ("rules", rules("\"*\" => adamw(lr = 0.01)", 20_000), "at most 4096 rules"),
        (
            "alternatives",
            rules(&format!("\"{}\" => adamw(lr = 0.01)", "{a,b}".repeat(60)), 1),
            "a pattern has at most 256 characters",
        ),
        ("arguments", model(&format!("let y = max({});", "1, ".repeat(5000)), ""), "at most 255 arguments"),
        ("tokens", model("", &format!("const A = [{}];", "1,".repeat(140_000))), "at most 262144 tokens"),
        ("bytes", " ".repeat(2_000_000), "at most 1048576 bytes"),
        ("axes", model("let l = 0..100; let y = reshape(x, l);", ""), "at most 16 axes"),
        ("a long name", model(&named(20), ""), "at most 512 characters"),
    ]
    .map(|(name, text, says)| Hostile { name, text, says })
    .into()
}

fn growing() -> Vec<Hostile> {
    let bytes = "makes more than 67108864 bytes of text";
    let items = "puts more than 3145728 items into lists";
    let steps = "takes more than 10000000 steps";
    let twice = "let mut s = [1]; let mut t = [1]; for i in 0..40 { s = [s, s]; t = [t, t]; }";
    let body = |code: &str| model(code, "");
    [
        ("doubled strings", body("let mut s = \"x\"; for i in 0..40 { s = \"{s}{s}\"; }"), bytes),
        ("doubled strings by +", body("let mut s = \"x\"; for i in 0..40 { s = s + s; }"), bytes),
        ("printed lists that share", body(&format!("{twice} let y = \"{{s}}\";")), bytes),
        ("constants that share", model("", &doubling_constants()), bytes),
        ("a long list", body("let mut l = [0]; for i in 0..1000000 { l.push(i); }"), items),
        ("copied lists", body("let l = 0..100000; for i in 0..1000 { let m = reversed(l); }"), items),
        ("compared lists that share", body(&format!("{twice} let y = s == t;")), steps),
        ("empty loops", body("let l = 0..1000000; for i in l { for j in l { } }"), steps),
        ("nodes", body("let mut y = x; for i in 0..1000000 { y = tanh(y); }"), "more than 200000 nodes"),
        (
            "captured variables",
            body(&format!("{} for i in 0..100000 {{ let f = |x| 1; }}", "let a = 1; ".repeat(5000))),
            items,
        ),
        (
            "phases of constants",
            model("", &{
                let constants: String = (0..5000).map(|i| format!("const V{i} = {i};")).collect();
                let phases: String =
                    (0..5000).map(|i| format!("p{i} at step({i}) {{ V0 = {i}; }} ")).collect();
                format!("{constants} phases {{ {phases} }}")
            }),
            items,
        ),
    ]
    .map(|(name, text, says)| Hostile { name, text, says })
    .into()
}
