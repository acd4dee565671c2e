//! Products to launches of the kernel on tensor cores: which can run there and together, how k is split, and what each
//! launch binds.

use pg_ir::ty::DType;

use super::{MmaMatmul, Taker};
use crate::kernels::contraction::epilogue::Exit;
use crate::kernels::contraction::mainloop::{Product, Products, TILE};
use crate::kernels::error::CubeError;
use crate::kernels::kernel::{ArgSpec, Generated};
use crate::kernels::region::{self, TileRegion};
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::kernels::tensor_core::tile::{CHUNK, Operand, THREADS, operands};
use crate::machine::Machine;
use crate::machine::TILES;
use crate::machine::tuning::Tuning;
use crate::plan::result_regions::{on_sum_of_parts, partial, result};
use crate::plan::{Contraction, Matmul, Member, Side};
use crate::region::Region;

/// A buffer of a launch.
type Bound = (StageArg, ArgInfo);

/// A product to lower.
#[derive(Clone)]
struct Part<'a> {
    m: &'a Matmul,
    /// A product for each segment of k, and its operands.
    segments: Vec<(Matmul, [Bound; 2])>,
    /// What becomes of the result, and its arguments from 1 on.
    region: Region,
    rest: Vec<Bound>,
}

/// Whether a machine can run a product with its epilogue here, as one kernel. Rows of results have more than one
/// column. An epilogue has to run on tiles, and no result may overwrite an operand that other thread blocks still
/// read.
pub(crate) fn fits(member: &Member, infos: &[ArgInfo], machine: &Machine) -> bool {
    let Some((operands, rest)) = infos.split_at_checked(member.operand_count()) else { return false };
    let m = &member.matmul;
    let stored = operands.iter().all(|i| i.dtype == DType::BF16);
    let is_float = |of: &DType| matches!(of, DType::F32 | DType::BF16);
    let results = match &member.epilogue {
        None => m.n > 1 && matches!(rest, [c] if is_float(&c.dtype)),
        Some(region) => {
            let runs = |of: &DType| is_float(of) && TILES.take(region, m.n, *of);
            operands.iter().all(|i| !i.aliased) && region.args.first().is_some_and(runs)
        }
    };
    // Segments pass through the same stages.
    let layout = |(m, pair): (Matmul, &[ArgInfo])| layouts_of(&m, [&pair[0], &pair[1]], machine);
    let mut segments = member.products().zip(operands.chunks(2)).map(layout);
    let first = segments.next();
    machine.has_tensor_cores() && stored && results && segments.all(|other| Some(other) == first)
}

/// How a product's operands lie in shared memory: whether along k, and in whole vectors of 16 bytes.
pub(crate) type Layouts = [[bool; 2]; 2];

/// How the operands of one of several products lie in shared memory: products whose operands lie alike run as one
/// kernel. `None` if it does not run here; as above no result may overwrite an operand.
pub(crate) fn layouts(member: &Member, infos: &[ArgInfo], machine: &Machine) -> Option<Layouts> {
    let [a, b, ..] = infos else { return None };
    let apart = !a.aliased && !b.aliased;
    (apart && fits(member, infos, machine)).then(|| layouts_of(&member.matmul, [a, b], machine))
}

fn layouts_of(m: &Matmul, pair: [&ArgInfo; 2], machine: &Machine) -> Layouts {
    operands(m, pair, machine).map(|x| [x.along_depth, x.aligned])
}

/// Adds the launches of a contraction whose members [lie alike](layouts): one, and if k is split another for each.
///
/// # Errors
/// If a member is malformed or does not fit the machine.
pub(crate) fn lower(
    contraction: &Contraction,
    infos: &[ArgInfo],
    machine: &Machine,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let parts: Option<Vec<Part>> =
        (0..contraction.members.len()).map(|i| part(contraction, i, infos)).collect();
    let parts =
        parts.ok_or_else(|| malformed("a product takes two operands, and arguments of its result"))?;
    let side = contraction.shared.unwrap_or(Side::Left);
    let first = &parts[0];
    let alike = |p: &Part| {
        let (same, shape) = match side {
            Side::Left => (p.m.a == first.m.a, p.m.m == first.m.m),
            Side::Right => (p.m.b == first.m.b, p.m.n == first.m.n),
        };
        same && shape && (p.m.batch, p.m.k) == (first.m.batch, first.m.k)
    };
    if !parts.iter().all(alike) {
        return Err(malformed("its products do not share an operand"));
    }
    lower_parts(side, &parts, machine, out)
}

