//! Every text that failed once, and what the shrinker makes of one that fails.

use pg_fuzz::harness::Settings;
use pg_fuzz::search::alone;
use pg_fuzz::shrink::shrink;
use pg_fuzz::text::Text;
use pg_fuzz::{cases, generate, rules};

#[test]
fn texts_that_failed_once() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(cases::folder()).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        count += 1;
        if let Err(e) = alone(|| cases::hold(&text, &Settings::default())) {
            wrong.push(format!("{}: {e}", path.display()));
        }
    }
    assert!(count >= 9, "{count} cases");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a text has a bigram hash that attention's values or keys can see, as a failure might need.
fn has(text: &Text, words: &[&str]) -> bool {
    let written = text.to_string();
    words.iter().all(|w| written.contains(w)) && rules::params(text).is_ok()
}

#[test]
fn a_failure_shrinks_to_what_it_needs() {
    let words = ["causal_attention(", "shift(", "sigmoid("];
    let mut tried = 0;
    for seed in 0..200 {
        let text = generate::model(seed);
        if !has(&text, &words) {
            continue;
        }
        tried += 1;
        let fails = |t: &Text| {
            let mut t = t.clone();
            rules::settle(&mut t).is_ok() && has(&t, &words)
        };
        let mut least = shrink(&text, 4000, fails);
        rules::settle(&mut least).unwrap();
        let written = least.to_string();
        assert!(has(&least, &words), "{written}");
        let statements: usize = least.functions.iter().map(|f| f.body.stmts.len()).sum();
        assert!(
            statements <= 8 && least.functions.len() <= 3,
            "seed {seed}: {statements} statements\n{written}"
        );
        assert!(written.len() < text.to_string().len());
        if tried == 5 {
            return;
        }
    }
    panic!("only {tried} texts had {words:?}");
}
