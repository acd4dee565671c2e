//! Models with a mistake each, and everything that is said of them before a run: `wrong_models/*.pg`.
//!
//! A case begins with `//@ KIND NAME`, optionally with `| --set A=1 --profile B`. Its text is the whole file (`file`), or
//! goes into a small model: among its items (`items`), in place of them and of `forward` (`model`), or of the rest of
//! `forward` (`body`).

use std::path::Path;

use pg_ir::lang::{Diagnostics, Options, Override, Source, elaborate};

/// A wrong model.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the mistake is, in a word.
    pub name: String,
    /// The text of the file.
    pub text: String,
    /// What the command line adds.
    pub options: Options,
}

/// The name of every case's file.
pub const FILE: &str = "m.rs";

/// Every group of cases by name, in order.
pub fn groups() -> Vec<(String, Vec<Case>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("wrong_models");
    let entries = std::fs::read_dir(&folder).expect("the folder of wrong models");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let group = |path: &std::path::PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, cases(&std::fs::read_to_string(path).expect("a text")))
    };
    files.iter().map(group).collect()
}

fn cases(text: &str) -> Vec<Case> {
    let parts = text.split("//@ ").skip(1);
    let case = |part: &str| {
        let (head, fragment) = part.split_once('\n').expect("a case has a text");
        let (head, given) = head.split_once('|').unwrap_or((head, ""));
        let (kind, name) = head.trim().split_once(' ').expect("KIND NAME");
        let mut options = Options::default();
        let mut words = given.split_whitespace();
        while let (Some(option), Some(value)) = (words.next(), words.next()) {
            match option {
                "--set" => {
                    let (name, value) = value.split_once('=').expect("NAME=VALUE");
                    options.overrides.push(Override::set(name, value));
                }
                "--profile" => options.profile = Some(value.into()),
                other => panic!("{name}: {other}"),
            }
        }
        Case { name: name.into(), text: whole(kind, fragment.trim_end()), options }
    };
    parts.map(case).collect()
}

/// A file around a fragment.
fn whole(kind: &str, fragment: &str) -> String {
    let indented = |depth: usize| {
        let line = |line: &str| if line.is_empty() { String::new() } else { format!("{:depth$}{line}", "") };
        fragment.lines().map(line).collect::<Vec<_>>().join("\n")
    };
    let forward = |body: &str| {
        let embed = r#"let x = gather(param("emb.weight", [VOCAB, DIM], normal(0.02)), tokens);"#;
        format!("        fn forward(tokens) {{\n            {embed}\n{body}\n        }}")
    };
    let items = match kind {
        "file" => return fragment.to_string() + "\n",
        "items" => indented(8) + "\n\n" + &forward(r#"            project(rms_norm(x), "head", VOCAB)"#),
        "model" => indented(8),
        "body" => forward(&indented(12)),
        other => panic!("unknown kind of case: {other}"),
    };
    format!(
        r#"model! {{
    m {{
        const VOCAB = 32;
        const DIM = 8;

{items}

        optim {{
            "*" => adamw(lr = 0.1),
        }}
    }}
}}
"#
    )
}

/// A base that a case can derive from; there are no other files.
pub fn base(path: &str) -> Result<String, String> {
    match path {
        "base.rs" => {
            Ok(whole("items", "train { seq_len = 16; batch_tokens = 64; }").replace(" m {", " base {"))
        }
        "loop.rs" => Ok("model! { l from \"loop.rs\" { } }\n".into()),
        _ => Err("No such file or directory (os error 2)".into()),
    }
}

/// Everything that is said of a source before a run: of what is wrong if it is, else of what may be.
pub fn findings(source: Result<Source, Diagnostics>, options: &Options) -> Diagnostics {
    let model = match source.and_then(|source| elaborate(&source, options)) {
        Ok(model) => model,
        Err(wrong) => return wrong,
    };
    let size = model.check_size();
    if size.has_errors() {
        return size;
    }
    match model.prove() {
        Err(refused) => refused,
        Ok(()) => model.notes,
    }
}
