//! The language, for people: functions and settings with what they say of themselves, and chapters by topic.

mod document;
mod examples;
mod topics;

pub use self::document::{language_document, settings_document};
pub use self::topics::{Topic, topics};
use super::builtins::{self, Builtin};
use super::library::Library;
use super::settings::keys;
use crate::optim::{self, Range};

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
    /// How a model file calls it.
    pub example: &'static str,
}

/// A setting that a model file can write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SettingReference {
    /// `block.key` or `block.group.key`.
    pub path: &'static str,
    /// What its value may be, as in `Int from 1`.
    pub kind: &'static str,
    /// What it is where no file writes it: a value, or in words what it follows from.
    pub default: String,
    /// Whether the default follows from other settings.
    pub is_computed: bool,
    /// What it counts, as in `tokens`; empty for a plain number or no number.
    pub unit: &'static str,
    /// What it means.
    pub doc: &'static str,
    /// How a model file writes it.
    pub example: &'static str,
}

impl SettingReference {
    /// What its value may be and what it counts: `Int from 1, tokens`.
    pub fn value(&self) -> String {
        if self.unit.is_empty() { self.kind.into() } else { format!("{}, {}", self.kind, self.unit) }
    }
}

/// Every setting of the `train`, `eval` and `export` blocks.
pub fn settings() -> Vec<SettingReference> {
    keys::all()
}

/// Every builtin, then every library function in the order of its files.
pub fn reference() -> Vec<Reference> {
    let builtins = builtins::all().map(|b| Reference {
        name: b.name.into(),
        signature: with_defaults(b),
        doc: b.doc.into(),
        text: None,
        example: examples::of(b.name),
    });
    let library = Library::std();
    let functions = library.functions().map(|f| {
        let params = f.params.iter().map(|p| match &p.default {
            Some(default) => format!("{} = {}", p.name.text, library.text_at(&default.span)),
            None => p.name.text.to_string(),
        });
        Reference {
            name: f.name.text.to_string(),
            signature: format!("{}({})", f.name.text, params.collect::<Vec<_>>().join(", ")),
            doc: f.doc.clone(),
            text: Some(library.text_of(f)),
            example: examples::of(&f.name.text),
        }
    });
    builtins.chain(functions).collect()
}

/// A builtin's signature, with defaults where they are numbers.
fn with_defaults(b: &Builtin) -> String {
    let optimiser = optim::ALL.iter().find(|(name, ..)| *name == b.name);
    let Some((name, _, settings, _)) = optimiser else { return b.signature() };
    let params = settings.iter().map(|s| match (s.default, s.range) {
        (None, _) => s.name.to_string(),
        (Some(default), Range::Count) => format!("{} = {default}", s.name),
        (Some(default), _) => format!("{} = {default:?}", s.name),
    });
    format!("{name}({})", params.collect::<Vec<_>>().join(", "))
}
