//! Matrix products on tensor cores: 128 × 128 results a thread block, and a region that takes them up where they are. A
//! product by itself is one whose region stores. Products that share an operand are one grid, in which those thread blocks
//! come one after the other that share a tile of the left operand.
//!
//! Each result is summed over k in an order that follows from shapes alone. Where a product has too few
//! tiles for a device, k is split among thread blocks, whose partial results a second kernel sums in order; the region is
//! that kernel's then.

use cubecl::frontend::branch::if_expand;
use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use half::bf16;
use pg_ir::ty::DType;

use super::epilogue::{Exit, Sink, shared_tile};
use super::mainloop::{Place, Product, Products, TILE, multiply, place_of};
use crate::kernels::error::CubeError;
use crate::kernels::kernel::{ArgSpec, Body, Generated};
use crate::kernels::region::{self, TileRegion};
use crate::kernels::stage::{ArgInfo, Launches, StageArg};
use crate::kernels::tensor_core::tile::{CHUNK, Operand, UNITS, operands};
use crate::machine::Machine;
use crate::machine::TILES;
use crate::machine::tuning::Tuning;
use crate::plan::result_regions::{on_sum_of_parts, partial, result};
use crate::plan::{Contraction, Matmul, Member, Side};
use crate::region::Region;

/// The description of a matmul kernel for tensor cores.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct MmaMatmul {
    products: Products,
    /// What takes each one's results.
    takers: Vec<Taker>,
    /// Whether the grid has no more thread blocks than there are tiles.
    exact: bool,
}

/// A region that takes results, and how they leave for it.
#[derive(Clone, PartialEq, Debug)]
struct Taker {
    exit: Exit,
    region: TileRegion,
}

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

/// Whether a machine can run a product with its epilogue here, as one kernel. Results leave in rows of more than one. An
/// epilogue has to run on tiles, and no result may overwrite an operand that other thread blocks still read.
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
    // Segments take iterations in shared memory.
    let walks = |(m, pair): (Matmul, &[ArgInfo])| walks_of(&m, [&pair[0], &pair[1]], machine);
    let mut segments = member.products().zip(operands.chunks(2)).map(walks);
    let first = segments.next();
    machine.has_tensor_cores() && stored && results && segments.all(|other| Some(other) == first)
}

/// How a product's operands lie in shared memory: whether along k, and in whole chunks.
pub(crate) type Walks = [[bool; 2]; 2];

/// How the operands of one of several products lie in shared memory, through which they pass in turn: those that lie
/// alike run as one kernel. `None` if it does not run here; as above no result may overwrite an operand.
pub(crate) fn walks(member: &Member, infos: &[ArgInfo], machine: &Machine) -> Option<Walks> {
    let [a, b, ..] = infos else { return None };
    let apart = !a.aliased && !b.aliased;
    (apart && fits(member, infos, machine)).then(|| walks_of(&member.matmul, [a, b], machine))
}

fn walks_of(m: &Matmul, pair: [&ArgInfo; 2], machine: &Machine) -> Walks {
    operands(m, pair, machine).map(|x| [x.along_depth, x.aligned])
}

/// Adds the launches of a contraction whose members [lie alike](walks): one, and if k is split another for each.
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
    let walked = |(m, [a, b]): &(Matmul, [Bound; 2])| operands(m, [&a.1, &b.1], machine);
    let product = |part: &Part| {
        let [a, b] = walked(&part.segments[0]);
        Product { a, b, tiles, steps, stages: machine.tuning.mma_stages }
    };
    let further = parts[0].segments[1..].iter().map(walked).collect();
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
        let mut inner = Launches::default();
        region::lower(&on_sum_of_parts(&part.region, splits), &infos, machine, true, &mut inner)?;
        out.append(inner, &names);
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
    let cubes: usize = products.tiles().iter().product();
    let grid = machine.fold("mma", cubes as u64)?;
    let exact = grid[0] as usize * grid[1] as usize == cubes;
    let results = takers.iter().map(|t| t.exit.shared_bytes()).max().unwrap_or(0);
    // The barriers come first, and tiles are at multiples of 128 bytes.
    let Tuning { mma_stages: stages, mma_depth: depth, .. } = machine.tuning;
    let bytes = (8 * stages).next_multiple_of(128) + stages * depth * 2 * TILE * 2 + results;
    let body = MmaMatmul { products, takers, exact };
    let kernel = Generated::new(body, specs, (UNITS as u32, bytes), machine)?;
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

define_size!(WidthA);
define_size!(WidthB);

