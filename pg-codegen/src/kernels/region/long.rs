//! Few rows that are very long, such as the sum of all of a gradient: one thread block would walk each of them while the
//! others idle. Their row reductions become launches of their own: parts of rows, then the sums of parts, and what
//! is left of the region finds the result in memory.
//!
//! The parts follow from shapes and the machine's tuning, and so does the order of every sum.

use pg_ir::op::Reduction;
use pg_ir::ty::DType;

use crate::kernels::error::CubeError;
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::machine::Machine;
use crate::region::{Affine, IndexMap, Instr, Reg, Region};

/// Rows from this many columns on are cut.
const LONG: usize = 32_768;
/// Columns of a part, at least.
const PART: usize = 4096;
/// More rows than this keep a device busy as they are.
const FEW: usize = 64;

/// A region, and the infos and names of its arguments.
pub(super) struct Rest {
    /// Launches that were added before it.
    pub(super) before: usize,
    pub(super) region: Region,
    pub(super) infos: Vec<ArgInfo>,
    pub(super) names: Vec<StageArg>,
}

/// Adds launches that reduce the rows of a region, and gives what is left of it. `None` if its rows are many or
/// short.
///
/// # Errors
/// If a reduction's launches do not fit the target.
pub(super) fn cut(
    region: &Region,
    infos: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<Option<Rest>, CubeError> {
    let is_short = region.row_count() > FEW || region.columns < LONG;
    let is_other =
        |i: &Instr| matches!(i, Instr::Permute(..) | Instr::FakeQuant(..) | Instr::Accumulate { .. });
    if is_short || region.args.len() != infos.len() || region.body.iter().any(is_other) {
        return Ok(None);
    }
    let Some(parts) = parts_of(region.columns, machine.tuning.region_spread) else { return Ok(None) };
    let names = (0..infos.len()).map(StageArg::Arg).collect();
    let start = out.stages.len();
    let mut rest = Rest { before: 0, region: region.clone(), infos: infos.to_vec(), names };
    let rows = region.row_count();
    let mut found = false;
    while let Some((at, kind, value)) = first_reduction(&rest.region) {
        found = true;
        let info = |len: usize| ArgInfo::whole(DType::F32, len);
        let partial = StageArg::Workspace(out.workspace(4 * rows * parts));
        let total = StageArg::Workspace(out.workspace(4 * rows));
        let first =
            rest.with(&partial_reduction(&rest.region, kind, value, parts), info(rows * parts), partial);
        first.used().launch(machine, out)?;
        let second = Rest {
            before: 0,
            region: reduction_of_parts(rows, parts, kind),
            infos: vec![info(rows * parts), info(rows)],
            names: vec![partial, total],
        };
        second.launch(machine, out)?;
        let mut region = rest.region.clone();
        let at_row = IndexMap { at: row_number(&region, 1, &[0]), guards: vec![] };
        region.body[at] = Instr::Load { arg: region.args.len() as u32, map: at_row };
        rest = rest.with(&Region { args: with_float(&region.args), ..region }, info(rows), total);
    }
    let before = out.stages.len() - start;
    Ok(found.then(|| Rest { before, region: live(&rest.region), ..rest }.used()))
}

/// How many parts a row is cut into: as many as there are thread blocks to share it, if their loads can stay aligned.
fn parts_of(columns: usize, most: usize) -> Option<usize> {
    let fits = |thread: usize| {
        let mut all = (2..=most.min(columns / PART)).rev();
        all.find(|n| columns.is_multiple_of(*n) && (columns / n).is_multiple_of(thread))
    };
    fits(8).or_else(|| fits(1))
}

impl Rest {
    /// Another region, with one more argument.
    fn with(&self, region: &Region, info: ArgInfo, name: StageArg) -> Rest {
        let (mut infos, mut names) = (self.infos.clone(), self.names.clone());
        infos.push(info);
        names.push(name);
        Rest { before: 0, region: region.clone(), infos, names }
    }

    /// The same without arguments that the region does not use.
    fn used(mut self) -> Rest {
        let mut used = vec![false; self.infos.len()];
        self.region.body.iter().filter_map(Instr::arg).for_each(|a| used[a as usize] = true);
        let place = |a: u32| used[..a as usize].iter().filter(|u| **u).count() as u32;
        self.region.body.iter_mut().filter_map(Instr::arg_mut).for_each(|a| *a = place(*a));
        let mut keep = used.iter();
        self.region.args.retain(|_| *keep.next().expect("one for each"));
        let mut keep = used.iter();
        self.infos.retain(|_| *keep.next().expect("one for each"));
        let mut keep = used.iter();
        self.names.retain(|_| *keep.next().expect("one for each"));
        self
    }

    /// Adds the launches, in one pass each.
    pub(super) fn launch(&self, machine: &Machine, out: &mut Launches) -> Result<(), CubeError> {
        super::append(&self.region, &self.infos, &self.names, machine, out)
    }
}

fn with_float(args: &[DType]) -> Vec<DType> {
    args.iter().copied().chain([DType::F32]).collect()
}

/// The first reduction of rows, which needs no other.
fn first_reduction(region: &Region) -> Option<(usize, Reduction, Reg)> {
    region.body.iter().enumerate().find_map(|(i, instr)| match instr {
        Instr::RowReduce(kind, value) => Some((i, *kind, *value)),
        _ => None,
    })
}

/// The number of a row, times `scale`, with strides for the axes that follow.
fn row_number(region: &Region, scale: usize, rest: &[i64]) -> Affine {
    let mut strides: Vec<i64> = Vec::new();
    region.rows.iter().rev().fold(scale, |stride, &n| {
        strides.insert(0, stride as i64);
        stride * n
    });
    Affine { offset: 0, strides: strides.into_iter().chain(rest.iter().copied()).collect() }
}

/// The region that reduces parts of rows, [row, part], into a new argument.
fn partial_reduction(region: &Region, kind: Reduction, value: Reg, parts: usize) -> Region {
    let columns = region.columns / parts;
    let cut = |a: &mut Affine| {
        let column = a.strides.len() - 1;
        let stride = a.strides[column] * columns as i64;
        a.strides.insert(column, stride);
    };
    let mut body = region.body[..=value as usize].to_vec();
    body.retain(|i| !matches!(i, Instr::Store { .. }));
    // Stores define nothing, but they have numbers.
    let numbers: Vec<usize> =
        (0..=value as usize).filter(|&i| !matches!(region.body[i], Instr::Store { .. })).collect();
    let number = |r: Reg| numbers.iter().position(|&n| n == r as usize).expect("no store") as Reg;
    for instr in &mut body {
        instr.for_each_operand(|r| *r = number(*r));
        match instr {
            Instr::Load { map, .. } | Instr::Gather { map, .. } => {
                cut(&mut map.at);
                map.guards.iter_mut().for_each(|g| cut(&mut g.expr));
            }
            Instr::Index(at) => cut(at),
            _ => {}
        }
    }
    body.push(Instr::RowReduce(kind, number(value)));
    let at = row_number(region, parts, &[1, 0]);
    body.push(Instr::Store { arg: region.args.len() as u32, value: body.len() as Reg - 1, at });
    let rows = region.rows.iter().copied().chain([parts]).collect();
    let all = Region { rows, reduced: 0, columns, body, args: with_float(&region.args) };
    live(&all)
}

/// The region that reduces [row, part] to [row].
fn reduction_of_parts(rows: usize, parts: usize, kind: Reduction) -> Region {
    let at = |strides: [i64; 2]| Affine { offset: 0, strides: strides.into_iter().collect() };
    let load = IndexMap { at: at([parts as i64, 1]), guards: vec![] };
    let body = vec![
        Instr::Load { arg: 0, map: load },
        Instr::RowReduce(kind, 0),
        Instr::Store { arg: 1, value: 1, at: at([1, 0]) },
    ];
    Region { rows: vec![rows], reduced: 0, columns: parts, body, args: vec![DType::F32; 2] }
}

/// The region without instructions that no store needs, and of one column if nothing that is left knows columns.
fn live(region: &Region) -> Region {
    let mut body = region.body.clone();
    let mut needed: Vec<bool> = body.iter().map(|i| matches!(i, Instr::Store { .. })).collect();
    // Operands come before what reads them.
    for i in (0..body.len()).rev() {
        if needed[i] {
            body[i].operands().into_iter().for_each(|r| needed[r as usize] = true);
        }
    }
    let number = |r: Reg| needed[..r as usize].iter().filter(|n| **n).count() as Reg;
    body.iter_mut().for_each(|instr| instr.for_each_operand(|r| *r = number(*r)));
    let mut keep = needed.iter();
    body.retain(|_| *keep.next().expect("one for each"));
    let is_wide = body.iter().flat_map(Instr::affines).any(Affine::varies_along_columns);
    Region { body, columns: if is_wide { region.columns } else { 1 }, ..region.clone() }
}
