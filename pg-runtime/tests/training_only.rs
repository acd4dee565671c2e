//! Parameters that only the loss reads: they are trained, and every command that reads or writes weights knows that no score
//! needs them.

use std::path::Path;
use std::process::Output;

use pg_testing::commands::Scratch;
use safetensors::SafeTensors;
use serde_json::Value;

/// tiny with a head that only training has, which does not begin at zero: whoever scored with it would see.
const AHEAD: &str = r#"pg_macros::model! {
    ahead from "tiny.rs" {
        fn table() { param("tok_emb.weight", [VOCAB, DIM], normal(0.02)) }
        fn hidden(tokens, table) { layers(rms_norm(gather(table, tokens))) }
        fn forward(tokens) {
            let table = table();
            tied_logits(hidden(tokens, table), table, 30.0)
        }
        fn loss(tokens, targets) {
            let table = table();
            let x = hidden(tokens, table);
            let ahead = project(rms_norm(shift(x, 1)), "ahead", VOCAB, normal(0.5));
            let next = mean(cross_entropy(tied_logits(x, table, 30.0), targets));
            next + 0.2 * mean(cross_entropy(softcap(ahead, 30.0), targets))
        }
        optim { "ahead.weight" => muon(lr = MATRIX_LR) }
        train { seq_len = 32; batch_tokens = 128; }
        eval { seq_len = 32; stride = 16; max_targets = 512; ttt { chunk = 128; } }
    }
}
"#;

const SMALL: [&str; 8] = ["--set", "LAYERS=2", "--set", "DIM=24", "--set", "HEADS=3", "--set", "KV_HEADS=1"];

fn scratch(text: &str) -> Scratch {
    let dir = Scratch::new(env!("CARGO_BIN_EXE_pg"));
    std::fs::copy(pg_testing::commands::TINY, dir.path("tiny.rs")).unwrap();
    std::fs::write(dir.path("model.rs"), text).unwrap();
    dir
}

#[track_caller]
fn succeeds(output: Output) -> Output {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[track_caller]
fn json(output: Output) -> Value {
    serde_json::from_slice(&succeeds(output).stdout).unwrap()
}

fn run(dir: &Scratch, out: &str, more: &[&str]) -> Output {
    let args = ["run", "model.rs", "--steps", "2", "--no-full-size", "--out", out];
    dir.pg(&[&args[..], &SMALL, more].concat())
}

fn names(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned).collect()
}

#[test]
fn they_are_trained_and_not_in_the_artifact() {
    let dir = scratch(AHEAD);
    let (head, all) = (1024 * 24, |path: &str| names(&dir.path(path)));
    let checked = json(dir.pg(&[&["--json", "check", "model.rs"], &SMALL[..]].concat()));
    let facts = &checked["models"][0];
    let [params, stored] = ["params", "stored_params"].map(|key| facts[key].as_u64().unwrap());
    assert_eq!(params - stored, head);
    let note = facts["notes"][0]["message"].as_str().unwrap();
    assert!(note.contains("`ahead.weight`") && note.contains("24576 elements"), "{note}");
    assert_eq!((&facts["notes"][0]["file"], &facts["notes"][0]["line"]), (&"model.rs".into(), &12.into()));

    let said = succeeds(run(&dir, "run", &[])).stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains(&format!("{params} parameters, {stored} of them in the artifact")), "{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(dir.path("run/report.json")).unwrap()).unwrap();
    let scored = json(dir.pg(&["--json", "eval", "run/artifact.pg", "--ttt"]));
    assert_eq!(scored["params"], stored);
    for score in ["quantized", "sliding", "ttt"] {
        assert!(scored["bpb"][score].is_f64(), "{scored}");
        assert_eq!(scored["bpb"][score], report["bpb"][score], "{score}");
    }
    assert!(report["ttt"]["updates"].as_u64().unwrap() > 0, "{report}");
    succeeds(dir.pg(&["audit", "run"]));

    // A run's weights are all; an artifact's are what scores depend on.
    succeeds(dir.pg(&["export", "run", "--safetensors", "all.safetensors"]));
    succeeds(dir.pg(&["export", "run/artifact.pg", "--safetensors", "scored.safetensors"]));
    assert!(all("all.safetensors").contains(&"ahead.weight".to_string()));
    let stored = all("scored.safetensors");
    assert!(!stored.contains(&"ahead.weight".to_string()));
    assert_eq!(stored.len() + 1, all("all.safetensors").len());
    for from in ["all.safetensors", "scored.safetensors"] {
        let export = ["export", from, "--model", "model.rs", "--artifact", "again.pg"];
        succeeds(dir.pg(&[&export[..], &SMALL].concat()));
        // Under another seed the head that is missing is another, and nothing else is.
        let init = run(&dir, &from.replace('.', "-"), &["--init", from, "--seed", "7"]);
        let said = String::from_utf8(succeeds(init).stderr).unwrap();
        let is_told = said.contains("does not hold `ahead.weight`, which no score depends on");
        assert_eq!(is_told, from == "scored.safetensors", "{said}");
    }
    let export = ["export", "model.rs", "--artifact", "initial.pg"];
    succeeds(dir.pg(&[&export[..], &SMALL].concat()));
}

