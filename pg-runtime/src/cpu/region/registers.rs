//! Which steps a pass runs, and where registers live.

use pg_codegen::region::{Reg, Region};
use pg_ir::ty::DType;

use super::compile::{Accumulator, Register, Step};

/// The registers that a step reads.
fn reads(step: &Step, accumulators: &[Accumulator]) -> Vec<usize> {
    let regs: Vec<Reg> = match step {
        Step::Load { .. } | Step::Splat(_) | Step::Index(_) => vec![],
        Step::Gather { row: x, .. }
        | Step::Unary(_, x)
        | Step::Cast(_, x)
        | Step::RowReduce(_, x, _)
        | Step::Permute(_, x)
        | Step::FakeQuant(_, x)
        | Step::Store { value: x, .. } => vec![*x],
        Step::Binary(_, a, b) => vec![*a, *b],
        Step::Select(c, a, b) => vec![*c, *a, *b],
        Step::Accumulate(i) => vec![accumulators[*i].value],
    };
    regs.into_iter().map(|r| r as usize).collect()
}

/// Finds loads whose readers may look at the argument itself: it holds what registers hold, and nothing is
/// stored to it before they have run.
pub(super) fn find_direct(
    steps: &mut [Step],
    registers: &[Register],
    accumulators: &[Accumulator],
    region: &Region,
) {
    let mut last_read = vec![0; steps.len()];
    for (i, step) in steps.iter().enumerate() {
        reads(step, accumulators).into_iter().for_each(|r| last_read[r] = i);
    }
    let first_store = |arg: usize| {
        let stores = |step: &Step| match step {
            Step::Store { arg: to, .. } => *to == arg,
            Step::Accumulate(i) => accumulators[*i].arg == arg,
            _ => false,
        };
        steps.iter().position(stores).unwrap_or(steps.len())
    };
    let is_direct = |(i, step): (usize, &Step)| match step {
        Step::Load { arg, dense: true, .. } => {
            let class = registers[i].class;
            let whole = class.column && (class.row || region.row_count() == 1);
            let as_held = matches!(region.args[*arg], DType::F32 | DType::I32);
            whole && as_held && last_read[i] < first_store(*arg)
        }
        _ => false,
    };
    let found: Vec<bool> = steps.iter().enumerate().map(is_direct).collect();
    for (step, found) in steps.iter_mut().zip(found) {
        if let Step::Load { direct, .. } = step {
            *direct = found;
        }
    }
}

/// Steps that a pass needs: what leads to the row reductions that it computes, or, in the last pass, to
/// the stores. Row reductions of earlier passes are known. All stores wait for the last pass, so that a
/// pass can load again what an earlier one loaded, even where the region writes in place.
pub(super) fn needed(
    steps: &[Step],
    registers: &[Register],
    accumulators: &[Accumulator],
    pass: usize,
    last: bool,
    cut: bool,
) -> Vec<usize> {
    let mut used = vec![false; steps.len()];
    for i in (0..steps.len()).rev() {
        let reduces = matches!(steps[i], Step::RowReduce(..));
        let known = cut && reduces && registers[i].level <= pass;
        let goal = match steps[i] {
            Step::Store { .. } | Step::Accumulate(_) => last,
            Step::RowReduce(..) => cut && registers[i].level == pass + 1,
            _ => false,
        };
        used[i] |= goal;
        if used[i] && !known {
            reads(&steps[i], accumulators).into_iter().for_each(|r| used[r] = true);
        }
    }
    (0..steps.len()).filter(|&i| used[i]).collect()
}

/// Gives registers vectors: one is free again when its last reader has run. Results never share a vector
/// with their operands, so that every loop has distinct inputs and output. What the prologue computes
/// keeps its vector.
pub(super) fn assign_vectors(
    steps: &[Step],
    registers: &mut [Register],
    accumulators: &[Accumulator],
    prologue: &[usize],
) -> usize {
    let mut last_read = vec![0; steps.len()];
    for (i, step) in steps.iter().enumerate() {
        reads(step, accumulators).into_iter().for_each(|r| last_read[r] = i);
    }
    let mut free: Vec<usize> = Vec::new();
    let mut count = 0;
    for &i in prologue {
        registers[i].vector = count;
        count += 1;
    }
    for (i, step) in steps.iter().enumerate() {
        let stores = matches!(step, Step::Store { .. } | Step::Accumulate(_));
        if !stores && !prologue.contains(&i) {
            registers[i].vector = free.pop().unwrap_or_else(|| {
                count += 1;
                count - 1
            });
        }
        let mut done = reads(step, accumulators);
        done.sort_unstable();
        done.dedup();
        free.extend(
            done.into_iter()
                .filter(|&r| last_read[r] == i && !prologue.contains(&r))
                .map(|r| registers[r].vector),
        );
    }
    count
}
