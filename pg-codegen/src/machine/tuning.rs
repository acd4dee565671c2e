//! Tuning: tile sizes, vector widths and split factors of generated kernels. A file overrides those of a machine for an
//! experiment: lines NAME = NUMBER, those before the first section for every machine, those after `[MACHINE]` for that one alone.
//!
//! Nothing is chosen by racing kernels: the same model, target and table give the same kernels everywhere.

use std::fmt;

use pg_ir::lang::nearest;

use super::named;

/// The choices for one machine. They change a kernel's speed, and not what it computes but for the order of sums.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuning {
    /// `matmul.tile`: results along a side of a thread block's square.
    pub matmul_tile: usize,
    /// `matmul.depth`: terms of the sums that go through shared memory at once.
    pub matmul_depth: usize,
    /// `attention.block`: queries and keys of a block, if shared memory holds them.
    pub attention_block: usize,
    /// `region.access`: bytes of an aligned access.
    pub region_access: usize,
    /// `region.resident`: vectors of a row that a thread keeps in registers, four elements each; longer rows are walked.
    pub region_resident: usize,
    /// `region.spread`: thread blocks that a sum over rows is spread over.
    pub region_spread: usize,
    /// `region.rows`: rows that a thread sums before another thread block helps.
    pub region_rows: usize,
    /// `mma.depth`: terms of the sums in a slice of the operands. A thread block on tensor cores has 128 × 128 results, four
    /// warps a quarter each: what registers hold.
    pub mma_depth: usize,
    /// `mma.stages`: slices in shared memory, all but one of them on their way.
    pub mma_stages: usize,
    /// `mma.part`: terms that a thread block sums before another is worth a second pass.
    pub mma_part: usize,
    /// `flash.queries`: queries of a thread block of attention, if the sequence is longer than 64.
    pub flash_queries: usize,
    /// `flash.keys`: keys of a block of attention, of which two are in shared memory.
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

impl Tuning {
    /// What holds where nothing was measured that would make a machine differ.
    pub const DEFAULT: Tuning = Tuning {
        matmul_tile: 64,
        matmul_depth: 16,
        attention_block: 32,
        region_access: 16,
        region_resident: 8,
        region_spread: 512,
        region_rows: 16,
        mma_depth: 32,
        mma_stages: 4,
        mma_part: 512,
        flash_queries: 128,
        flash_keys: 64,
    };

    /// These choices, with those of a file's text on top.
    ///
    /// # Errors
    /// The first line that is wrong: its number, what was expected and what was found.
    pub fn with(mut self, text: &str, machine: &str) -> Result<Tuning, String> {
        let mut applies = true;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or_default().trim();
            let wrong = |what: String| Err(format!("line {number}: {what}"));
            if line.is_empty() {
                continue;
            }
            if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                if let Err(unknown) = named(section) {
                    return wrong(unknown);
                }
                applies = section == machine;
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                return wrong(format!("expected NAME = NUMBER or [MACHINE], found `{line}`"));
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
    use crate::machine::{ALL, H100};

    /// A change of a choice is a change of kernels: it should be seen in a review.
    #[test]
    fn every_machine_has_its_choices() {
        let all: Vec<String> = ALL.iter().map(|m| format!("{}\n{}", m.name, m.tuning)).collect();
        insta::assert_snapshot!(all.join("\n"));
        // Every choice is one that a file may make.
        for machine in ALL {
            assert_eq!(Tuning::DEFAULT.with(&machine.tuning.to_string(), &machine.name), Ok(machine.tuning));
        }
    }

    #[test]
    fn a_file_overrides_its_machine_only() {
        let base = H100.tuning;
        let text = "matmul.tile = 32 # smaller\n[h200]\nmatmul.depth = 8\n";
        assert_eq!(base.with(text, "h100"), Ok(Tuning { matmul_tile: 32, ..base }));
        assert_eq!(base.with(text, "h200"), Ok(Tuning { matmul_tile: 32, matmul_depth: 8, ..base }));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let wrong = |text: &str| H100.tuning.with(text, "h100").unwrap_err();
        assert_eq!(
            wrong("\nmatmul.tiles = 64"),
            "line 2: there is no choice `matmul.tiles` (did you mean `matmul.tile`?)"
        );
        assert_eq!(wrong("matmul.tile = 48"), "line 1: `matmul.tile` is one of 16, 32, 64, not `48`");
        assert_eq!(
            wrong("region.rows = -1"),
            "line 1: `region.rows` is a whole number from 1 to 65535, not `-1`"
        );
        assert_eq!(wrong("tile 64"), "line 1: expected NAME = NUMBER or [MACHINE], found `tile 64`");
        assert!(wrong("[h10]").contains("did you mean `h100`"), "{}", wrong("[h10]"));
    }
}
