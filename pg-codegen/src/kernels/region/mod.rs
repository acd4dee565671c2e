//! Regions as kernels.
//!
//! A region whose columns do not meet and that accumulates nothing is flat: any thread takes any vector chunk of any row.
//! Otherwise the threads of a thread block share rows: each keeps its chunks of a row in registers (or walks a long row
//! several times), columns meet through shared memory, or within a warp from thread to thread, and rows that are
//! accumulated are summed by each thread for its own columns, then across the thread block, then by a second kernel across
//! thread blocks.

mod access;
mod body;
mod long;
mod lowered;
mod mapping;
mod permute;
mod reduce;
mod scratch;
mod text;
mod tile;
mod value;
mod walk;

use pg_ir::op::Reduction;
use pg_ir::ty::DType;
use smallvec::SmallVec;

pub(crate) use self::access::and;
use self::lowered::{LoweredRegion, Step};
use self::mapping::Mapping;
pub(crate) use self::tile::{TileChunk, TileRegion, TileRow};
use super::error::CubeError;
use super::kernel::{ArgSpec, Generated};
use super::stage::{ArgInfo, Launches, StageArg};
use crate::machine::Machine;
use crate::region::{Affine, IndexMap, Instr, Region};

/// The description of a region's kernel.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct RegionKernel {
    pub(crate) program: LoweredRegion,
    pub(crate) mapping: Mapping,
    /// Thread blocks that have work; the grid may have more.
    thread_blocks: usize,
    /// Whether the grid has no more thread blocks than that.
    exact: bool,
}

/// Adds the launches of a region: one, or two if it accumulates over more rows than a thread block takes, or a few if its
/// rows are too long for a thread block.
pub(crate) fn lower(
    region: &Region,
    infos: &[ArgInfo],
    machine: &Machine,
    single: bool,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let malformed = |what: String| CubeError::Malformed { kernel: "region".into(), what };
    let unsupported = |what: String| CubeError::Unsupported { kernel: "region".into(), what };
    let shifts: Vec<usize> = infos.iter().map(|i| i.shift).collect();
    let mut lowered = LoweredRegion::new(region, &shifts).map_err(malformed)?;
    if let Some(rest) = long::cut(region, infos, machine, out)? {
        let first = out.stages.len() - rest.before;
        rest.launch(machine, out)?;
        // What reads the most: what is left, if it knows columns, or else the first reduction.
        let most = if rest.region.columns > 1 { out.stages.len() - 1 } else { first };
        out.stages[most].share = 1.0;
        return Ok(());
    }
    let mut dtypes = region.args.clone();
    let mut mapping = Mapping::new(&lowered, &dtypes, machine, single).map_err(unsupported)?;
    let work = lowered.row_count() as u64 * lowered.columns as u64;
    if work > i32::MAX as u64 {
        return Err(unsupported(format!("{work} elements are more than 2^31")));
    }
    let mut args: Vec<StageArg> = (0..dtypes.len()).map(StageArg::Arg).collect();
    let mut second = Vec::new();
    if mapping.fold_blocks > 1 {
        // Partial results go to a workspace, which a second region sums.
        let kept = mapping.kept;
        for step in &mut lowered.steps {
            let Step::Accumulate { arg, kind, at, .. } = step else { continue };
            let wide = lowered.columns > 1 && at.strides[lowered.rows.len()] != 0;
            let width = if wide { lowered.columns } else { 1 };
            let workspace = out.workspace(4 * mapping.fold_blocks * kept * width);
            second.push((*arg, *kind, at.clone(), width, workspace));
            *arg = dtypes.len();
            dtypes.push(DType::F32);
            args.push(StageArg::Workspace(workspace));
            mapping.widths.push(if wide { mapping.width_of(DType::F32, &machine.tuning) } else { 1 });
        }
    }
    let written = |i: usize| {
        let writes = |s: &Step| match s {
            Step::Store { arg, .. } | Step::Accumulate { arg, .. } => *arg == i,
            _ => false,
        };
        lowered.steps.iter().any(writes) || infos.get(i).is_some_and(|info| info.aliased)
    };
    let specs: Vec<ArgSpec> = (dtypes.iter().zip(&mapping.widths).enumerate())
        .map(|(i, (&dtype, &width))| ArgSpec { dtype, width, writable: written(i) })
        .collect();
    let thread_blocks = mapping.thread_blocks();
    let (grid, exact) = machine.grid("region", thread_blocks as u64)?;
    let shared = shared_bytes(&lowered, &mapping);
    let threads = mapping.block_threads as u32;
    let kept_rows = lowered.rows[..lowered.rows.len() - lowered.reduced].to_vec();
    let blocks = mapping.fold_blocks;
    let kernel = RegionKernel { program: lowered, mapping, thread_blocks, exact };
    let kernel = Generated::new(kernel, specs, (threads, shared), machine)?;
    out.push(kernel, args, grid, 1.0);
    for (arg, kind, at, width, workspace) in second {
        let region = second_pass(&kept_rows, blocks, width, kind, &at, infos[arg].shift);
        let len = blocks * kept_rows.iter().product::<usize>() * width;
        let names = [StageArg::Workspace(workspace), StageArg::Arg(arg)];
        append(&region, &[ArgInfo::whole(DType::F32, len), infos[arg]], &names, machine, out)?;
    }
    Ok(())
}

