//! Causal attention, forward and backward, without a time × time buffer.
//!
//! A task has one block of query positions of the heads that share a key/value head, and the keys up to
//! the block's end: a strip of scores, rows · keys, that stays in the thread's cache. Both products are
//! then large matrix products, and the softmax is exact, not running. Scores of later keys inside the
//! strip are replaced by zero probability, and zero times a finite value adds nothing: a position's bits
//! do not depend on later tokens.

use gemm::Parallelism;
use pg_codegen::plan::AttentionShape;
use pg_ir::op::Reduction;
use pg_ir::ty::DType;

use super::error::Problem;
use super::math;
use super::matmul::{Matrix, product};
use super::parallel::parallel;
use super::raw::Arg;
use super::region::check::check_computed_types;
use super::region::reduce;
use super::scatter::{check_apart, check_lengths};
use super::simd::{Isa, Kernel};
use super::workspace::{Workspace, WorkspaceSize};

/// Elements of a strip of scores, about: half of a second-level cache.
const STRIP: usize = 256 * 1024;
/// Query positions of a block, at most. More waste work above the diagonal.
const POSITIONS: usize = 64;
/// Tasks that the backward is cut into where there are fewer (sequence, key/value head) pairs.
const TASKS: usize = 16;

/// Sizes derived from a shape; functions of the shape alone, so that the bits are too.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) shape: AttentionShape,
    /// Query heads of a key/value head.
    pub(crate) group: usize,
    /// Query positions of a block.
    pub(crate) positions: usize,
    pub(crate) blocks: usize,
    /// Parts that the blocks of a (sequence, key/value head) pair are dealt to.
    pub(crate) parts: usize,
}

impl Sizes {
    fn of(shape: AttentionShape) -> Self {
        let group = shape.heads / shape.kv_heads;
        Sizes::new(shape, (STRIP / (shape.time * group)).clamp(8, POSITIONS))
    }

    /// With blocks of so many positions.
    pub(crate) fn new(shape: AttentionShape, positions: usize) -> Self {
        let group = shape.heads / shape.kv_heads;
        let positions = positions.min(shape.time);
        let blocks = shape.time.div_ceil(positions);
        let parts = (TASKS / (shape.batch * shape.kv_heads)).clamp(1, blocks);
        Sizes { shape, group, positions, blocks, parts }
    }

    fn rows(&self) -> usize {
        self.positions * self.group
    }
}

/// Scratch of the forward.
pub(crate) fn workspace(shape: AttentionShape) -> WorkspaceSize {
    let s = Sizes::of(shape);
    WorkspaceSize { thread: s.rows() * (shape.time + 2 * shape.dim), shared: 0 }
}

/// Scratch of the backward.
pub(crate) fn grad_workspace(shape: AttentionShape) -> WorkspaceSize {
    let s = Sizes::of(shape);
    let partial = 2 * shape.batch * shape.kv_heads * s.parts * shape.time * shape.dim;
    let shared = if s.parts > 1 { partial } else { 0 };
    WorkspaceSize { thread: s.rows() * (2 * shape.time + 3 * shape.dim), shared }
}

fn lengths(s: &AttentionShape) -> [usize; 5] {
    let positions = s.batch * s.time;
    let (q, kv) = (positions * s.heads * s.dim, positions * s.kv_heads * s.dim);
    [q, kv, kv, q, positions * s.heads]
}

fn check_shape(s: &AttentionShape) -> Result<(), Problem> {
    if [s.batch, s.time, s.heads, s.kv_heads, s.dim].contains(&0) {
        return Err(Problem::Shape("an attention axis is empty"));
    }
    if !s.heads.is_multiple_of(s.kv_heads) {
        return Err(Problem::Shape("the key/value heads do not divide the query heads"));
    }
    Ok(())
}

/// Checks the arguments of the forward.
pub(crate) fn check(shape: &AttentionShape, args: &[Arg]) -> Result<(), Problem> {
    check_shape(shape)?;
    check_computed_types(&[DType::F32; 5], args)?;
    check_lengths(&lengths(shape), args)?;
    check_apart(args, 3)
}