/// Test-time training descends the scores: what the loss adds in training changes nothing there.
#[test]
fn test_time_training_knows_no_loss() {
    let plain = AHEAD
        .replace("fn loss(", "fn unused(")
        .replace("optim { \"ahead.weight\" => muon(lr = MATRIX_LR) }", "");
    let same = AHEAD.replace("next + 0.2 *", "next + 0.0 * stop_gradient(next) *");
    let scores = [&plain, &same].map(|text| {
        let dir = scratch(text);
        let export = ["export", "model.rs", "--seed", "3", "--artifact", "initial.pg"];
        succeeds(dir.pg(&[&export[..], &SMALL].concat()));
        let scored = json(dir.pg(&["--json", "eval", "initial.pg", "--ttt"]));
        assert_ne!(scored["bpb"]["ttt"], scored["bpb"]["sliding"]);
        scored["bpb"].clone()
    });
    assert_eq!(scores[0], scores[1]);
}

/// A model that reads another parameter at another length than its file's is not scored without it.
#[test]
fn a_score_that_needs_what_is_missing_is_refused() {
    let text = r#"pg_macros::model! {
        lengths from "tiny.rs" {
            fn mlp(x) {
                let name = if seq_len(x) < 16 { "short" } else if seq_len(x) == 32 { "eval" } else { "train" };
                leaky_relu_squared_mlp(x, MLP_DIM) * param(name, [DIM], ones)
            }
            fn loss(tokens, targets) {
                let again = slice(tokens, 1, 0, 8);
                mean(cross_entropy(forward(tokens), targets)) + 0.1 * mean(mlp_of(again))
            }
            fn mlp_of(tokens) {
                let short = scope("blocks.0.mlp", shared = true) { param("short", [DIM], ones) };
                short * mean(float(tokens))
            }
            train { seq_len = 64; batch_tokens = 128; }
            eval { seq_len = 32; max_targets = 512; }
        }
    }"#;
    let dir = scratch(text);
    let checked = json(dir.pg(&[&["--json", "check", "model.rs"], &SMALL[..]].concat()));
    assert!(checked["models"][0]["ok"].as_bool().unwrap(), "{checked}");
    succeeds(dir.pg(&[&["export", "model.rs", "--artifact", "a.pg"], &SMALL[..]].concat()));
    succeeds(dir.pg(&["eval", "a.pg"]));
    let refused = dir.pg(&["eval", "a.pg", "--targets", "8"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("short` is read here and is not in the artifact"), "{said}");
}

/// The case that this came of, at full size.
#[test]
fn heads_for_later_tokens_cost_no_bytes() {
    let dir = scratch("");
    let models = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/int4mlp_12l.rs");
    std::fs::copy(models, dir.path("int4mlp_12l.rs")).unwrap();
    let text = r#"pg_macros::model! {
    mtp from "int4mlp_12l.rs" {
        fn hidden(tokens, table) {
            let x0 = embed(tokens, table);
            let ve = layer_values(tokens);
            unet(x0, order(), |i, x| layer(i, x, x0, ve[i]))
        }
        fn table() { param("tok_emb.weight", [VOCAB, DIM], normal(TIED_EMBED_STD)) }
        fn forward(tokens) {
            let table = table();
            tied_logits(hidden(tokens, table), table, LOGIT_SOFTCAP)
        }
        fn loss(tokens, targets) {
            let table = table();
            let x = hidden(tokens, table);
            let mut total = mean(cross_entropy(tied_logits(x, table, LOGIT_SOFTCAP), targets));
            for k in 1..3 {
                let h = project(rms_norm(shift(x, k)), "mtp.{k}", VOCAB, zeros);
                total += 0.1 * mean(cross_entropy(softcap(h, LOGIT_SOFTCAP), targets));
            }
            total
        }
        optim { "mtp.*.weight" => muon(lr = MATRIX_LR, weight_decay = MUON_WD, ns_steps = NS_STEPS) }
    }
}"#;
    let source = pg_ir::lang::Source::parse("mtp.rs", text, &|_| {
        std::fs::read_to_string(dir.path("int4mlp_12l.rs")).map_err(|e| e.to_string())
    });
    let model = pg_ir::lang::elaborate(&source.unwrap(), &Default::default()).unwrap();
    assert_eq!((model.param_count(), model.stored_count()), (30_404_196, 29_355_620));
    let size = model.predict_size(pg_ir::footprint::Moment::Trained).unwrap().estimate_bytes;
    assert!((14_750_000..14_790_000).contains(&size), "{size}");
    let note = &model.notes.list[0];
    assert!(note.message.contains("`mtp.1.weight` and 1 more: 1048576 elements"), "{}", note.message);
}