/// Adds the launches of a region in one pass, as a part of a launch whose arguments have other names.
pub(crate) fn append(
    region: &Region,
    infos: &[ArgInfo],
    names: &[StageArg],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let mut inner = Launches::default();
    lower(region, infos, machine, true, &mut inner)?;
    out.append(inner, names);
    Ok(())
}

/// Sums partial results [blocks, kept, width] over blocks.
fn second_pass(
    kept: &[usize],
    blocks: usize,
    width: usize,
    kind: Reduction,
    at: &Affine,
    shift: usize,
) -> Region {
    let rows: usize = kept.iter().product();
    // Kept axes, then blocks, then columns.
    let mut from: SmallVec<[i64; 5]> = SmallVec::new();
    let mut stride = (rows * width) as i64;
    for &n in kept {
        stride /= n as i64;
        from.push(stride);
    }
    from.extend([(rows * width) as i64, i64::from(width > 1)]);
    let mut to: SmallVec<[i64; 5]> = at.strides[..kept.len()].into();
    to.extend([0, at.strides[at.strides.len() - 1]]);
    // The offset has the shift in it already; the second kernel would add it again.
    let to = Affine { offset: at.offset - shift as i64, strides: to };
    Region {
        rows: kept.iter().copied().chain([blocks]).collect(),
        reduced: 1,
        columns: width,
        body: vec![
            Instr::Load { arg: 0, map: IndexMap { at: Affine { offset: 0, strides: from }, guards: vec![] } },
            Instr::Accumulate { arg: 1, value: 0, kind, at: to },
        ],
        args: vec![DType::F32, DType::F32],
    }
}

/// Bytes of shared memory of a region's kernel.
fn shared_bytes(region: &LoweredRegion, s: &Mapping) -> usize {
    if s.flat {
        return 0;
    }
    let cells = 4 * s.row_threads * s.block_rows;
    let reduces = s.row_threads > 1 && region.steps.iter().any(|x| matches!(x, Step::RowReduce(..)));
    let (mut single, mut wide) = (reduces && s.warp == 1, false);
    // One result of each warp.
    let warps = if reduces && s.row_threads > s.warp { 4 * s.block_threads / s.warp } else { 0 };
    for step in &region.steps {
        match step {
            Step::Accumulate { at, .. } if s.block_rows > 1 => {
                let vector = region.writes_columns(at) && s.vector > 1;
                wide |= vector;
                single |= !vector;
            }
            _ => {}
        }
    }
    let permutations = region.steps.iter().filter_map(|step| match step {
        Step::Permute(perm, _) => Some(&perm[..]),
        _ => None,
    });
    warps * usize::from(s.warp > 1)
        + usize::from(single) * cells
        + usize::from(wide) * cells * s.vector
        + permute::shared_bytes(s, permutations)
}

impl Mapping {
    /// Whether the chunks of all threads are those of the row, and no more.
    pub(crate) fn exact_chunks(&self) -> bool {
        self.row_chunks == self.row_threads * self.thread_chunks * self.column_blocks
    }
}
