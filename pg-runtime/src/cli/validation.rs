//! What validation found, as a table: each program with what was compared, how close it came to its bound, and how much
//! of the real program it stands for.

use pg_runtime::validate::{ProgramReport, ValidationReport};

use super::format::{grouped, table};

/// Rows of launches that are not covered, at most; the others are in `--json`.
const MOST: usize = 12;

/// A table of programs, then the launches that none of them covers.
pub(crate) fn text(report: &ValidationReport) -> String {
    let headings = ["program", "shape", "outputs", "worst error", "bound", "of", "launches covered"];
    let mut text = table(&headings, &[2, 3, 4], report.programs.iter().map(row).collect());
    let state = if report.cached { "cached".to_string() } else { format!("{:.1} s", report.seconds) };
    text += &format!("\n\nagrees with float64 ({state})");
    let not_compared = report.programs.iter().flat_map(|p| p.not_compared.iter().map(move |o| (p, o)));
    for (program, output) in not_compared {
        text += &format!("\nnot compared: {output} of {}, whose reference is not finite", program.program);
    }
    if !report.uncovered.is_empty() {
        text += "\n\nNot covered, as the small program has no launch of the same kind:\n";
    }
    for u in report.uncovered.iter().take(MOST) {
        text += &format!("\n  {} #{} {}: {}", u.program, u.launch, u.kernel, u.computes);
    }
    if report.uncovered.len() > MOST {
        text += &format!("\n  and {} more (--json lists them)", report.uncovered.len() - MOST);
    }
    text
}

fn row(p: &ProgramReport) -> Vec<String> {
    vec![
        p.program.clone(),
        p.shape.map_or("–".into(), |(batch, seq)| format!("{batch} × {seq}")),
        grouped(p.outputs as u64),
        format!("{:.1e}", p.error),
        format!("{:.1e}", p.bound),
        p.worst.clone(),
        format!("{} of {}", grouped(p.covered as u64), grouped(p.launches as u64)),
    ]
}