/// One of the products; `None` if arguments are missing.
fn part<'a>(contraction: &'a Contraction, member: usize, infos: &[ArgInfo]) -> Option<Part<'a>> {
    let own = contraction.args(member).into_iter().map(|at| Some((StageArg::Arg(at), *infos.get(at)?)));
    let own: Vec<Bound> = own.collect::<Option<_>>()?;
    let member = &contraction.members[member];
    let (operands, rest) = own.split_at_checked(member.operand_count())?;
    let region = match &member.epilogue {
        Some(region) => region.clone(),
        None => result(&member.matmul, rest.first()?.1.dtype),
    };
    let pairs = operands.chunks(2).map(|pair| [pair[0], pair[1]]);
    let segments = member.products().zip(pairs).collect();
    Some(Part { m: &member.matmul, segments, region, rest: rest.to_vec() })
}

fn lower_parts(shared: Side, parts: &[Part], machine: &Machine, out: &mut Launches) -> Result<(), CubeError> {
    parts.iter().try_for_each(|part| check(part, machine))?;
    let extent = |part: &Part| [part.m.m.div_ceil(TILE), part.m.n.div_ceil(TILE)];
    let batch = parts[0].m.batch;
    // Results lie side by side along columns of a shared left operand, along rows of a right one.
    let along = if shared == Side::Left { 1 } else { 0 };
    let mut tiles = extent(&parts[0]);
    tiles[along] = parts.iter().map(|part| extent(part)[along]).sum();
    let [rows, columns] = tiles;
    let depths: Vec<usize> = parts[0].segments.iter().map(|(m, _)| m.k).collect();
    let (splits, steps) = split(batch * rows * columns, &depths, machine);
    let tiles = [batch, splits, rows, columns];
    let operands_of = |(m, [a, b]): &(Matmul, [Bound; 2])| operands(m, [&a.1, &b.1], machine);
    let product = |part: &Part| {
        let [a, b] = operands_of(&part.segments[0]);
        Product { a, b, tiles, steps, stages: machine.tuning.mma_stages }
    };
    let further = parts[0].segments[1..].iter().map(operands_of).collect();
    let products = Products { shared, each: parts.iter().map(product).collect(), further };
    if splits == 1 {
        return push(products, parts, machine, out);
    }
    let mut sums = Vec::new();
    for part in parts {
        let len = splits * part.m.batch * part.m.m * part.m.n;
        if len > i32::MAX as usize {
            return Err(malformed("its parts are more than 2^31 elements"));
        }
        let sum = (StageArg::Workspace(out.workspace(4 * len)), ArgInfo::whole(DType::F32, len));
        sums.push(Part { region: partial(part.m, splits), rest: vec![sum], ..part.clone() });
    }
    push(products, &sums, machine, out)?;
    for (part, sum) in parts.iter().zip(sums) {
        let (names, infos): (Vec<StageArg>, Vec<ArgInfo>) =
            sum.rest.iter().chain(&part.rest).copied().unzip();
        region::append(&on_sum_of_parts(&part.region, splits), &infos, &names, machine, out)?;
    }
    Ok(())
}

fn malformed(what: &str) -> CubeError {
    CubeError::Malformed { kernel: "mma".into(), what: what.into() }
}

