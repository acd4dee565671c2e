//! Matrix products on matrix units: 128 × 128 results a cube, and a region that takes them up where they are. A
//! product by itself is one whose region stores.
//!
//! Each result is summed over k in an order that follows from shapes alone. Where a product has too few
//! tiles for a device, k is split among cubes, whose partial results a second kernel sums in order; the region is
//! that kernel's then.

use cubecl::frontend::branch::if_expand;
use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use pg_ir::op::Binary;
use pg_ir::ty::DType;

use super::product::{DEPTH, Product, STAGES, TILE, multiply, place_of};
use super::results::{Exit, Sink};
use super::tile::{CHUNK, Operand, UNITS};
use crate::cube::kernel::{ArgSpec, Body, Generated};
use crate::cube::region::{self, TileRegion, lanes_meet, runs_on_tiles};
use crate::cube::stage::{ArgInfo, Launches, StageArg};
use crate::cube::target::{CubeError, Target};
use crate::domain::for_each_operand;
use crate::plan::{Matmul, MatrixView};
use crate::region::{Affine, IndexMap, Instr, Region};
use crate::target::TILES;

/// The description of a matmul kernel for matrix units.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct MmaMatmul {
    product: Product,
    exit: Exit,
    region: TileRegion,
    /// Whether the grid has no more cubes than there are tiles.
    exact: bool,
}

/// Whether a target can run a matmul of these arguments here.
pub(crate) fn fits(infos: &[ArgInfo], target: &Target) -> bool {
    let operands = infos.len() == 3 && infos[..2].iter().all(|i| i.dtype == DType::BF16);
    target.matrix_units && operands && matches!(infos[2].dtype, DType::F32 | DType::BF16)
}

/// Whether a target can run a matmul and a region on its result here, as one kernel. Otherwise they are two: the
/// result is written, and read again. It takes a region that runs on tiles, and operands that no result overwrites
/// while other cubes still read them.
pub(crate) fn region_fits(region: &Region, infos: &[ArgInfo], target: &Target) -> bool {
    let is_operand = |i: &ArgInfo| i.dtype == DType::BF16 && !i.aliased;
    let operands = infos.len() > 2 && infos[..2].iter().all(is_operand);
    // Lanes meet where results leave through shared memory, which is for rounded ones.
    let tile = match region.args.first() {
        Some(DType::F32) => !lanes_meet(region),
        Some(DType::BF16) => true,
        _ => false,
    };
    target.matrix_units && operands && tile && runs_on_tiles(region, TILES.rows, TILES.chunk)
}

/// Adds the launches of a matmul: one, or two if k is split.
///
/// # Errors
/// If it is malformed or does not fit the target.
pub(crate) fn lower(
    m: &Matmul,
    infos: &[ArgInfo],
    target: &Target,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let Some(c) = infos.get(2) else { return Err(malformed("it takes three arguments")) };
    lower_region(m, &result(m, c.dtype), infos, target, out)
}

/// Adds the launches of a matmul and a region on its result. Arguments: a, b, and the region's from 1 on.
///
/// # Errors
/// If it is malformed or does not fit the target.
pub(crate) fn lower_region(
    m: &Matmul,
    region: &Region,
    infos: &[ArgInfo],
    target: &Target,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let [a, b, others @ ..] = infos else { return Err(malformed("it takes two operands")) };
    if m.batch * m.m * m.n * m.k == 0 {
        return Err(malformed("an axis is empty"));
    }
    let is_own = region.row_count() * region.lanes == m.batch * m.m * m.n && m.n.is_multiple_of(region.lanes);
    if !is_own || others.len() + 1 != region.args.len() {
        return Err(malformed("its region is not of its result"));
    }
    let operands =
        [operand(m, (&m.a, a), (m.m, m.a.row), m.a.col), operand(m, (&m.b, b), (m.n, m.b.col), m.b.row)];
    for (x, info) in operands.iter().zip([a, b]) {
        if x.reach(m.batch) > info.len + info.shift || x.reach(m.batch) > i32::MAX as usize {
            return Err(malformed("an operand reaches beyond its buffer"));
        }
    }
    let (rows, columns) = (m.m.div_ceil(TILE), m.n.div_ceil(TILE));
    let (splits, steps) = split(m.batch * rows * columns, m.k, target);
    let tiles = [m.batch, splits, rows, columns];
    let product = Product { a: operands[0], b: operands[1], tiles, steps };
    let rest: Vec<StageArg> = (2..infos.len()).map(StageArg::Arg).collect();
    if splits == 1 {
        return push(product, region, (m, infos), &rest, target, out);
    }
    let len = m.batch * m.m * m.n;
    if splits * len > i32::MAX as usize {
        return Err(malformed("its parts are more than 2^31 elements"));
    }
    let parts = StageArg::Workspace(out.workspace(4 * splits * len));
    let parts_info = ArgInfo::whole(DType::F32, splits * len);
    push(product, &partial(m, splits), (m, &[*a, *b, parts_info]), &[parts], target, out)?;
    let infos: Vec<ArgInfo> = [parts_info].into_iter().chain(others.iter().copied()).collect();
    let names: Vec<StageArg> = [parts].into_iter().chain(rest).collect();
    let mut inner = Launches::default();
    region::lower(&on_sum_of_parts(region, splits), &infos, target, true, &mut inner)?;
    out.append(inner, &names);
    Ok(())
}

