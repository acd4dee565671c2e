//! A compiled kernel walked by one warp of one thread block: how often each instruction is issued.
//!
//! Control flow of these kernels depends on where a thread is and on sizes that are known when they are compiled, so it
//! can be followed without data: integer instructions are executed on what is known, everything else makes its result
//! unknown. A warp is walked as its first thread. A branch that depends on data is taken both ways in turn and named in
//! the result; it must never be followed silently.

mod integer;
mod operand;
mod state;

use std::collections::BTreeMap;

use self::operand::{Operand, operands};
use self::state::{Place, State};
use super::sass::{Instruction, Sass};
use super::tools::ToolsError;

/// More instructions of one warp than any kernel has.
const MOST_STEPS: u64 = 200_000_000;

/// A launch to walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Shape {
    /// Thread blocks along each axis.
    pub(super) grid: [u32; 3],
    /// Threads of a block.
    pub(super) threads: u32,
}

/// What the warps of a launch issue.
#[derive(Clone, PartialEq, Debug)]
pub struct Walk {
    /// Of each instruction, how often a thread block's warps issue it, all together; the mean over thread blocks.
    pub issued: Vec<f64>,
    /// Of each instruction, how often its guard held.
    pub executed: Vec<f64>,
    /// Of each branch, how often it was taken.
    pub taken: Vec<f64>,
    /// Branches that depend on data, and calls, whose routines are not walked: as positions.
    pub assumed: Vec<usize>,
}

/// Why a kernel could not be walked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// Its instructions could not be had.
    #[error(transparent)]
    Disassembly(#[from] ToolsError),
    /// A branch to nowhere, or through a register.
    #[error("`{0}` goes where nobody can follow")]
    Jump(String),
    /// It does not end.
    #[error("a warp does not end within {MOST_STEPS} instructions")]
    Endless,
}

/// An instruction, ready to be walked.
struct Decoded {
    guard: Option<Operand>,
    mnemonic: String,
    modifiers: Vec<String>,
    operands: Vec<Operand>,
    /// How many of the operands, from the first on, it writes.
    writes: usize,
    /// Registers of a result.
    width: u8,
    flow: Flow,
}

/// Where an instruction may lead but to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flow {
    Next,
    Exit,
    /// Comes back, after something that is not walked.
    Call,
    Branch {
        to: usize,
        /// Whether what a branch forward skips calls a routine for rare operands.
        skips_call: bool,
    },
    Lost,
}

impl Decoded {
    fn written(&self) -> &[Operand] {
        &self.operands[..self.writes]
    }

    fn sources(&self) -> &[Operand] {
        &self.operands[self.writes..]
    }

    /// One of the predicates among the sources.
    fn predicate(&self, n: usize) -> Option<Operand> {
        self.sources().iter().copied().filter(|o| matches!(o, Operand::Predicate { .. })).nth(n)
    }

    fn has(&self, modifier: &str) -> bool {
        self.modifiers.iter().any(|m| m == modifier)
    }
}

impl Sass {
    /// Walks a launch: every warp of thread blocks that are spread evenly over the grid.
    ///
    /// # Errors
    /// If a warp goes where the walk cannot follow, or does not end.
    pub(super) fn walk(&self, shape: Shape) -> Result<Walk, WalkError> {
        let code = decode(self);
        let blocks = shape.grid.iter().map(|&n| u64::from(n)).product::<u64>().max(1);
        let mut all = Walk::empty(code.len());
        let mut walked = 0u64;
        // Three thread blocks that do the same stand for all; where they differ, more are walked.
        for samples in [3, 64] {
            let chosen = spread(blocks, samples);
            walked = chosen.len() as u64;
            let of_blocks: Vec<Walk> =
                chosen.into_iter().map(|block| walk_block(&code, shape, block)).collect::<Result<_, _>>()?;
            all = Walk::empty(code.len());
            of_blocks.iter().for_each(|w| all.add(w));
            if of_blocks.windows(2).all(|w| w[0].issued == w[1].issued) {
                break;
            }
        }
        all.divide(walked as f64);
        Ok(all)
    }
}