fn check(part: &Part, machine: &Machine) -> Result<(), CubeError> {
    let Part { m, segments, region, rest } = part;
    if segments.iter().any(|(m, _)| m.batch * m.m * m.n * m.k == 0) {
        return Err(malformed("an axis is empty"));
    }
    let is_own =
        region.row_count() * region.columns == m.batch * m.m * m.n && m.n.is_multiple_of(region.columns);
    if !is_own || rest.len() + 1 != region.args.len() {
        return Err(malformed("its region is not of its result"));
    }
    for (m, [a, b]) in segments {
        for (x, info) in operands(m, [&a.1, &b.1], machine).iter().zip([&a.1, &b.1]) {
            if x.reach(m.batch) > info.len + info.shift || x.reach(m.batch) > i32::MAX as usize {
                return Err(malformed("an operand reaches beyond its buffer"));
            }
        }
    }
    Ok(())
}

/// Adds the launch of products and the regions on their results.
fn push(products: Products, parts: &[Part], machine: &Machine, out: &mut Launches) -> Result<(), CubeError> {
    let (mut takers, mut specs, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for (product, part) in products.each.iter().zip(parts) {
        let Part { m, segments, region, rest } = part;
        let rounded = region.args[0] == DType::BF16;
        let vector = match m.n {
            n if rounded && n.is_multiple_of(CHUNK) => CHUNK,
            n if n.is_multiple_of(4) => 4,
            _ => 1,
        };
        let (rest, infos): (Vec<StageArg>, Vec<ArgInfo>) = rest.iter().copied().unzip();
        let tile = TileRegion::new(region, (m.m, m.n), vector, &infos, machine)?;
        let exit = match vector {
            CHUNK => Exit::shared(&tile),
            _ => Exit::Registers { vector, rounded },
        };
        let tile = if tile.wants_rows() { tile.shared_by(exit.sharers()) } else { tile };
        let operand = |x: Operand, (name, info): &Bound| {
            (*name, ArgSpec { dtype: DType::BF16, width: x.vector(), writable: info.aliased })
        };
        let [a, b] = &segments[0].1;
        let mut operands = vec![operand(product.a, a), operand(product.b, b)];
        if products.shared == Side::Right {
            operands.reverse();
        }
        // The shared one is bound once.
        operands.drain(..usize::from(!takers.is_empty()));
        for ([x, y], (_, [a, b])) in products.further.iter().zip(&segments[1..]) {
            operands.extend([operand(*x, a), operand(*y, b)]);
        }
        for (name, spec) in operands {
            names.push(name);
            specs.push(spec);
        }
        names.extend(rest);
        specs.extend(tile.specs(&infos));
        takers.push(Taker { exit, region: tile });
    }
    let tiles: usize = products.tiles().iter().product();
    let (grid, exact) = machine.grid("mma", tiles as u64)?;
    let results = takers.iter().map(|t| t.exit.shared_bytes()).max().unwrap_or(0);
    // The barriers come first, and tiles are at multiples of 128 bytes.
    let Tuning { mma_stages: stages, mma_depth: depth, .. } = machine.tuning;
    let bytes = (8 * stages).next_multiple_of(128) + stages * depth * 2 * TILE * 2 + results;
    let body = MmaMatmul { products, takers, exact };
    let kernel = Generated::new(body, specs, (THREADS as u32, bytes), machine)?;
    out.push(kernel, names, grid, 1.0);
    Ok(())
}

/// How k is cut: the number of parts, and slices of each. Weight gradients have 8 to 48 tiles and a k of
/// tens of thousands; without a split most of a device would idle.
fn split(tiles: usize, segments: &[usize], machine: &Machine) -> (usize, usize) {
    let Tuning { mma_stages: stages, mma_depth: depth, mma_part: least, .. } = machine.tuning;
    let k: usize = segments.iter().sum();
    let slices = segments.iter().map(|k| k.div_ceil(depth)).sum::<usize>().next_multiple_of(stages);
    // Two thread blocks fit a multiprocessor.
    let wanted = (2 * machine.processors as usize / tiles).min(k / least).max(1);
    let steps = slices.div_ceil(wanted).next_multiple_of(stages);
    (slices.div_ceil(steps), steps)
}
