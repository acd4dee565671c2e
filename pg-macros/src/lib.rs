//! `model!`: the front end of `pg-ir` at compile time. This crate only moves text, tokens and errors
//! between rustc and the parser and elaborator that `pg` uses at run time.

mod places;

use std::path::{Path, PathBuf};

use pg_ir::footprint::Moment;
use pg_ir::input::Kind;
use pg_ir::lang::model::Model;
use pg_ir::lang::{Diagnostic, Diagnostics, Options, Severity, Source, elaborate, read_base};
use places::Places;
use proc_macro2::TokenStream;
use quote::quote;

/// Declares a model and checks it: names, shapes, heads, patterns, every profile, the artifact's size, and
/// that no score depends on a later token or goes around a quantiser.
///
/// The text between the braces is the model language (README, "The language"); `pg run FILE` reads the same
/// text at run time. Errors stand at the offending token. The macro expands to
///
/// - `NAME`, with the model's doc comment,
/// - `PARAMS`, the number of parameters,
/// - `ARTIFACT_RAW_BYTES`, `ARTIFACT_ESTIMATE_BYTES` and `CAP_BYTES`,
/// - `CONSTANTS`, names and values of the model's constants,
/// - `SOURCE`, the text of the file.
#[proc_macro]
pub fn model(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let file = proc_macro::Span::call_site().local_file();
    expand(input.into(), file).into()
}