impl Walk {
    fn empty(len: usize) -> Walk {
        let none = || vec![0.0; len];
        Walk { issued: none(), executed: none(), taken: none(), assumed: Vec::new() }
    }

    fn add(&mut self, other: &Walk) {
        let sum = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        sum(&mut self.issued, &other.issued);
        sum(&mut self.executed, &other.executed);
        sum(&mut self.taken, &other.taken);
        self.assumed.extend(&other.assumed);
        self.assumed.sort_unstable();
        self.assumed.dedup();
    }

    fn divide(&mut self, by: f64) {
        self.issued.iter_mut().chain(&mut self.executed).chain(&mut self.taken).for_each(|n| *n /= by);
    }
}

/// So many of `0..n`, or all. They are spread evenly without a period, which what blocks do often has: multiples of the
/// golden ratio, modulo one.
fn spread(n: u64, most: u64) -> Vec<u64> {
    if n <= most {
        return (0..n).collect();
    }
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    (0..most).map(|i| ((u128::from((i + 1).wrapping_mul(STEP)) * u128::from(n)) >> 64) as u64).collect()
}

fn walk_block(code: &[Decoded], shape: Shape, block: u64) -> Result<Walk, WalkError> {
    let [x, y, _] = shape.grid.map(|n| u64::from(n).max(1));
    let block = [block % x, block / x % y, block / x / y].map(|n| n as u32);
    let mut all = Walk::empty(code.len());
    for warp in 0..shape.threads.div_ceil(32) {
        let place = Place { grid: shape.grid, threads: shape.threads, block, thread: 32 * warp };
        all.add(&walk_warp(code, place)?);
    }
    Ok(all)
}

fn walk_warp(code: &[Decoded], place: Place) -> Result<Walk, WalkError> {
    let mut state = State::new(place);
    let mut issued = vec![0u64; code.len()];
    let mut executed = vec![0u64; code.len()];
    let mut taken = vec![0u64; code.len()];
    let mut assumed: BTreeMap<usize, bool> = BTreeMap::new();
    let (mut at, mut steps) = (0, 0u64);
    while let Some(i) = code.get(at) {
        steps += 1;
        if steps > MOST_STEPS {
            return Err(WalkError::Endless);
        }
        issued[at] += 1;
        let holds = i.guard.map_or(Some(true), |guard| state.predicate(guard));
        executed[at] += u64::from(holds != Some(false));
        let mut next = at + 1;
        match i.flow {
            Flow::Next if holds == Some(true) => integer::execute(i, &mut state),
            Flow::Next if holds.is_none() => integer::clobber(i, &mut state),
            Flow::Exit if holds == Some(true) => break,
            Flow::Call if holds != Some(false) => _ = assumed.insert(at, true),
            Flow::Branch { to, skips_call } => {
                // `@P0 BRA !P1, …` needs both.
                let also = i.operands.first().filter(|o| matches!(o, Operand::Predicate { .. }));
                let both = match (holds, also.map_or(Some(true), |&o| state.predicate(o))) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (Some(true), Some(true)) => Some(true),
                    _ => None,
                };
                let goes = both.unwrap_or_else(|| {
                    // Rare operands are passed over. Otherwise first as long a way as there is, then the other.
                    let is_backward = to <= at;
                    let before = assumed.insert(at, skips_call || is_backward);
                    before.map_or(skips_call || is_backward, |last| {
                        let next = skips_call || !last;
                        assumed.insert(at, next);
                        next
                    })
                });
                if goes {
                    taken[at] += 1;
                    next = to;
                }
            }
            Flow::Lost if holds != Some(false) => return Err(WalkError::Jump(i.mnemonic.clone())),
            Flow::Next | Flow::Exit | Flow::Call | Flow::Lost => {}
        }
        at = next;
    }
    let float = |counts: Vec<u64>| counts.into_iter().map(|n| n as f64).collect();
    let is_rare = |at: &usize| matches!(code[*at].flow, Flow::Branch { skips_call: true, .. });
    let assumed = assumed.into_keys().filter(|at| !is_rare(at)).collect();
    Ok(Walk { issued: float(issued), executed: float(executed), taken: float(taken), assumed })
}