/// Checks the arguments of the backward.
pub(crate) fn check_grad(shape: &AttentionShape, args: &[Arg]) -> Result<(), Problem> {
    check_shape(shape)?;
    check_computed_types(&[DType::F32; 9], args)?;
    let [q, k, v, o, lse] = lengths(shape);
    check_lengths(&[q, k, v, o, lse, o, q, k, v], args)?;
    check_apart(args, 6)
}

/// One block of queries of one key/value head.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// First position, from the start of all sequences.
    first: usize,
    /// The first position of its sequence.
    sequence: usize,
    kv_head: usize,
    /// Positions.
    pub(crate) len: usize,
}

impl Block {
    pub(crate) fn new(s: &Sizes, batch: usize, kv_head: usize, block: usize) -> Self {
        let sequence = batch * s.shape.time;
        let from = block * s.positions;
        Block { first: sequence + from, sequence, kv_head, len: s.positions.min(s.shape.time - from) }
    }

    /// Keys up to the block's end.
    pub(crate) fn keys(&self) -> usize {
        self.first - self.sequence + self.len
    }

    /// Keys that row `row` of the block attends to.
    pub(crate) fn visible(&self, row: usize, group: usize) -> usize {
        self.first - self.sequence + row / group + 1
    }

    /// Where a position's rows of this head group begin in an array [position, head, width].
    pub(crate) fn at(&self, s: &Sizes, position: usize, width: usize) -> usize {
        ((self.first + position) * s.shape.heads + self.kv_head * s.group) * width
    }

    /// Packs the block's rows of [position, head, dim]: the heads of a group are neighbours.
    fn pack(&self, s: &Sizes, from: Arg, to: &mut [f32]) {
        let width = s.group * s.shape.dim;
        for (position, to) in to.chunks_exact_mut(width).take(self.len).enumerate() {
            // SAFETY: lengths are checked; inputs are not written by this launch.
            to.copy_from_slice(unsafe { from.read(self.at(s, position, s.shape.dim), width) });
        }
    }

    /// The keys or values (or their gradients) of the block's sequence and head.
    pub(crate) fn keys_of(&self, s: &Sizes, arg: Arg) -> Matrix {
        let AttentionShape { kv_heads, dim, .. } = s.shape;
        Matrix::new(arg, (self.sequence * kv_heads + self.kv_head) * dim, kv_heads * dim, 1)
    }
}

/// Runs the forward on checked arguments.
pub(crate) fn run(shape: AttentionShape, args: &[Arg], workspace: &mut Workspace, isa: Isa) {
    let &[q, k, v, o, lse] = args else { unreachable!("checked") };
    let s = Sizes::of(shape);
    let (dim, pairs) = (shape.dim, shape.batch * shape.kv_heads);
    let (threads, _) = workspace.split();
    parallel(pairs * s.blocks, 2 * s.rows() * shape.time * dim, |task| {
        // The longest strips first, so that the short ones fill the gaps at the end.
        let (block, pair) = (s.blocks - 1 - task / pairs, task % pairs);
        let block = Block::new(&s, pair / shape.kv_heads, pair % shape.kv_heads, block);
        let (rows, keys) = (block.len * s.group, block.keys());
        threads.with(|memory| {
            let (scores, memory) = memory.split_at_mut(rows * keys);
            let (packed, memory) = memory.split_at_mut(rows * dim);
            let out = &mut memory[..rows * dim];
            block.pack(&s, q, packed);
            let (p, ks, vs) = (Matrix::of_mut(scores, keys), block.keys_of(&s, k), block.keys_of(&s, v));
            // SAFETY: `scores` has rows · keys elements, `packed` rows · dim, and the keys of the sequence
            // lie inside k by the checked lengths; nothing writes k.
            unsafe {
                product([rows, keys, dim], Matrix::of(packed, dim), ks.t(), p, false, Parallelism::None)
            };
            for (row, scores) in scores.chunks_exact_mut(keys).enumerate() {
                let (seen, hidden) = scores.split_at_mut(block.visible(row, s.group));
                hidden.fill(0.0);
                let (max, sum) = isa.run(Softmax { scores: seen, scale: shape.scale });
                let at = block.at(&s, row / s.group, 1) + row % s.group;
                // SAFETY: inside by the checked lengths; each task writes its own rows.
                unsafe { lse.write::<f32>(at, 1)[0] = max + math::log(sum) };
                // Kept in the packed queries, which nobody needs any more.
                packed[row] = 1.0 / sum;
            }
            // SAFETY: as above, with `out` of rows · dim elements.
            unsafe { product([rows, dim, keys], p, vs, Matrix::of_mut(out, dim), false, Parallelism::None) };
            for (row, out) in out.chunks_exact(dim).enumerate() {
                let at = block.at(&s, row / s.group, dim) + row % s.group * dim;
                // SAFETY: inside by the checked lengths; each task writes its own rows.
                let o = unsafe { o.write::<f32>(at, dim) };
                o.iter_mut().zip(out).for_each(|(o, x)| *o = x * packed[row]);
            }
        });
    });
}