fn expand(input: TokenStream, file: Option<PathBuf>) -> TokenStream {
    let places = Places::of(&input);
    // Without a file (in an editor, say) positions still hold, and only excerpts and `from` are lost.
    let name = file.as_deref().map_or_else(|| "model".into(), Path::to_string_lossy);
    let text = file.as_deref().and_then(|f| Kind::MODEL.read_text(f).ok());
    let shown = text.clone().unwrap_or_else(|| input.to_string());
    let source = Source::from_tokens(&name, &shown, input, &read_base);
    let (checked, found) = check(source);
    let errors: TokenStream = found.iter().map(|found| report(found, &name, &places)).collect();
    let facts = checked.map(|(model, source)| facts(&model, &source, text.is_some()));
    quote!(#errors #facts)
}

/// A model with its source, if it is one, and all that is found wrong with it.
fn check(source: Result<Source, Diagnostics>) -> (Option<(Model, Source)>, Vec<Diagnostics>) {
    let elaborated = source.and_then(|source| Ok((elaborate(&source, &Options::default())?, source)));
    let (model, source) = match elaborated {
        Ok(both) => both,
        Err(wrong) => return (None, vec![wrong]),
    };
    let mut found = vec![model.check_size()];
    found.extend(model.prove().err());
    // Nobody should find out from `--profile` that a profile is no model.
    for profile in &model.profiles {
        let options = Options { profile: Some(profile.clone()), ..Options::default() };
        found.extend(elaborate(&source, &options).err());
    }
    found.retain(Diagnostics::has_errors);
    (Some((model, source)), found)
}

/// One `compile_error!` for each error, at its place.
fn report(all: &Diagnostics, file: &str, places: &Places) -> TokenStream {
    let errors = all.list.iter().filter(|d| d.severity == Severity::Error);
    errors.map(|d| places.error(d.span_in(file), &message(d, file))).collect()
}

/// A finding as rustc's message text: rustc itself shows the innermost place in this file, and stable Rust
/// has no further labels, so the others follow as notes.
fn message(d: &Diagnostic, file: &str) -> String {
    let mut text = d.message.clone();
    let shown = d.span_in(file);
    let here = (!d.here.is_empty() && shown != Some(&d.span)).then_some((&d.span, &d.here));
    if shown != Some(&d.span) && here.is_none() {
        text.push_str(&format!("\n  --> {}", d.loc()));
    }
    let labels = here.into_iter().chain(d.labels.iter().map(|(s, t)| (s, t)));
    for (span, label) in labels {
        // A path of this machine is noise where rustc names the file anyway.
        let loc = span.loc();
        let place = if *loc.file == *file { format!("line {}", loc.line) } else { loc.to_string() };
        text.push_str(&format!("\n  {place}: {label}"));
    }
    if let Some(help) = &d.help {
        text.push_str(&format!("\n  help: {help}"));
    }
    text
}

/// The checked facts as constants.
fn facts(model: &Model, source: &Source, on_disk: bool) -> TokenStream {
    let (name, params, cap) = (&model.name, model.param_count(), model.export.cap_bytes);
    let doc = format!(" {}", model.doc.replace('\n', "\n "));
    // An estimate that cannot be made has been reported as an error.
    let size = model.predict_size(Moment::Trained).ok();
    let (raw, estimate) = size.map_or((0, 0), |s| (s.raw_bytes, s.estimate_bytes));
    let (keys, values): (Vec<_>, Vec<_>) = model.consts.iter().unzip();

    // include_str! makes cargo rebuild when a file changes that is not itself part of the crate.
    let absolute = |file: &str| std::path::absolute(file).ok().map(|p| p.to_string_lossy().into_owned());
    let mut files = source.texts().iter().map(|t| (absolute(&t.file).filter(|_| on_disk), &*t.text));
    let included = |(path, text): (Option<String>, &str)| match path {
        Some(path) => quote!(::core::include_str!(#path)),
        None => quote!(#text),
    };
    let own = files.next().map(included);
    let bases: Vec<TokenStream> = files.map(included).collect();
    quote! {
        #[doc = #doc]
        pub const NAME: &str = #name;
        /// Number of parameters.
        pub const PARAMS: usize = #params;
        /// Bytes of the artifact without entropy coding.
        pub const ARTIFACT_RAW_BYTES: u64 = #raw;
        /// Estimated bytes of the artifact.
        pub const ARTIFACT_ESTIMATE_BYTES: u64 = #estimate;
        /// The most that the artifact and the text it needs may weigh.
        pub const CAP_BYTES: u64 = #cap;
        /// Names and values of the model's constants.
        pub const CONSTANTS: &[(&str, &str)] = &[#((#keys, #values)),*];
        /// The text of the model file.
        pub const SOURCE: &str = #own;
        const _: &[&str] = &[#(#bases),*];
    }
}

#[cfg(test)]
mod tests {
    use pg_testing::wrong_models::{Case, FILE, base, findings, groups};
    use proc_macro2::TokenTree;

    use super::*;

    /// What stands between the braces of a case's only `model! { … }`, as rustc hands it over; `None` where rustc itself
    /// refuses the text, or there is no such macro.
    fn input(case: &Case) -> Option<TokenStream> {
        // proc-macro2 takes it for white space.
        if case.text.contains('\u{a0}') {
            return None;
        }
        let trees: Vec<TokenTree> = case.text.parse::<TokenStream>().ok()?.into_iter().collect();
        match &trees[..] {
            [TokenTree::Ident(name), TokenTree::Punct(_), TokenTree::Group(group)] if name == "model" => {
                Some(group.stream())
            }
            _ => None,
        }
    }

    /// The macro and the command find the same, at the same places, in the same words.
    #[test]
    fn the_macro_says_what_the_command_says() {
        let cases = groups().into_iter().flat_map(|(_, cases)| cases);
        let without_options = cases.filter(|c| c.options.overrides.is_empty() && c.options.profile.is_none());
        let mut compared = 0;
        for case in without_options {
            let Some(input) = input(&case) else { continue };
            let command = findings(Source::parse(FILE, &case.text, &base), &case.options);
            let (_, found) = check(Source::from_tokens(FILE, &case.text, input, &base));
            if !command.has_errors() {
                // Warnings are the command's alone; the macro has errors of profiles, too.
                continue;
            }
            let first = found.first().unwrap_or_else(|| panic!("the macro accepts {}", case.name));
            assert_eq!(first.list, command.list, "{}", case.name);
            for d in first.list.iter().filter(|d| d.span_in(FILE) == Some(&d.span)) {
                let said = message(d, FILE);
                let rendered = command.render(d);
                let labels = d.labels.iter().map(|(_, label)| label);
                for part in labels.chain([&d.message]).chain(&d.help) {
                    assert!(said.contains(part) && rendered.contains(part), "{}: {part}", case.name);
                }
            }
            compared += 1;
        }
        assert!(compared >= 120, "only {compared} were compared");
    }
}