fn decode(sass: &Sass) -> Vec<Decoded> {
    let targets = sass.targets();
    let calls: Vec<usize> =
        (0..sass.instructions.len()).filter(|&n| sass.instructions[n].name.starts_with("CALL")).collect();
    let one = |(at, i): (usize, &Instruction)| {
        let mut parts = i.name.split('.').map(str::to_string);
        let mnemonic = parts.next().unwrap_or_default();
        let modifiers: Vec<String> = parts.collect();
        let guard =
            i.text.strip_prefix('@').and_then(|rest| rest.split_whitespace().next()).map(Operand::parse);
        let arguments = i.text.split_once(&*i.name).map_or("", |(_, rest)| rest);
        let operands = operands(arguments);
        let flow = match &*mnemonic {
            "EXIT" => Flow::Exit,
            "CALL" => Flow::Call,
            "BRA" => targets[at].map_or(Flow::Lost, |to| Flow::Branch {
                to,
                skips_call: calls.iter().any(|&call| (at..to).contains(&call)),
            }),
            "BRX" | "JMP" | "JMX" | "RET" => Flow::Lost,
            _ => Flow::Next,
        };
        let writes = writes(&mnemonic, &operands);
        let width = width(&mnemonic, &modifiers);
        Decoded { guard, mnemonic, modifiers, operands, writes, width, flow }
    };
    sass.instructions.iter().enumerate().map(one).collect()
}

/// How many operands, from the first on, an instruction writes.
fn writes(mnemonic: &str, operands: &[Operand]) -> usize {
    let is_predicate = |n: usize| matches!(operands.get(n), Some(Operand::Predicate { .. }));
    let is_register = |n: usize| matches!(operands.get(n), Some(Operand::Register { .. }));
    let predicates = |from: usize| (from..).take_while(|&n| is_predicate(n)).count();
    match mnemonic {
        "BRA" | "NANOSLEEP" | "WARPSYNC" | "BAR" | "CALL" | "RET" | "EXIT" | "BRX" | "JMP" | "JMX" => 0,
        "ISETP" | "UISETP" | "FSETP" | "DSETP" | "HSETP2" | "PLOP3" | "UPLOP3" => 2,
        "IADD3" | "UIADD3" | "LEA" | "ULEA" | "IMAD" | "UIMAD" | "VOTE" | "VOTEU" if is_register(0) => {
            1 + predicates(1).min(2)
        }
        _ if is_predicate(0) => 1 + usize::from(is_register(1) && mnemonic != "FCHK"),
        _ => usize::from(is_register(0)),
    }
}