/// Runs the backward on checked arguments.
pub(crate) fn run_grad(shape: AttentionShape, args: &[Arg], workspace: &mut Workspace, isa: Isa) {
    let &[q, k, v, o, lse, d_o, d_q, d_k, d_v] = args else { unreachable!("checked") };
    let s = Sizes::of(shape);
    let AttentionShape { time, dim, kv_heads, .. } = shape;
    let pairs = shape.batch * kv_heads;
    let (threads, shared) = workspace.split();
    let shared: &mut [f32] = shared.view_mut();
    let partials = Arg::new(shared.as_mut_ptr().cast(), shared.len(), DType::F32);
    parallel(pairs * s.parts, 5 * s.rows() * time * dim, |task| {
        let (pair, part) = (task / s.parts, task % s.parts);
        let (batch, kv_head) = (pair / kv_heads, pair % kv_heads);
        // Gradients of keys and values collect in place, or in this part's own memory.
        let any = Block::new(&s, batch, kv_head, 0);
        let [dk, dv] = if s.parts == 1 {
            [any.keys_of(&s, d_k), any.keys_of(&s, d_v)]
        } else {
            [0, 1].map(|which| Matrix::new(partials, (2 * task + which) * time * dim, dim, 1))
        };
        for matrix in [dk, dv] {
            for key in 0..time {
                // SAFETY: inside by the checked lengths or the workspace's size; this task's own.
                unsafe { std::slice::from_raw_parts_mut(matrix.at(key, 0).ptr.cast::<f32>(), dim) }.fill(0.0);
            }
        }
        // Dealt in turn: the parts have strips of all lengths.
        for block in (part..s.blocks).step_by(s.parts) {
            let block = Block::new(&s, batch, kv_head, block);
            let (rows, keys) = (block.len * s.group, block.keys());
            threads.with(|memory| {
                let (probs, memory) = memory.split_at_mut(rows * keys);
                let (d_probs, memory) = memory.split_at_mut(rows * keys);
                let (q_rows, memory) = memory.split_at_mut(rows * dim);
                let (do_rows, memory) = memory.split_at_mut(rows * dim);
                let dq_rows = &mut memory[..rows * dim];
                block.pack(&s, q, q_rows);
                block.pack(&s, d_o, do_rows);
                let (ks, vs) = (block.keys_of(&s, k), block.keys_of(&s, v));
                let (qm, dom) = (Matrix::of(q_rows, dim), Matrix::of(do_rows, dim));
                let (pm, dpm) = (Matrix::of_mut(probs, keys), Matrix::of_mut(d_probs, keys));
                // SAFETY: sizes as split above; keys and values lie inside their arguments by the checked
                // lengths, and nothing writes them.
                unsafe {
                    product([rows, keys, dim], qm, ks.t(), pm, false, Parallelism::None);
                    product([rows, keys, dim], dom, vs.t(), dpm, false, Parallelism::None);
                }
                let strips = probs.chunks_exact_mut(keys).zip(d_probs.chunks_exact_mut(keys));
                for (row, (probs, d_probs)) in strips.enumerate() {
                    let at = block.at(&s, row / s.group, 1) + row % s.group;
                    // SAFETY: inside by the checked lengths; inputs are not written.
                    let (o, lse) = unsafe { (o.read::<f32>(at * dim, dim), lse.read::<f32>(at, 1)[0]) };
                    let seen = block.visible(row, s.group);
                    probs[seen..].fill(0.0);
                    d_probs[seen..].fill(0.0);
                    let (probs, d_probs) = (&mut probs[..seen], &mut d_probs[..seen]);
                    let d_o = &do_rows[row * dim..][..dim];
                    let delta = dot(o, d_o);
                    isa.run(SoftmaxGrad { probs, d_probs, delta, lse, scale: shape.scale });
                }
                // SAFETY: as above; gradients of keys and values are this task's own.
                unsafe {
                    let dqm = Matrix::of_mut(dq_rows, dim);
                    product([rows, dim, keys], dpm, ks, dqm, false, Parallelism::None);
                    product([keys, dim, rows], dpm.t(), qm, dk, true, Parallelism::None);
                    product([keys, dim, rows], pm.t(), dom, dv, true, Parallelism::None);
                }
                let width = s.group * dim;
                for (position, dq) in dq_rows.chunks_exact(width).enumerate() {
                    // SAFETY: inside by the checked lengths; each block writes its own rows.
                    unsafe { d_q.write(block.at(&s, position, dim), width) }.copy_from_slice(dq);
                }
            });
        }
    });
    if s.parts > 1 {
        collect(&s, partials, [d_k, d_v]);
    }
}

