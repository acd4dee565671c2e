//! Patterns over parameters, as rules of `quant` and `optim` have them: which parameters a text declares, and which
//! of its rules still say something. pg refuses a rule that fits nothing, so a text that loses a parameter must lose
//! its rules, too.

use pg_ir::lang::model::Model;
use pg_ir::lang::{Options, Source, elaborate};

use crate::text::{Rule, Text};

/// A parameter's path and shape.
pub type Param = (String, Vec<usize>);

/// Elaborates a text; the error is pg's own.
pub fn elaborated(text: &str) -> Result<Model, String> {
    let source = Source::parse("random.rs", text, &|_| Err("a random model has no base".into()));
    let source = source.map_err(|e| e.to_string())?;
    elaborate(&source, &Options::default()).map_err(|e| e.to_string())
}

/// The parameters that a text declares.
pub fn params(text: &Text) -> Result<Vec<Param>, String> {
    let everything = Rule { glob: "*".into(), value: "adamw(lr = 0.01)".into() };
    let bare = Text { quant: Vec::new(), optim: vec![everything], ..text.clone() };
    let model = elaborated(&bare.to_string())?;
    Ok(model.params.values().map(|p| (p.name.clone(), p.shape.clone())).collect())
}

/// Leaves out rules that fit no parameter, or matrices that are none any more.
pub fn settle(text: &mut Text) -> Result<(), String> {
    let params = params(text)?;
    let hits = |glob: &str| params.iter().filter(|p| fits(glob, &p.0)).collect::<Vec<_>>();
    text.quant.retain(|rule| !hits(&rule.glob).is_empty());
    text.optim.retain(|rule| {
        let hits = hits(&rule.glob);
        let is_muon = rule.value.starts_with("muon");
        !hits.is_empty() && (!is_muon || hits.iter().all(|p| p.1.len() == 2))
    });
    Ok(())
}

/// Whether a pattern fits a name: `*` stands for anything, `{a,b}` for either.
pub fn fits(pattern: &str, name: &str) -> bool {
    if let Some((before, rest)) = pattern.split_once('{') {
        let Some((inside, after)) = rest.split_once('}') else { return false };
        return inside.split(',').any(|part| fits(&format!("{before}{part}{after}"), name));
    }
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, rest)) => name
            .strip_prefix(before)
            .is_some_and(|tail| (0..=tail.len()).any(|i| tail.is_char_boundary(i) && fits(rest, &tail[i..]))),
    }
}
