//! Matrix products on tensor cores: 128 × 128 results a thread block, and a region that takes them up where they are.
//! A product by itself is one whose region stores.
//!
//! # Map
//!
//! **Files.** Here: the kernel's description, and how mainloop and epilogue meet. `lower.rs`: products to launches.
//! [`mainloop`](super::mainloop): load and accumulate. [`epilogue`](super::epilogue): the region on the accumulators,
//! and store.
//!
//! **Thread blocks.** One has a tile of 128 × 128 results ([`TILE`]) of one product, over one part of k. Columns vary
//! fastest: thread blocks that follow one another share a tile of a. Products that share an operand are one grid, and
//! their tiles lie side by side along the axis that is not shared.
//!
//! **Split-k.** Where products have too few tiles for a device, k is split among thread blocks. Each writes its
//! partial results, a second kernel sums them in order, and the region is that kernel's. There are no atomics: the
//! order of every sum follows from shapes and tuning.
//!
//! **Warps.** Four, all of one role, 2 × 2 on the tile: each thread issues its part of every copy, and each warp
//! multiplies. Warp w has the 64 × 64 results at row 64 · (w % 2) and column 64 · (w / 2).
//!
//! | registers of a warp | extent | what |
//! |---|---|---|
//! | `acc` | 4 × 8 fragments of 16 × 8, float32 | the accumulators: 128 registers a thread |
//! | `left`, `right` | 4 fragments of 16 × 16, 1 of 16 × 8, bfloat16 | operands of one step of 16 along k |
//!
//! | shared memory | extent | what |
//! |---|---|---|
//! | `full` | an mbarrier a stage | its phase ends when the stage's slice has arrived |
//! | `tile_a`, `tile_b` | stages × 128 × depth, bfloat16 | slices of both operands, in a ring of stages |
//! | the result tile | 128 × 128, bfloat16 | results on their way out ([`Exit::Shared`]); it overlaps no stage |
//!
//! Stages and depth are the machine's (`mma.stages`, `mma.depth`). Tiles are swizzled in vectors of 16 bytes
//! ([`place`](crate::kernels::tensor_core::tile::place)): `ldmatrix` has no bank conflicts.
//!
//! **Pipeline.** With S stages and n slices of k:
//!
//! ```text
//! prologue      load slices 0 … S - 2    → stages 0 … S - 2
//! mainloop j    wait full[j % S]         slice j has arrived, from all threads
//!               sync_cube                all warps are done with slice j - 1: its stage may be overwritten
//!               load slice j + S - 1     → stage (j - 1) % S, asynchronous, if there is one
//!               accumulate               acc += a b, from stage j % S, 16 of k at a time
//! epilogue      through shared memory    acc, rounded → result tile (stmatrix)
//!                                        sync_cube: the tile is whole
//!                                        vectors of 8 → region → stores of whole lines
//!               or from registers        chunks of 4, or 1 → region → stores
//! ```

mod lower;

use cubecl::frontend::branch::if_expand;
use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use half::bf16;

pub(crate) use self::lower::{Layouts, fits, layouts, lower};
use super::epilogue::{Epilogue, Exit, shared_tile};
use super::mainloop::{Product, Products, TILE, TileCoord, multiply, tile_coord};
use crate::kernels::kernel::{ArgSpec, Body, has_work};
use crate::kernels::region::TileRegion;
use crate::kernels::tensor_core::tile::Operand;
use crate::plan::Side;

/// The description of a matmul kernel for tensor cores.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct MmaMatmul {
    products: Products,
    /// The region on each one's results.
    takers: Vec<Taker>,
    /// Whether the grid has no more thread blocks than there are tiles.
    exact: bool,
}

/// A region on the results of a product, and how they reach it.
#[derive(Clone, PartialEq, Debug)]
struct Taker {
    exit: Exit,
    region: TileRegion,
}

define_size!(WidthA);
define_size!(WidthB);

#[cube]
fn block_index() -> u32 {
    CUBE_POS as u32
}

#[cube]
fn is_of(at: &TileCoord, #[comptime] product: u32) -> bool {
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
                 a {}, b {}; results leave {}, in chunks of {}\n{}",
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
        let (mut shared, mut operands, mut epilogues) = (vec![buffers[0].clone()], Vec::new(), Vec::new());
        for (&product, Taker { exit, region }) in all.each.iter().zip(&self.takers) {
            operands.push(buffers[own].clone());
            for _ in &all.further {
                shared.push(buffers[own + 1].clone());
                operands.push(buffers[own + 2].clone());
                own += 2;
            }
            // The region's argument 0 is in no buffer; its place is the operand's.
            let (buffers, args) = (&buffers[own..], &args[own..]);
            epilogues.push(Epilogue { exit: *exit, region, buffers, args, product });
            own += region.arguments();
        }
        let (a, b) = if all.shared == Side::Left { (shared, operands) } else { (operands, shared) };
        let through_shared = self.takers.iter().any(|t| t.exit.shared_bytes() > 0);
        let block_index = block_index::expand(scope);
        let tiles = all.tiles().iter().product();
        let busy = has_work::expand(scope, block_index.clone(), tiles, self.exact);
        if_expand(scope, busy, |scope| {
            let at = tile_coord::expand(scope, block_index.clone(), all.clone());
            let (a, b) = (sequence(scope, &a), sequence(scope, &b));
            let acc =
                multiply::expand::<WidthA, WidthB, Const<2>, Const<2>>(scope, a, b, at.clone(), all.clone());
            let tile = through_shared.then(|| shared_tile::expand(scope));
            for (i, epilogue) in epilogues.iter().enumerate() {
                let store = |scope: &mut Scope| epilogue.emit(scope, &acc, &at, tile.as_ref());
                if epilogues.len() == 1 {
                    store(scope);
                } else {
                    let is_own = is_of::expand(scope, at.clone(), i as u32);
                    if_expand(scope, is_own, store);
                }
            }
        });
    }
}
