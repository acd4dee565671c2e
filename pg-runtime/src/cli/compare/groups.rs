//! Groups of runs, as of several seeds each: means, spreads and tests of every score.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use pg_runtime::run::FinishedRun;
use pg_runtime::statistics::{Summary, TTest, welch};
use pg_runtime::sweep::finished_runs;
use serde::Serialize;

use super::side::conditions;
use crate::cli::format::table;
use crate::cli::sweep::p_value;

/// Runs that are taken together.
struct Group {
    name: String,
    runs: Vec<FinishedRun>,
}

/// The result of `pg compare` of groups. Scores are in bits per byte.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    groups: Vec<GroupReport>,
    /// What makes scores incomparable, and which runs; then there are no tests between groups.
    incomparable: Vec<String>,
    scores: Vec<ScoreReport>,
}

#[derive(Debug, Serialize)]
struct GroupReport {
    /// `A`, `B`, …
    name: String,
    runs: Vec<PathBuf>,
    seeds: Vec<u64>,
    /// What its runs differ in besides their seeds.
    mixed: Vec<String>,
}

/// A score of every group.
#[derive(Debug, Serialize)]
struct ScoreReport {
    score: &'static str,
    groups: Vec<GroupScore>,
}

#[derive(Debug, Serialize)]
struct GroupScore {
    group: String,
    /// `null` where no run of the group has the score, or its runs' scores cannot be compared.
    summary: Option<Summary>,
    /// Of the mean.
    interval95: Option<[f64; 2]>,
    /// Its mean against that of the first group; `null` for that, and where there is no test.
    against_first: Option<TTest>,
    /// Why there is none.
    no_test: Option<String>,
}

impl Report {
    /// Compares groups of paths: of runs, or of folders of runs as a sweep leaves them.
    pub(super) fn new(paths: Vec<Vec<PathBuf>>) -> anyhow::Result<Report> {
        let groups = paths.into_iter().enumerate().map(|(index, paths)| Group::open(letter(index), paths));
        let groups = groups.collect::<anyhow::Result<Vec<Group>>>()?;
        for (index, group) in groups.iter().enumerate() {
            for (other, run) in groups[..index].iter().flat_map(|g| g.runs.iter().map(move |run| (g, run))) {
                if let Some(twice) = group.runs.iter().find(|own| same_folder(own, run)) {
                    bail!(
                        "{} is in group {} and in group {}",
                        twice.folder.display(),
                        other.name,
                        group.name
                    );
                }
            }
        }
        let all = || groups.iter().flat_map(|group| &group.runs);
        let Some(first) = all().next() else { bail!("no finished run is to be compared") };
        let of_first = conditions(first);
        let mut incomparable = Vec::new();
        for run in all().skip(1) {
            let differences = conditions(run).differences_of_each_score(&of_first);
            if !differences.is_empty() {
                let (one, other) = (run.folder.display(), first.folder.display());
                incomparable.push(format!("{one} and {other}: {}", differences.join("; ")));
            }
        }
        let names = first.report.bpb.named().map(|(name, _)| name);
        let scores = names.into_iter().enumerate().map(|(index, score)| ScoreReport {
            score,
            groups: of_groups(&groups, index, incomparable.is_empty()),
        });
        let scores =
            scores.filter(|score| score.groups.iter().any(|group| group.summary.is_some())).collect();
        Ok(Report { scores, incomparable, groups: groups.iter().map(Group::report).collect() })
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for group in &self.groups {
            let runs: Vec<String> = group.runs.iter().map(|run| run.display().to_string()).collect();
            out += &format!("{}: {}\n", group.name, runs.join(", "));
            for what in &group.mixed {
                out += &format!("   not of one configuration: {what}\n");
            }
        }
        if !self.incomparable.is_empty() {
            out += &format!("\nThe scores cannot be compared. {}.\n", self.incomparable.join(". "));
        }
        let headings = ["score", "", "n", "mean", "std", "95 % of the mean", "− A", "p"];
        let rows = self.scores.iter().flat_map(|score| {
            let row = |(i, group): (usize, &GroupScore)| group.row(if i == 0 { score.score } else { "" });
            score.groups.iter().enumerate().map(row).collect::<Vec<_>>()
        });
        out += &format!("\n{}\n", table(&headings, &[2, 3, 4, 5, 6, 7], rows.collect()));
        let mut reasons: Vec<&str> =
            self.scores.iter().flat_map(|s| &s.groups).filter_map(|group| group.no_test.as_deref()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        out += "\np: Welch's t-test of no difference from A's mean, one test a row.";
        reasons.iter().for_each(|why| out += &format!("\n–: {why}."));
        out
    }
}

/// `A` to `Z`, then `A2` and so on.
fn letter(index: usize) -> String {
    let letter = char::from(b'A' + (index % 26) as u8);
    match index / 26 {
        0 => letter.to_string(),
        more => format!("{letter}{}", more + 1),
    }
}

impl Group {
    fn open(name: String, paths: Vec<PathBuf>) -> anyhow::Result<Group> {
        let mut runs: Vec<FinishedRun> = Vec::new();
        for path in &paths {
            let shown = path.display();
            ensure!(
                path.is_dir(),
                "{shown} is no folder of runs: groups are of finished runs; two models are compared by `pg compare A B`"
            );
            let found = finished_runs(path)?;
            ensure!(!found.is_empty(), "{shown}: no finished run is in it, nor in folders in it");
            for run in found {
                let is_it = |other: &FinishedRun| same_folder(other, &run);
                ensure!(!runs.iter().any(is_it), "{} is twice in group {name}", run.folder.display());
                runs.push(run);
            }
        }
        Ok(Group { name, runs })
    }