/// Registers of a result.
fn width(mnemonic: &str, modifiers: &[String]) -> u8 {
    let has = |modifier: &str| modifiers.iter().any(|m| m == modifier);
    let last = modifiers.last().map_or("", |m| &**m);
    match mnemonic {
        "HMMA" => 4,
        // 64 rows over four warps: half as many registers of a thread as columns.
        "HGMMA" => {
            modifiers.iter().find_map(|m| m.split('x').nth(1)?.parse::<u8>().ok()).map_or(128, |n| n / 2)
        }
        "LDSM" if last.ends_with('4') => 4,
        "LDSM" if last.ends_with('2') => 2,
        "CS2R" if !has("32") => 2,
        "IMAD" | "UIMAD" if has("WIDE") => 2,
        "DADD" | "DMUL" | "DFMA" | "DMNMX" => 2,
        "F2F" | "I2F" if has("F64") => 2,
        "F2I" if has("S64") || has("U64") => 2,
        _ if mnemonic.starts_with("LD") || mnemonic.starts_with("ULD") || mnemonic.starts_with("ATOM") => {
            if has("128") {
                4
            } else {
                1 + u8::from(has("64"))
            }
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of instructions and labels, as the disassembler numbers them.
    fn sass(lines: &str) -> Sass {
        let mut address = 0;
        let mut text = String::new();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if line.ends_with(':') {
                text += &format!("{line}\n");
            } else {
                text += &format!("        /*{address:04x}*/                   {line} ;\n");
                address += 16;
            }
        }
        Sass::parse(text)
    }

    fn walk(lines: &str, grid: [u32; 3], threads: u32) -> Walk {
        sass(lines).walk(Shape { grid, threads }).unwrap()
    }

    #[test]
    fn a_loop_runs_as_often_as_its_counter_says() {
        let w = walk(
            "HFMA2.MMA R2, -RZ, RZ, 0, 0
             .L_x_0:
             VIADD R2, R2, 0x3
             FFMA R4, R5, R6, R4
             ISETP.GE.U32.AND P0, PT, R2, 0x20, PT
             @!P0 BRA `(.L_x_0)
             EXIT",
            [1, 1, 1],
            64,
        );
        // Two warps, eleven times each.
        assert_eq!(w.issued, [2.0, 22.0, 22.0, 22.0, 22.0, 2.0]);
        assert_eq!((w.taken[4], w.assumed), (20.0, vec![]));
    }

    #[test]
    fn blocks_and_warps_go_where_they_stand() {
        let w = walk(
            "S2R R0, SR_TID.X
             S2UR UR4, SR_CTAID.X
             SHF.R.U32.HI R1, RZ, 0x5, R0
             ISETP.NE.AND P0, PT, R1, RZ, PT
             @P0 EXIT
             MOV R2, UR4
             .L_x_0:
             IADD3 R2, R2, -0x1, RZ
             ISETP.GT.AND P0, PT, R2, -0x1, PT
             @P0 BRA `(.L_x_0)
             EXIT",
            [3, 1, 1],
            96,
        );
        // One of three warps goes on; it runs once, twice and three times.
        assert_eq!((w.issued[4], w.issued[5], w.issued[6]), (3.0, 1.0, 2.0));
        assert_eq!(w.executed[4], 2.0);
    }

    #[test]
    fn a_branch_that_depends_on_data_goes_both_ways_and_is_named() {
        let w = walk(
            ".L_x_0:
             LDG.E R2, desc[UR4][R4.64]
             ISETP.NE.AND P0, PT, R2, RZ, PT
             @P0 BRA `(.L_x_0)
             EXIT",
            [1, 1, 1],
            32,
        );
        assert_eq!((w.issued[0], w.assumed), (2.0, vec![2]));
    }

    #[test]
    fn a_number_that_a_load_overwrites_is_forgotten() {
        let w = walk(
            "MOV R7, 0x1
             LDG.E.128 R4, desc[UR4][R10.64]
             ISETP.NE.AND P0, PT, R7, RZ, PT
             @P0 BRA `(.L_x_0)
             FADD R1, R1, R1
             .L_x_0:
             EXIT",
            [1, 1, 1],
            32,
        );
        assert_eq!(w.assumed, [3]);
    }

    /// What ends a kernel's walk only if the instructions before it make `R9` this number.
    #[track_caller]
    fn computes(lines: &str, number: u32) {
        let check = format!(
            "{lines}
             ISETP.NE.U32.AND P6, PT, R9, {number:#x}, PT
             @P6 BRX R2
             EXIT"
        );
        let found = sass(&check).walk(Shape { grid: [7, 5, 1], threads: 32 });
        assert!(found.is_ok(), "{lines}\n{found:?}");
    }

    #[test]
    fn integer_instructions_mean_what_ptxas_means_by_them() {
        computes("IMAD.MOV.U32 R1, RZ, RZ, 0x5\n IMAD R9, R1, 0x6, R1", 35);
        computes("MOV R1, 0x80000001\n IMAD.SHL.U32 R9, R1, 0x2, RZ", 2);
        computes("MOV R1, 0x3\n IADD3 R9, -R1, 0x2, RZ", u32::MAX);
        computes("MOV R1, 0xffffffff\n IADD3 R2, P0, R1, 0x1, RZ\n IADD3.X R9, RZ, 0x4, RZ, P0, !PT", 5);
        computes("MOV R1, 0x2\n IADD3 R2, P0, -R1, 0x1, RZ\n IADD3.X R9, RZ, RZ, RZ, P0, !PT", 0);
        computes("MOV R1, 0x3\n LEA R9, R1, 0x1, 0x4", 49);
        computes("MOV R1, 0x80000000\n LEA.HI R9, R1, 0x7, RZ, 0x3", 11);
        computes("MOV R1, 0xf0\n LOP3.LUT R9, R1, 0x3c, RZ, 0xc0, !PT", 0x30);
        computes("MOV R1, 0xf0\n MOV R2, 0x5\n LOP3.LUT R9, R1, 0xfffffff0, R2, 0xe2, !PT", 0xf5);
        computes("MOV R1, 0x80000000\n SHF.R.S32.HI R9, RZ, 0x1f, R1", u32::MAX);
        computes("MOV R1, 0x1\n MOV R2, 0x2\n SHF.R.U64 R9, R1, 0x1, R2", 0);
        computes("MOV R1, 0x1\n MOV R2, 0x3\n SHF.R.U64 R9, R1, 0x1, R2", 1 << 31);
        computes("MOV R1, 0x44332211\n PRMT R9, R1, 0x7632, R1", 0x4433_4433);
        computes("ISETP.NE.AND P0, PT, RZ, RZ, PT\n SEL R9, RZ, 0x8, P0", 8);
        computes("MOV R1, 0x7\n VIADDMNMX.U32 R9, R1, R1, 0x9, PT", 9);
        computes("HFMA2.MMA R9, -RZ, RZ, 0, 5.9604644775390625e-08", 1);
        computes("LDC R9, c[0x0][0xc]", 7);
        computes("ULDC UR4, c[0x0][0x10]\n UIMAD UR4, UR4, UR4, URZ\n MOV R9, UR4", 25);
        // Of what a load gives, the bits that are masked away are known all the same.
        computes("LDG.E R1, desc[UR4][R4.64]\n LOP3.LUT R9, R1, RZ, RZ, 0xc0, !PT", 0);
        // The predicates P0 and P2, of which one is not known.
        computes(
            "LDG.E R1, desc[UR4][R4.64]\n ISETP.EQ.AND P0, PT, R1, RZ, PT\n ISETP.EQ.AND P2, PT, RZ, RZ, PT
             P2R R3, PR, RZ, 0x7f\n LOP3.LUT R9, R3, 0x4, RZ, 0xc0, !PT",
            4,
        );
    }

    #[test]
    fn division_by_a_number_that_is_not_in_the_source() {
        // As ptxas writes 100 / 7.
        computes(
            "LDC R200, c[0x0][0xc]
             MOV R7, 0x64
             I2F.U32.RP R3, R200
             IMAD.MOV R91, RZ, RZ, -R200
             MUFU.RCP R3, R3
             VIADD R88, R3, 0xffffffe
             F2I.FTZ.U32.TRUNC.NTZ R89, R88
             IMAD.MOV.U32 R88, RZ, RZ, RZ
             IMAD R91, R91, R89, RZ
             IMAD.HI.U32 R90, R89, R91, R88
             IMAD.HI.U32 R90, R90, R7, RZ
             IMAD.MOV R89, RZ, RZ, -R90
             IMAD R89, R200, R89, R7
             ISETP.GE.U32.AND P0, PT, R89, R200, PT
             @P0 IMAD.IADD R89, R89, 0x1, -R200
             @P0 VIADD R90, R90, 0x1
             ISETP.GE.U32.AND P1, PT, R89, R200, PT
             @P1 VIADD R90, R90, 0x1
             MOV R9, R90",
            14,
        );
    }
}