fn malformed(what: &str) -> CubeError {
    CubeError::Malformed { kernel: "mma".into(), what: what.into() }
}

/// Adds the launch of a product and the region on its results, whose arguments from 1 on are `rest`.
fn push(
    product: Product,
    region: &Region,
    (m, infos): (&Matmul, &[ArgInfo]),
    rest: &[StageArg],
    target: &Target,
    out: &mut Launches,
) -> Result<(), CubeError> {
    let rounded = region.args[0] == DType::BF16;
    let vector = match m.n {
        n if rounded && n.is_multiple_of(CHUNK) => CHUNK,
        n if n.is_multiple_of(4) => 4,
        _ => 1,
    };
    let tile = TileRegion::new(region, (m.m, m.n), vector, &infos[2..], target)?;
    let exit = match vector {
        CHUNK => Exit::shared(&tile),
        _ => Exit::Registers { vector, rounded },
    };
    let tile = if tile.lanes_meet() { tile.shared_by(exit.sharers()) } else { tile };
    let operand = |(x, info): (Operand, &ArgInfo)| ArgSpec {
        dtype: DType::BF16,
        width: x.vector(),
        writable: info.aliased,
    };
    let mut args: Vec<ArgSpec> = [product.a, product.b].into_iter().zip(infos).map(operand).collect();
    args.extend(tile.specs(&infos[2..]));
    let cubes: usize = product.tiles.iter().product();
    let grid = target.fold("mma", cubes as u64)?;
    let exact = grid[0] as usize * grid[1] as usize == cubes;
    // The barriers come first, and tiles are at multiples of 128 bytes.
    let shared = (8 * STAGES).next_multiple_of(128) + STAGES * DEPTH * 2 * TILE * 2 + exit.shared_bytes();
    let body = Body::MmaMatmul(MmaMatmul { product, exit, region: tile, exact });
    let kernel = Generated::new("mma", body, args, (UNITS as u32, shared), target)?;
    let names = [StageArg::Arg(0), StageArg::Arg(1)].into_iter().chain(rest.iter().copied());
    out.push(kernel, names.collect(), grid, 1.0);
    Ok(())
}

/// How k is cut: the number of parts, and slices of each. Weight gradients have 8 to 48 tiles and a k of
/// tens of thousands; without a split most of a device would idle.
fn split(tiles: usize, k: usize, target: &Target) -> (usize, usize) {
    let slices = k.div_ceil(DEPTH).next_multiple_of(STAGES);
    // Two cubes fit a multiprocessor; a part shorter than 16 slices is not worth its second pass.
    let wanted = (2 * target.multiprocessors as usize / tiles).min(slices / 16).max(1);
    let steps = slices.div_ceil(wanted).next_multiple_of(STAGES);
    (slices.div_ceil(steps), steps)
}

fn operand(
    m: &Matmul,
    (view, info): (&MatrixView, &ArgInfo),
    (free, free_stride): (usize, usize),
    depth_stride: usize,
) -> Operand {
    let offset = view.offset + info.shift;
    let fits = |len: usize, contiguous: usize, other: usize| {
        contiguous == 1 && [len, other, offset, view.batch].iter().all(|n| n.is_multiple_of(CHUNK))
    };
    let along_depth = fits(m.k, depth_stride, free_stride);
    let aligned = along_depth || fits(free, free_stride, depth_stride);
    let along_depth = along_depth || (!aligned && depth_stride <= free_stride);
    let (batch, depth) = (view.batch, m.k);
    Operand {
        offset,
        batch,
        free,
        free_stride,
        depth,
        depth_stride,
        tile: TILE,
        deep: DEPTH,
        along_depth,
        aligned,
    }
}

/// The element with the domain's own index in a row-major buffer, from `offset` on.
fn own(rows: &[usize], lanes: usize, offset: usize) -> Affine {
    let mut strides = vec![1];
    rows.iter().rev().fold(lanes, |stride, &n| {
        strides.push(stride as i64);
        stride * n
    });
    Affine { offset: offset as i64, strides: strides.into_iter().rev().collect() }
}

fn load(arg: u32, at: Affine) -> Instr {
    Instr::Load { arg, map: IndexMap { at, guards: vec![] } }
}