    /// What its runs differ in besides their seeds, and seeds that are there twice: then they are no sample.
    fn mixed(&self) -> Vec<String> {
        let mut mixed = Vec::new();
        for (index, run) in self.runs.iter().enumerate() {
            let shown = run.folder.display();
            let differs =
                self.runs.first().and_then(|first| run.record.difference_besides_seed(&first.record));
            mixed.extend(differs.map(|what| format!("{shown}: {what}")));
            if self.runs[..index].iter().any(|other| other.report.seed == run.report.seed) {
                mixed.push(format!(
                    "{shown}: seed {} is there twice, which is no second sample",
                    run.report.seed
                ));
            }
        }
        mixed
    }

    fn report(&self) -> GroupReport {
        GroupReport {
            name: self.name.clone(),
            runs: self.runs.iter().map(|run| run.folder.clone()).collect(),
            seeds: self.runs.iter().map(|run| run.report.seed).collect(),
            mixed: self.mixed(),
        }
    }

    /// The values of a score, by its place; none where those of two runs cannot be compared.
    fn values(&self, score: usize) -> Vec<f64> {
        let of_one = self.runs.first().map(conditions);
        let is_comparable = |run| {
            of_one.as_ref().is_some_and(|first| conditions(run).differences_of_each_score(first).is_empty())
        };
        match self.runs.iter().all(is_comparable) {
            true => self.runs.iter().filter_map(|run| run.report.bpb.named()[score].1).collect(),
            false => Vec::new(),
        }
    }
}

fn same_folder(a: &FinishedRun, b: &FinishedRun) -> bool {
    let canonical = |run: &FinishedRun| run.folder.canonicalize().unwrap_or_else(|_| run.folder.clone());
    canonical(a) == canonical(b)
}

/// A score of every group, and its test against the first one where scores can be compared.
fn of_groups(groups: &[Group], score: usize, is_comparable: bool) -> Vec<GroupScore> {
    let first = groups.first().map_or_else(Vec::new, |group| group.values(score));
    let is_mixed: Vec<bool> = groups.iter().map(|group| !group.mixed().is_empty()).collect();
    let of_group = |(index, group): (usize, &Group)| {
        let values = group.values(score);
        let summary = Summary::of(&values);
        let test = (index > 0 && is_comparable).then(|| match is_mixed[0] || is_mixed[index] {
            true => Err("a group is not of one configuration: no p-value".to_string()),
            false => welch(&values, &first).map_err(|why| why.to_string()),
        });
        GroupScore {
            group: group.name.clone(),
            interval95: summary.filter(|_| !is_mixed[index]).and_then(|summary| summary.interval95()),
            summary,
            against_first: test.as_ref().and_then(|test| test.as_ref().ok().copied()),
            no_test: test.and_then(Result::err),
        }
    };
    groups.iter().enumerate().map(of_group).collect()
}

impl GroupScore {
    fn row(&self, score: &str) -> Vec<String> {
        let dash = || "–".to_string();
        let test = |show: &dyn Fn(&TTest) -> String| self.against_first.as_ref().map(show);
        let is_first = self.against_first.is_none() && self.no_test.is_none();
        let of_test =
            |shown: Option<String>| shown.unwrap_or_else(|| if is_first { String::new() } else { dash() });
        vec![
            score.into(),
            self.group.clone(),
            self.summary.map_or(0, |summary| summary.n).to_string(),
            self.summary.map_or_else(dash, |summary| format!("{:.4}", summary.mean)),
            self.summary.and_then(|summary| summary.std).map_or_else(dash, |std| format!("{std:.4}")),
            self.interval95.map_or_else(dash, |[low, high]| format!("{low:.4} … {high:.4}")),
            of_test(test(&|test| format!("{:+.4}", test.difference))),
            of_test(test(&|test| p_value(test.p))),
        ]
    }
}
