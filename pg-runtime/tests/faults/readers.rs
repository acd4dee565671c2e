//! What reads a run's files or its text, under faults.

use pg_testing::commands::Scratch;
use pg_testing::faults::{Call, Fault};

use crate::inputs::{copied, message};
use crate::scenarios::Ground;
use crate::{faults, names_any};

/// What reads a run's files or its text; `made` is the file that it writes.
pub(crate) struct Reader {
    pub(crate) args: Vec<&'static str>,
    made: Option<&'static str>,
}

pub(crate) fn readers() -> Vec<Reader> {
    let text = ["--val", "val_0.bin", "--tokenizer", "bpe.model"];
    let shards = ["--data", "train_*.bin", "--tokenizer", "bpe.model"];
    vec![
        Reader { args: [&["eval", "run/artifact.pg", "--json"][..], &text].concat(), made: None },
        Reader { args: vec!["audit", "run", "--json"], made: None },
        Reader { args: [&["data", "stats", "--json"][..], &shards].concat(), made: None },
        Reader {
            args: vec!["export", "small.rs", "--artifact", "again.pg", "--json"],
            made: Some("again.pg"),
        },
        Reader { args: vec!["export", "run/artifact.pg", "--safetensors", "w", "--json"], made: Some("w") },
    ]
}

/// A reader gives what it gives without faults, or says which file it could not read or write and leaves none that is not whole.
pub(crate) fn reads(ground: &Ground, begin: &Scratch, reader: &Reader) -> usize {
    let run = |fault: Fault| {
        let dir = copied(begin);
        let (output, calls) = ground.faulty(&dir, &reader.args, reader.args[0], fault);
        let made = reader.made.and_then(|name| std::fs::read(dir.path(name)).ok());
        (output, made, calls)
    };
    let (whole, whole_made, calls) = run(Fault::None);
    assert!(whole.status.success() && whole_made.is_some() == reader.made.is_some(), "{}", message(&whole));
    let all: Vec<Fault> = calls.iter().flat_map(faults).collect();
    for &fault in &all {
        let (output, made, calls) = run(fault);
        let failed: Vec<Call> = calls.into_iter().filter(|call| call.failed).collect();
        let said = format!("{}{}", message(&output), String::from_utf8_lossy(&output.stdout));
        let right = match output.status.code() {
            Some(0) => output.stdout == whole.stdout && made == whole_made,
            Some(1) => {
                names_any(&said, &failed)
                    && !said.contains("panicked")
                    && (made.is_none() || made == whole_made)
            }
            _ => false,
        };
        assert!(right, "{:?} under {fault:?} ({:?}): {said}", reader.args, failed.first());
    }
    all.len()
}
