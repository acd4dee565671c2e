//! Tuning: tile sizes, vector widths and split factors of generated kernels, one documented table for all
//! targets, `tuning.txt`. A file of the same form overrides it for an experiment.
//!
//! Nothing is chosen by racing kernels: the same model, target and table give the same kernels everywhere.

use std::fmt;

use pg_ir::lang::nearest;

use crate::machine;

/// The choices for one target; `tuning.txt` says what each is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[allow(missing_docs, reason = "the table says what each is")]
pub struct Tuning {
    pub matmul_tile: usize,
    pub matmul_depth: usize,
    pub attention_block: usize,
    pub region_access: usize,
    pub region_resident: usize,
    pub region_spread: usize,
    pub region_rows: usize,
    pub mma_depth: usize,
    pub mma_stages: usize,
    pub mma_part: usize,
    pub flash_queries: usize,
    pub flash_keys: usize,
}

/// A choice: its name, the numbers that it may be (all of them, or the ends of a range), and its place.
type Choice = (&'static str, Allowed, fn(&mut Tuning) -> &mut usize);

#[derive(Clone, Copy)]
enum Allowed {
    One(&'static [usize]),
    Within(usize, usize),
}

const CHOICES: [Choice; 12] = [
    ("matmul.tile", Allowed::One(&[16, 32, 64]), |t| &mut t.matmul_tile),
    ("matmul.depth", Allowed::One(&[8, 16, 32]), |t| &mut t.matmul_depth),
    ("attention.block", Allowed::One(&[4, 8, 16, 32]), |t| &mut t.attention_block),
    ("region.access", Allowed::One(&[4, 8, 16]), |t| &mut t.region_access),
    ("region.resident", Allowed::Within(1, 16), |t| &mut t.region_resident),
    ("region.spread", Allowed::Within(1, 65_535), |t| &mut t.region_spread),
    ("region.rows", Allowed::Within(1, 65_535), |t| &mut t.region_rows),
    ("mma.depth", Allowed::One(&[32, 64]), |t| &mut t.mma_depth),
    ("mma.stages", Allowed::Within(3, 8), |t| &mut t.mma_stages),
    ("mma.part", Allowed::Within(32, 65_535), |t| &mut t.mma_part),
    ("flash.queries", Allowed::One(&[64, 128]), |t| &mut t.flash_queries),
    ("flash.keys", Allowed::One(&[32, 64]), |t| &mut t.flash_keys),
];

const TABLE: &str = include_str!("tuning.txt");

impl Tuning {
    /// The checked-in choices for a target.
    ///
    /// # Panics
    /// If the table is wrong, which a test excludes.
    pub fn of(target: &str) -> Tuning {
        Tuning::default().with(TABLE, target).unwrap_or_else(|e| panic!("internal error: tuning.txt, {e}"))
    }

    /// These choices, with those of a file's text on top.
    ///
    /// # Errors
    /// The first line that is wrong: its number, what was expected and what was found.
    pub fn with(mut self, text: &str, target: &str) -> Result<Tuning, String> {
        let mut applies = true;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            let wrong = |what: String| Err(format!("line {number}: {what}"));
            if line.is_empty() {
                continue;
            }
            if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                if let Err(unknown) = machine::named(section) {
                    return wrong(unknown);
                }
                applies = section == target;
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                return wrong(format!("expected NAME = NUMBER or [TARGET], found `{line}`"));
            };
            let (name, value) = (name.trim(), value.trim());
            let Some((_, allowed, place)) = CHOICES.iter().find(|c| c.0 == name) else {
                let hint = nearest(name, CHOICES.iter().map(|c| c.0));
                let hint = hint.map_or(String::new(), |n| format!(" (did you mean `{n}`?)"));
                return wrong(format!("there is no choice `{name}`{hint}"));
            };
            match value.parse().ok().filter(|&n| allowed.holds(n)) {
                Some(n) if applies => *place(&mut self) = n,
                Some(_) => {}
                None => return wrong(format!("`{name}` is {allowed}, not `{value}`")),
            }
        }
        Ok(self)
    }
}

impl Allowed {
    fn holds(self, n: usize) -> bool {
        match self {
            Allowed::One(all) => all.contains(&n),
            Allowed::Within(least, most) => (least..=most).contains(&n),
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Allowed::One(all) => {
                let all: Vec<String> = all.iter().map(usize::to_string).collect();
                write!(f, "one of {}", all.join(", "))
            }
            Allowed::Within(least, most) => write!(f, "a whole number from {least} to {most}"),
        }
    }
}

/// As lines of a file.
impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = *self;
        CHOICES.iter().try_for_each(|(name, _, place)| writeln!(f, "{name} = {}", place(&mut copy)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of the table is a change of kernels: it should be seen in a review.
    #[test]
    fn the_table_gives_every_target_its_choices() {
        let all = machine::ALL.map(|t| format!("{}\n{}", t.name, Tuning::of(t.name)));
        insta::assert_snapshot!(all.join("\n"));
        // Nothing was left at the 0 of a default.
        for target in machine::ALL {
            let tuning = Tuning::of(target.name);
            assert_eq!(Tuning::default().with(&tuning.to_string(), target.name), Ok(tuning));
        }
    }

    #[test]
    fn a_file_overrides_its_target_only() {
        let base = Tuning::of("h100");
        let text = "matmul.tile = 32 # smaller\n[h200]\nmatmul.depth = 8\n";
        assert_eq!(base.with(text, "h100"), Ok(Tuning { matmul_tile: 32, ..base }));
        assert_eq!(base.with(text, "h200"), Ok(Tuning { matmul_tile: 32, matmul_depth: 8, ..base }));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let wrong = |text: &str| Tuning::of("h100").with(text, "h100").unwrap_err();
        assert_eq!(
            wrong("\nmatmul.tiles = 64"),
            "line 2: there is no choice `matmul.tiles` (did you mean `matmul.tile`?)"
        );
        assert_eq!(wrong("matmul.tile = 48"), "line 1: `matmul.tile` is one of 16, 32, 64, not `48`");
        assert_eq!(
            wrong("region.rows = -1"),
            "line 1: `region.rows` is a whole number from 1 to 65535, not `-1`"
        );
        assert_eq!(wrong("tile 64"), "line 1: expected NAME = NUMBER or [TARGET], found `tile 64`");
        assert!(wrong("[h10]").contains("did you mean `h100`"), "{}", wrong("[h10]"));
    }
}