/// The region of a product by itself: c = result, after c's old value if it is kept. Arguments: result, c.
fn result(m: &Matmul, dtype: DType) -> Region {
    let rows = vec![m.batch, m.m];
    let strides = [m.c.batch, m.c.row, m.c.col].map(|s| s as i64);
    let c = Affine { offset: m.c.offset as i64, strides: strides.into_iter().collect() };
    let mut body = vec![load(0, own(&rows, m.n, 0))];
    if m.accumulate {
        body.extend([load(1, c.clone()), Instr::Binary(Binary::Add, 1, 0)]);
    }
    body.push(Instr::Store { arg: 1, value: body.len() as u32 - 1, at: c });
    // What is added to is not rounded before.
    let tile = if m.accumulate { DType::F32 } else { dtype };
    Region { rows, reduced: 0, lanes: m.n, body, args: vec![tile, dtype] }
}

/// The region of one part of a split product: parts of all matrices lie one after the other.
fn partial(m: &Matmul, parts: usize) -> Region {
    let rows = vec![parts * m.batch, m.m];
    let at = own(&rows, m.n, 0);
    let body = vec![load(0, at.clone()), Instr::Store { arg: 1, value: 0, at }];
    Region { rows, reduced: 0, lanes: m.n, body, args: vec![DType::F32; 2] }
}

/// A region whose argument 0 is the sum, in order, of parts that lie one after the other in a workspace.
fn on_sum_of_parts(region: &Region, parts: usize) -> Region {
    let part = |i: usize| load(0, own(&region.rows, region.lanes, i * region.row_count() * region.lanes));
    let mut body = vec![part(0)];
    for i in 1..parts {
        let sum = body.len() as u32 - 1;
        body.extend([part(i), Instr::Binary(Binary::Add, sum, sum + 1)]);
    }
    if region.args[0] == DType::BF16 {
        body.push(Instr::Cast(DType::BF16, body.len() as u32 - 1));
    }
    let sum = body.len() as u32 - 1;
    let mut renamed = Vec::new();
    for instr in &region.body {
        if matches!(instr, Instr::Load { arg: 0, .. }) {
            renamed.push(sum);
            continue;
        }
        let mut instr = instr.clone();
        for_each_operand(&mut instr, |r| *r = renamed[*r as usize]);
        renamed.push(body.len() as u32);
        body.push(instr);
    }
    let args = [DType::F32].into_iter().chain(region.args[1..].iter().copied()).collect();
    Region { body, args, ..region.clone() }
}

define_size!(WidthA);
define_size!(WidthB);

#[cube]
fn number() -> u32 {
    CUBE_POS as u32
}

#[cube]
fn is_busy(cube: u32, #[comptime] p: Product) -> bool {
    cube < comptime!(p.tiles.iter().product::<usize>() as u32)
}

impl MmaMatmul {
    /// What it computes, as text.
    pub(crate) fn describe(&self) -> String {
        let p = &self.product;
        let [batch, parts, rows, columns] = p.tiles;
        let walk = |x: &Operand| match (x.along_depth, x.aligned) {
            (true, true) => "along k, in chunks",
            (false, true) => "across k, in chunks",
            (_, false) => "by elements",
        };
        format!(
            "arg0[{}, {}] = Σ_{} a · b, bfloat16 on matrix units, {batch} times\n\
             tiles {rows} × {columns} of {TILE} × {TILE}, {parts} parts of k of {} slices of {DEPTH}, {STAGES} stages\n\
             a {}, b {}; results leave {}, in pieces of {}\n{}",
            p.a.free,
            p.b.free,
            p.a.depth,
            p.steps,
            walk(&p.a),
            walk(&p.b),
            if self.exit.shared_bytes() > 0 { "through shared memory" } else { "from registers" },
            self.region.vector(),
            self.region.describe(),
        )
    }

    /// Emits the kernel.
    pub(crate) fn define(&self, scope: &mut Scope, buffers: &[ManagedVariable], args: &[ArgSpec]) {
        let p = self.product;
        scope.register_size::<WidthA>(p.a.vector());
        scope.register_size::<WidthB>(p.b.vector());
        self.region.register(scope);
        // The region's argument 0 is in no buffer; its place is b's.
        let (exit, region) = (self.exit, &self.region);
        let sink = Sink { exit, region, buffers: &buffers[1..], args: &args[1..], product: p };
        let cube = number::expand(scope);
        let body = |scope: &mut Scope| {
            let [a, b] = [0, 1].map(|i| buffers[i].clone());
            let at = place_of::expand(scope, cube.clone(), p);
            let sums = multiply::expand::<WidthA, WidthB, Const<2>, Const<2>>(
                scope,
                a.into(),
                b.into(),
                at.clone(),
                p,
            );
            sink.emit(scope, &sums, &at);
        };
        if self.exact {
            body(scope);
        } else {
            let busy = is_busy::expand(scope, cube.clone(), p);
            if_expand(scope, busy, body);
        }
    }
}
