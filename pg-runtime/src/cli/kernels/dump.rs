//! Kernels as files: for each, what it computes, its source and what that was compiled to; and an index of all.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use pg_codegen::cuda::{Built, Loop, Pipe, Walked};
use pg_codegen::kernels::{Entry, emit_in, formatted, listing};
use pg_codegen::machine::Language;
use pg_runtime::artifact::write_atomically;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::super::format::table;
use super::report::{ProgramReport, Report};

/// Name of the index in a folder of kernels.
pub(super) const INDEX: &str = "index.json";

/// What a folder holds, in order of programs and launches.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) kernels: Vec<Indexed>,
}

/// A kernel as a program launches it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Indexed {
    pub(super) program: String,
    /// Files: NAME.txt and the source.
    pub(super) name: String,
    /// File of the source.
    pub(super) source: String,
    /// Where in the model: what is the same before and after a change of the kernel.
    pub(super) what: String,
}

/// Writes every kernel once; the number of kernels.
pub(super) fn dump(report: &Report, language: Language, folder: &Path) -> anyhow::Result<usize> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut index = Index::default();
    let mut users: BTreeMap<&str, Vec<(&ProgramReport, &Entry)>> = BTreeMap::new();
    for program in &report.programs {
        for entry in &program.entries {
            let name = entry.kernel.name();
            users.entry(name).or_default().push((program, entry));
            index.kernels.push(Indexed {
                program: program.name.clone(),
                name: name.into(),
                source: format!("{name}.{}", language.extension()),
                what: what(program, entry),
            });
        }
    }
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        write_atomically(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    };
    let write_one = |(name, users): (&&str, &Vec<(&ProgramReport, &Entry)>)| -> anyhow::Result<()> {
        let plans: Vec<_> = users.iter().map(|(p, e)| (&p.plan, *e)).collect();
        let text = listing(&plans);
        let kernel = &users[0].1.kernel;
        let built = report.compiled.built(kernel);
        // What was compiled: CubeCL may place shared memory in another order the next time.
        let source = built.map_or_else(|| emit_in(kernel, language), |b| Ok(b.emitted.source.clone()))?;
        write(&format!("{name}.txt"), &text)?;
        write(&format!("{name}.{}", language.extension()), &formatted(&text, &source))?;
        if let Some(Built { compiled, .. }) = built {
            write(&format!("{name}.ptx"), &compiled.ptx)?;
            write(&format!("{name}.ptxas.txt"), &compiled.log)?;
        }
        if let Some(walked) = report.compiled.walked(kernel) {
            write(&format!("{name}.sass"), &walked.sass.text)?;
            write(&format!("{name}.loops.txt"), &loops(walked))?;
        }
        Ok(())
    };
    users.par_iter().try_for_each(write_one)?;
    write(INDEX, &serde_json::to_string_pretty(&index)?)?;
    Ok(users.len())
}

/// The loops of a kernel as a table, the one with the most instructions issued first.
fn loops(walked: &Walked) -> String {
    let mut loops = walked.loops();
    loops.sort_by(|a, b| b.share.total_cmp(&a.share));
    let mut headings = vec!["from", "to", "trips", "of the issued"];
    let pipes: Vec<String> = Pipe::ALL.iter().map(|pipe| format!("{pipe} cycles")).collect();
    headings.extend(pipes.iter().map(|p| &**p));
    let row = |l: &Loop| {
        let address = |at: usize| format!("{:04x}", walked.sass.instructions[at].address);
        let mut row = vec![address(*l.range.start()), address(*l.range.end())];
        row.extend([format!("{:.1}", l.trips), format!("{:.1} %", 100.0 * l.share)]);
        row.extend(Pipe::ALL.iter().map(|&pipe| format!("{:.2}", l.cycles.of(pipe))));
        row
    };
    let right: Vec<usize> = (2..headings.len()).collect();
    let rows = loops.iter().map(row).collect();
    format!(
        "Loops, without those inside them: addresses, trips of a warp, and what one trip of one warp keeps each unit of a\n\
         multiprocessor busy.\n\n{}\n",
        table(&headings, &right, rows)
    )
}

fn what(program: &ProgramReport, entry: &Entry) -> String {
    let text = listing(&[(&program.plan, entry)]);
    let wanted = |l: &&str| l.starts_with("in ") || l.starts_with("from ");
    let family = entry.kernel.name().rsplit_once('_').map_or("", |(family, _)| family);
    let parts: Vec<String> =
        text.lines().filter(wanted).map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    format!("{family} {}", parts.join(" "))
}
