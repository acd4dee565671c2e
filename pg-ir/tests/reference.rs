//! The reference is true: every example compiles, every setting is read and has the default that is written down, and
//! the generated documents are those of this build.

use std::path::{Path, PathBuf};

use pg_ir::lang::model::Model;
use pg_ir::lang::{
    Diagnostics, Options, Source, elaborate, language_document, read_base, reference, settings,
    settings_document, topics,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What begins an item.
const ITEMS: [&str; 10] =
    ["const", "fn", "quant", "optim", "export", "weight_std", "train", "eval", "phases", "profile"];

/// A model around an example: a whole file, items of a model that derives from tiny.rs, or statements about x.
fn file(example: &str) -> String {
    let code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    let first = example.lines().find(code).unwrap_or_default();
    let word = first.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
    if example.contains("model!") {
        example.into()
    } else if ITEMS.contains(&word) {
        format!("model! {{ example from \"tiny.rs\" {{\n{example}\n}} }}")
    } else {
        let body = format!("scope(\"example\") {{\n{example}\n}}\nleaky_relu_squared_mlp(x, MLP_DIM)");
        format!("model! {{ example from \"tiny.rs\" {{ fn mlp(x) {{ {body} }} }} }}")
    }
}

/// The model of an example, proved.
fn compile(example: &str) -> Result<Model, Diagnostics> {
    let models = root().join("models");
    let base = |name: &str| read_base(&models.join(name).to_string_lossy());
    let model = elaborate(&Source::parse("example.rs", &file(example), &base)?, &Options::default())?;
    model.prove()?;
    Ok(model)
}

/// What is wrong with an example, if anything.
fn fault(what: &str, example: &str) -> Option<String> {
    let fault = match compile(example) {
        Err(e) => e.to_string(),
        // What nothing calls is not checked.
        Ok(model) => model.notes.list.into_iter().find(|d| d.message.contains("is never"))?.message,
    };
    Some(format!("{what}:\n{example}\n{fault}\n"))
}

/// Blocks of Markdown that are marked `pg`, with what follows the mark.
fn blocks(text: &str) -> Vec<(&str, &str)> {
    let fenced = text.split("\n```").skip(1).step_by(2);
    let marked = fenced.filter_map(|block| block.split_once('\n'));
    marked.filter_map(|(mark, code)| Some((mark.strip_prefix("pg")?.trim(), code))).collect()
}

#[test]
fn every_example_of_the_reference_compiles_or_is_refused() {
    let mut seen = 0;
    let mut faults = String::new();
    for topic in topics() {
        for (mark, code) in blocks(&topic.text) {
            match mark {
                "" => faults.extend(fault(topic.name, code)),
                "refused" if compile(code).is_err() => {}
                "refused" => faults += &format!("{}: this compiles:\n{code}\n", topic.name),
                other => panic!("{}: a block is marked `pg {other}`", topic.name),
            }
            seen += 1;
        }
    }
    assert!(faults.is_empty(), "{faults}");
    assert!(seen > 25, "{seen} examples");
}

#[test]
fn every_function_has_an_example_that_calls_it() {
    let all = reference();
    for f in &all {
        assert!(f.example.contains(&format!("{}(", f.name)), "{} has no example", f.name);
    }
    let faults: String = all.iter().filter_map(|f| fault(&f.name, f.example)).collect();
    assert!(faults.is_empty(), "{faults}");
    let signature = |name: &str| all.iter().find(|f| f.name == name).map(|f| &*f.signature);
    assert_eq!(signature("muon"), Some("muon(lr, weight_decay = 0.0, ns_steps = 5)"));
    assert_eq!(signature("mean"), Some("mean(x, axis = none)"));
}

/// The smallest model, with settings.
fn with(settings: &str) -> String {
    let forward = r#"fn forward(tokens) { gather(param("t", [16, 16], normal(0.02)), tokens) }"#;
    format!("model! {{ m {{ {forward} optim {{ \"*\" => adamw(lr = 0.01) }} {settings} }} }}")
}

#[test]
fn every_setting_is_read_and_its_example_says_so() {
    for s in settings() {
        let name = s.path;
        assert!(!s.doc.is_empty() && s.doc.ends_with('.'), "{name}: {}", s.doc);
        let key = name.rsplit('.').next().unwrap();
        assert!(s.example.contains(&format!("{key} = ")), "{name}: {}", s.example);
        assert_eq!(fault(name, s.example), None);
        // An initialiser is the value of no setting: who does not refuse it has not read it.
        let ttt = if name.starts_with("eval.ttt.") { "eval { ttt { } }" } else { "" };
        let block = name.split('.').next().unwrap();
        let wrong = with(&format!("{ttt} {block} {{ {} = zeros; }}", &name[block.len() + 1..]));
        let error = compile(&wrong).err().unwrap_or_else(|| panic!("{name} is not read"));
        assert!(error.list.iter().any(|d| d.message.contains(name) || d.message.contains("Init")), "{error}");
    }
}

/// What no reader would look at is an error.
#[test]
fn what_stands_in_the_wrong_block_is_said() {
    let says = |settings: &str| -> Vec<String> {
        let error = compile(&with(settings)).err().unwrap_or_else(|| panic!("{settings}"));
        error.list.into_iter().map(|d| d.message).collect()
    };
    assert_eq!(says("eval { tt { } }"), ["`eval` has no group `tt`"]);
    assert_eq!(says("train { ttt { } }"), ["`train` has no group `ttt`"]);
    assert_eq!(says("eval { tt { chunk = 5; } }"), ["unknown setting `eval.tt.chunk`"]);
    assert_eq!(says("train { \"*\" => 3, }"), ["`train` has settings, and no rules"]);
    assert_eq!(says("optim { lr = 3; }"), ["unknown setting `optim.lr`"]);
    assert_eq!(
        says("eval { ttt.chunk = 5; }"),
        ["`eval.ttt.chunk` is set, but this model has no test-time training"]
    );
}

/// An empty model has the defaults that the records give.
#[test]
fn defaults_are_what_an_empty_model_gets() {
    let model = compile(&with("eval { ttt { } }")).unwrap_or_else(|e| panic!("{e}"));
    let (train, eval, export) = (&model.train, &model.eval, &model.export);
    let ttt = eval.ttt.as_ref().unwrap();
    let seconds = |s: Option<f64>| s.map_or("none".to_string(), |s| format!("{s:?}"));
    let count = |n: Option<usize>| n.map_or("none".to_string(), |n| n.to_string());
    let gets = [
        ("train.seq_len", train.seq_len.to_string()),
        ("train.batch_tokens", "train.seq_len".into()),
        ("train.micro_batch_tokens", "train.batch_tokens".into()),
        ("train.steps", "100 if train.seconds is none, else none".into()),
        ("train.seconds", seconds(train.seconds)),
        ("train.warmdown_steps", train.warmdown_steps.to_string()),
        ("train.momentum_start", format!("{:?}", train.momentum_start)),
        ("train.momentum_end", format!("{:?}", train.momentum_end)),
        ("train.momentum_warmup_steps", train.momentum_warmup_steps.to_string()),
        ("train.grad_clip", format!("{:?}", train.grad_clip)),
        ("train.ema_decay", format!("{:?}", train.ema_decay)),
        ("train.seed", train.seed.to_string()),
        ("eval.seq_len", "train.seq_len".into()),
        ("eval.stride", "half of eval.seq_len, rounded up".into()),
        ("eval.rescore_tail", eval.rescore_tail.to_string()),
        ("eval.max_targets", count(eval.max_targets)),
        ("eval.seconds", seconds(eval.seconds)),
        ("eval.separate_documents", eval.separate_documents.to_string()),
        ("eval.ttt.chunk", ttt.chunk.to_string()),
        ("eval.ttt.lr", format!("{:?}", ttt.lr)),
        ("eval.ttt.momentum", format!("{:?}", ttt.momentum)),
        ("eval.ttt.epochs", ttt.epochs.to_string()),
        ("eval.ttt.batch_seqs", ttt.batch_seqs.to_string()),
        ("eval.ttt.grad_clip", format!("{:?}", ttt.grad_clip)),
        ("eval.ttt.freeze", "[]".into()),
        ("export.cap_bytes", export.cap_bytes.to_string()),
        ("export.rule", format!("\"{}\"", export.rule)),
        ("export.f16_up_to", "65536".into()),
    ];
    let said: Vec<(&str, String)> = settings().into_iter().map(|s| (s.path, s.default)).collect();
    assert_eq!(said, gets);
    assert!(model.params.values().all(|p| !p.ttt_frozen));

    // What is computed, from what is written.
    let model = compile(&with("train { seq_len = 10; }")).unwrap_or_else(|e| panic!("{e}"));
    let (train, eval) = (&model.train, &model.eval);
    assert_eq!((train.batch_tokens, train.micro_batch_tokens, train.steps), (10, 10, Some(100)));
    assert_eq!((eval.seq_len, eval.stride, &eval.ttt), (10, 5, &None));
    let model = compile(&with("train { seconds = 1.0; batch_tokens = 512; } eval { seq_len = 7; }"));
    let model = model.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((model.train.steps, model.train.micro_batch_tokens, model.eval.stride), (None, 512, 4));
    let stored = |elements: usize| {
        let table = format!(
            "fn loss(tokens, targets) {{ mean(forward(tokens)) }} fn forward(tokens) {{ gather(param(\"t\", [{elements}, 1], zeros), tokens) }}"
        );
        let text = format!("model! {{ m {{ {table} optim {{ \"*\" => adamw(lr = 0.01) }} }} }}");
        format!("{:?}", compile(&text).unwrap_or_else(|e| panic!("{e}")).params["t"].export)
    };
    assert_eq!(stored(65_536), "F16");
    assert!(stored(65_537).starts_with("QuantileRows"));
}

#[test]
fn the_documents_are_those_of_this_build() {
    let regenerate = std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always");
    for (name, text) in [("LANGUAGE.md", language_document()), ("SETTINGS.md", settings_document())] {
        let path = root().join("docs").join(name);
        if regenerate {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        let differs = found.lines().zip(text.lines()).position(|(a, b)| a != b);
        assert!(
            found == text,
            "docs/{name} is stale from line {}: INSTA_UPDATE=always cargo test --release --test reference",
            differs.unwrap_or(found.lines().count().min(text.lines().count())) + 1
        );
    }
}