/// Σ x · y, in a fixed order.
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    for (x, y) in x.chunks(16).zip(y.chunks(16)) {
        for (s, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *s += x * y;
        }
    }
    reduce(Reduction::Sum, &sums)
}

/// Adds the parts' gradients of keys and values, in order, and writes them as they are stored.
pub(crate) fn collect(s: &Sizes, partials: Arg, out: [Arg; 2]) {
    const KEYS: usize = 64;
    let AttentionShape { time, dim, kv_heads, batch, .. } = s.shape;
    let pieces = time.div_ceil(KEYS);
    parallel(batch * kv_heads * pieces, 2 * KEYS * dim * s.parts, |task| {
        let (pair, piece) = (task / pieces, task % pieces);
        let (sequence, kv_head) = (pair / kv_heads * time, pair % kv_heads);
        for key in piece * KEYS..time.min((piece + 1) * KEYS) {
            for (which, out) in out.iter().enumerate() {
                let at = ((sequence + key) * kv_heads + kv_head) * dim;
                let part = |part: usize| {
                    let at = ((2 * (pair * s.parts + part) + which) * time + key) * dim;
                    // SAFETY: inside the workspace; all writers have finished.
                    unsafe { partials.read::<f32>(at, dim) }
                };
                let sum = |i: usize| (1..s.parts).fold(part(0)[i], |sum, p| sum + part(p)[i]);
                // SAFETY: inside by the checked lengths; each task writes its own rows.
                unsafe { out.write_floats(at, dim, sum) };
            }
        }
    });
}

/// Scores to exp(scale · score − max); gives the maximum and the sum.
pub(crate) struct Softmax<'a> {
    pub(crate) scores: &'a mut [f32],
    pub(crate) scale: f32,
}

impl Kernel for Softmax<'_> {
    type Output = (f32, f32);
    #[inline(always)]
    fn call(self) -> (f32, f32) {
        let Softmax { scores, scale } = self;
        for x in scores.iter_mut() {
            *x *= scale;
        }
        let max = reduce(Reduction::Max, scores);
        for x in scores.iter_mut() {
            *x = math::exp(*x - max);
        }
        (max, reduce(Reduction::Sum, scores))
    }
}

/// Scores to probabilities, and gradients of probabilities to gradients of unscaled scores.
pub(crate) struct SoftmaxGrad<'a> {
    pub(crate) probs: &'a mut [f32],
    pub(crate) d_probs: &'a mut [f32],
    /// Σ over keys of p · dp, which equals o · do.
    pub(crate) delta: f32,
    pub(crate) lse: f32,
    pub(crate) scale: f32,
}

impl Kernel for SoftmaxGrad<'_> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        let SoftmaxGrad { probs, d_probs, delta, lse, scale } = self;
        for (p, d) in probs.iter_mut().zip(d_probs) {
            *p = math::exp(*p * scale - lse);
            *d = *p * (*d - delta) * scale;
        }
    }
}
