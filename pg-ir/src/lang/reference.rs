//! The language's functions, for people: builtins and the standard library with what they say of
//! themselves.

use super::builtins;
use super::library::Library;

/// A function that a model file can call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Name.
    pub name: String,
    /// `name(x, axis = …)`
    pub signature: String,
    /// What it gives, with shapes for library functions.
    pub doc: String,
    /// Its text, if it is written in the language itself.
    pub text: Option<String>,
}

/// Every builtin, then every library function in the order of its files.
pub fn reference() -> Vec<Reference> {
    let builtins = builtins::all().map(|b| Reference {
        name: b.name.into(),
        signature: b.signature(),
        doc: b.doc.into(),
        text: None,
    });
    let library = Library::std();
    let functions = library.functions().map(|f| {
        let params = f.params.iter().map(|p| match p.default {
            Some(_) => format!("{} = …", p.name.text),
            None => p.name.text.to_string(),
        });
        Reference {
            name: f.name.text.to_string(),
            signature: format!("{}({})", f.name.text, params.collect::<Vec<_>>().join(", ")),
            doc: f.doc.clone(),
            text: Some(library.text_of(f)),
        }
    });
    builtins.chain(functions).collect()
}