#[cube]
fn number() -> u32 {
    CUBE_POS as u32
}

#[cube]
fn is_of(at: &Place, #[comptime] product: u32) -> bool {
    at.product == product
}

/// Buffers as kernels take a list of them.
fn sequence<N: Size>(
    scope: &mut Scope,
    buffers: &[ManagedVariable],
) -> SequenceExpand<Array<Vector<bf16, N>>> {
    let mut all = Sequence::<Array<Vector<bf16, N>>>::__expand_new(scope);
    for buffer in buffers {
        Sequence::<Array<Vector<bf16, N>>>::__expand_push(scope, &mut all, buffer.clone().into());
    }
    all
}

#[cube]
fn is_busy(cube: u32, #[comptime] all: Products) -> bool {
    cube < comptime!(all.tiles().iter().product::<usize>() as u32)
}

impl Body for MmaMatmul {
    fn family(&self) -> &'static str {
        "mma"
    }

    fn describe(&self) -> String {
        let walk = |x: &Operand| match (x.along_depth, x.aligned) {
            (true, true) => "along k, in chunks",
            (false, true) => "across k, in chunks",
            (_, false) => "by elements",
        };
        let depth = |x: &Operand| x.depth.to_string();
        let further = || self.products.further.iter().map(|[a, _]| depth(a));
        let one = |(p, Taker { exit, region }): (&Product, &Taker)| {
            let depths: Vec<String> = std::iter::once(depth(&p.a)).chain(further()).collect();
            let [batch, parts, ..] = p.tiles;
            let [rows, columns] = [p.a.free, p.b.free].map(|free| free.div_ceil(TILE));
            format!(
                "arg0[{}, {}] = Σ_{} a · b, bfloat16 on tensor cores, {batch} times\n\
                 tiles {rows} × {columns} of {TILE} × {TILE}, {parts} parts of k of {} slices of {}, {} stages\n\
                 a {}, b {}; results leave {}, in pieces of {}\n{}",
                p.a.free,
                p.b.free,
                depths.join(" + "),
                p.steps,
                p.a.deep,
                p.stages,
                walk(&p.a),
                walk(&p.b),
                if exit.shared_bytes() > 0 { "through shared memory" } else { "from registers" },
                region.vector(),
                region.describe(),
            )
        };
        let all: Vec<String> = self.products.each.iter().zip(&self.takers).map(one).collect();
        let shared = if self.products.shared == Side::Left { "a" } else { "b" };
        all.join(&format!("beside it, of the same {shared}:\n"))
    }

    fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], args: &[ArgSpec]) {
        let all = &self.products;
        scope.register_size::<WidthA>(all.each[0].a.vector());
        scope.register_size::<WidthB>(all.each[0].b.vector());
        let mut own = 1;
        let (mut shared, mut operands, mut sinks) = (vec![buffers[0].clone()], Vec::new(), Vec::new());
        for (&product, Taker { exit, region }) in all.each.iter().zip(&self.takers) {
            operands.push(buffers[own].clone());
            for _ in &all.further {
                shared.push(buffers[own + 1].clone());
                operands.push(buffers[own + 2].clone());
                own += 2;
            }
            // The region's argument 0 is in no buffer; its place is the operand's.
            sinks.push(Sink { exit: *exit, region, buffers: &buffers[own..], args: &args[own..], product });
            own += region.arguments();
        }
        let (a, b) = if all.shared == Side::Left { (shared, operands) } else { (operands, shared) };
        let through_shared = self.takers.iter().any(|t| t.exit.shared_bytes() > 0);
        let cube = number::expand(scope);
        let body = |scope: &mut Scope| {
            let at = place_of::expand(scope, cube.clone(), all.clone());
            let (a, b) = (sequence(scope, &a), sequence(scope, &b));
            let sums =
                multiply::expand::<WidthA, WidthB, Const<2>, Const<2>>(scope, a, b, at.clone(), all.clone());
            let tile = through_shared.then(|| shared_tile::expand(scope));
            for (i, sink) in sinks.iter().enumerate() {
                let leave = |scope: &mut Scope| sink.emit(scope, &sums, &at, tile.as_ref());
                if sinks.len() == 1 {
                    leave(scope);
                } else {
                    let is_own = is_of::expand(scope, at.clone(), i as u32);
                    if_expand(scope, is_own, leave);
                }
            }
        };
        if self.exact {
            body(scope);
        } else {
            let busy = is_busy::expand(scope, cube.clone(), all.clone());
            if_expand(scope, busy, body);
        }
    }
}
