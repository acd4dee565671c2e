//! Kernels for reading: what one computes, from which lines of the model, on which buffers, and its source
//! indented.
//!
//! The text must be the same in every build of the same kernel, so that two dumps can be compared.

use std::fmt::Write;

use super::inventory::Entry;
use super::stage::StageArg;
use crate::plan::Plan;
use crate::report::provenance::Line;
use crate::report::summary::generalise;

/// What a kernel computes, for the plans that launch it. No line says which layer: equal kernels are one.
///
/// # Panics
/// If no plan launches it.
pub fn listing(users: &[(&Plan, &Entry)]) -> String {
    let (plan, entry) = users[0];
    let launch = &plan.launches[entry.launches[0]];
    let family = &plan.kernels[launch.kernel.0 as usize];
    let launches = || users.iter().flat_map(|(p, e)| e.launches.iter().map(|&l| &p.launches[l].provenance));
    let mut scopes: Vec<String> =
        launches().filter_map(|p| p.main_site()).map(|s| generalise(&s.name())).collect();
    let mut lines: Vec<&Line> = launches().flat_map(lines).collect();
    scopes.sort();
    scopes.dedup();
    lines.sort();
    lines.dedup();
    let times = |(plan, entry): &(&Plan, &Entry)| format!("{} × in {}", entry.launches.len(), plan.program);
    let [x, y, z] = entry.grid;
    let thread_blocks = if y * z == 1 { x.to_string() } else { format!("{x} × {y} × {z}") };
    let (threads, shared) = (entry.kernel.threads(), entry.kernel.shared_bytes());
    let mut facts = vec![
        ("computes", launch.provenance.ops_text()),
        ("family", format!("{} {}", family.family(), family.shape())),
        ("in", if scopes.is_empty() { "slots".into() } else { scopes.join(", ") }),
        ("from", join(lines.into_iter().map(Line::to_string), " ")),
        ("launched", join(users.iter().map(times), ", ")),
        (
            "as",
            format!("{thread_blocks} thread blocks of {threads} threads, {shared} bytes of shared memory"),
        ),
    ];
    facts.retain(|(_, text)| !text.is_empty());
    let mut out = format!("{}\n", entry.kernel.name());
    facts.iter().for_each(|(name, text)| {
        let _ = writeln!(out, "{name:9} {text}");
    });
    for (i, (arg, spec)) in entry.args.iter().zip(entry.kernel.args()).enumerate() {
        let (holds, len) = match *arg {
            StageArg::Arg(a) => {
                let buffer = &plan.buffers[launch.args[a].0 as usize];
                (buffer.kind(), format!(" × {}", buffer.len))
            }
            StageArg::Workspace(w) => {
                (format!("workspace {w}, between two kernels of one launch"), String::new())
            }
        };
        let verb = if spec.writable { "writes" } else { "reads" };
        let by = if spec.width > 1 { format!(" by {}", spec.width) } else { String::new() };
        let _ = writeln!(out, "buffer_{i}  {verb:6} {}{len}{by}: {holds}", spec.dtype);
    }
    let _ = writeln!(out, "\n{}", entry.kernel.describe().trim_end());
    out
}

fn join(parts: impl Iterator<Item = String>, by: &str) -> String {
    parts.collect::<Vec<_>>().join(by)
}

/// Lines of the model and of the library.
fn lines(provenance: &crate::report::provenance::Provenance) -> impl Iterator<Item = &Line> {
    provenance.sites.iter().flat_map(|s| s.lines.iter().chain(&s.calls)).filter(|l| l.line > 0)
}

/// Source text indented by its brackets, under a comment. CUDA C++ and WGSL alike.
pub fn formatted(comment: &str, source: &str) -> String {
    let mut out = String::new();
    for line in comment.trim_end().lines() {
        out += format!("// {line}").trim_end();
        out.push('\n');
    }
    out.push('\n');
    let mut depth = 0usize;
    let mut blank = true;
    for line in source.lines().map(str::trim) {
        if line.is_empty() {
            // One is enough.
            if !blank {
                out.push('\n');
            }
            blank = true;
            continue;
        }
        blank = false;
        let is_comment = line.starts_with("//");
        let closing = if is_comment { 0 } else { line.chars().take_while(|c| "})]".contains(*c)).count() };
        let _ = writeln!(out, "{}{line}", "    ".repeat(depth.saturating_sub(closing)));
        if !is_comment {
            let count = |set: &str| line.chars().filter(|c| set.contains(*c)).count();
            depth = (depth + count("{([")).saturating_sub(count("})]"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_indent_and_comments_do_not() {
        let source = "void f(\nint x\n) {\n// not a {\nif (x) {\n\n\ny[0] = g(1);\n}\n}\n";
        let want = "// one\n// two\n\nvoid f(\n    int x\n) {\n    // not a {\n    if (x) {\n\n        y[0] = g(1);\n    }\n}\n";
        assert_eq!(formatted("one\ntwo\n", source), want);
    }
}
