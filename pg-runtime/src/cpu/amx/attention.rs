//! Attention on AMX: as [`super::super::attention`], whose sizes and softmax it shares, with the
//! keys and values of a sequence's head packed once for all its blocks of queries.
//!
//! A task has some of the blocks of one (sequence, key/value head) pair. Probabilities are operands like any
//! other: split where arguments are float32, rounded where they are bfloat16.

use pg_codegen::plan::AttentionShape;
use pg_ir::ty::DType;

use super::super::attention::{Block, Sizes, Softmax, SoftmaxGrad, collect};
use super::super::math;
use super::super::matmul::Matrix;
use super::super::parallel::parallel;
use super::super::raw::Arg;
use super::super::simd::Isa;
use super::super::workspace::{Workspace, WorkspaceSize};
use super::product::{Lent, Right};
use super::{Amx, BLOCK, ROWS, left_words, parts, right_words};

impl Amx {
    /// Whether attention of this shape gains from the units, and has arguments that they take: all but the
    /// log-sum-exp of one type.
    pub(crate) fn suits_attention(shape: AttentionShape, dtypes: &[DType]) -> bool {
        let group = shape.heads / shape.kv_heads.max(1);
        let same = dtypes.iter().enumerate().all(|(i, d)| *d == if i == 4 { DType::F32 } else { dtypes[0] });
        same && (1..=ROWS / 2).contains(&group) && shape.time >= 2 * BLOCK && shape.dim >= BLOCK / 2
    }
}

fn sizes(shape: AttentionShape) -> Sizes {
    Sizes::new(shape, ROWS / (shape.heads / shape.kv_heads))
}

/// Scratch memory of a task, handed out piece by piece.
struct Memory<'a>(&'a mut [f32]);

impl<'a> Memory<'a> {
    fn take(&mut self, words: usize) -> &'a mut [f32] {
        let (taken, rest) = std::mem::take(&mut self.0).split_at_mut(words.next_multiple_of(16));
        self.0 = rest;
        &mut taken[..words]
    }

    fn lend(&mut self, words: usize) -> Lent {
        Lent::new(self.take(words))
    }
}

/// Scratch of the forward.
pub(crate) fn workspace(shape: AttentionShape, dtype: DType) -> WorkspaceSize {
    let AttentionShape { time, dim, .. } = shape;
    let parts = parts(dtype);
    let packed = right_words(parts, time, dim) + right_words(parts, dim, time);
    let rows = ROWS * (time + 2 * dim + 2);
    WorkspaceSize { thread: left_words(parts) + packed + rows + 128, shared: 0 }
}

/// Scratch of the backward.
pub(crate) fn grad_workspace(shape: AttentionShape, dtype: DType) -> WorkspaceSize {
    let AttentionShape { time, dim, .. } = shape;
    let s = sizes(shape);
    let parts = parts(dtype);
    let packed =
        2 * right_words(parts, time, dim) + right_words(parts, dim, time) + 2 * right_words(parts, dim, ROWS);
    let rows = ROWS * (2 * time + 3 * dim);
    let shared = 2 * shape.batch * shape.kv_heads * s.parts * time * dim;
    WorkspaceSize { thread: left_words(parts) + packed + rows + 256, shared }
}

/// Runs the forward on checked arguments that [suit](Amx::suits_attention).
pub(crate) fn run(_: Amx, shape: AttentionShape, args: &[Arg], workspace: &mut Workspace, isa: Isa) {
    let s = sizes(shape);
    let (threads, _) = workspace.split();
    let work = 4 * shape.time * shape.time * shape.dim * s.group / s.parts;
    parallel(shape.batch * shape.kv_heads * s.parts, work, |task| {
        threads.with(|memory| {
            // SAFETY: arguments are checked, and the workspace is that of this shape.
            unsafe {
                match args[0].dtype() {
                    DType::BF16 => forward::<1>(&s, args, task, Memory(memory), isa),
                    _ => forward::<3>(&s, args, task, Memory(memory), isa),
                }
            }
        });
    });
}

/// Runs the backward on checked arguments that [suit](Amx::suits_attention).
pub(crate) fn run_grad(_: Amx, shape: AttentionShape, args: &[Arg], workspace: &mut Workspace, isa: Isa) {
    let s = sizes(shape);
    let (threads, shared) = workspace.split();
    let shared: &mut [f32] = shared.view_mut();
    let sums = Arg::new(shared.as_mut_ptr().cast(), shared.len(), DType::F32);
    let work = 10 * shape.time * shape.time * shape.dim * s.group / s.parts;
    parallel(shape.batch * shape.kv_heads * s.parts, work, |task| {
        threads.with(|memory| {
            // SAFETY: as above.
            unsafe {
                match args[0].dtype() {
                    DType::BF16 => backward::<1>(&s, args, sums, task, Memory(memory), isa),
                    _ => backward::<3>(&s, args, sums, task, Memory(memory), isa),
                }
            }
        });
    });
    collect(&s, sums, [args[7], args[8]]);
}

/// A right operand, packed from a [k, n] matrix.
///
/// # Safety
/// The matrix must be valid, and the memory large enough.
unsafe fn packed<const PARTS: usize>(b: Matrix, [depth, cols]: [usize; 2], memory: Lent) -> Right<PARTS> {
    let right = Right { cols, packed_depth: depth, depth, packed: memory };
    // SAFETY: by the caller's promise.
    (0..right.groups()).for_each(|group| unsafe { right.pack(b, group) });
    right
}

/// A block's rows of [position, head, dim], as they are stored.
///
/// # Safety
/// The argument must hold them, and the memory room for them.
unsafe fn rows_of(block: &Block, s: &Sizes, arg: Arg, memory: Lent) -> Matrix {
    let (dim, size) = (s.shape.dim, arg.dtype().size());
    let width = s.group * dim * size;
    for position in 0..block.len {
        let from = arg.at(block.at(s, position, dim));
        // SAFETY: by the caller's promise.
        unsafe { std::ptr::copy_nonoverlapping(from, memory.0.wrapping_add(position * width), width) };
    }
    Matrix { ptr: memory.0, dtype: arg.dtype(), row: dim, col: 1 }
}

/// Writes a block's rows of [position, head, dim], each times its factor.
///
/// # Safety
/// The argument must hold them, and nobody else touch them there.
unsafe fn write_rows(block: &Block, s: &Sizes, rows: &[f32], factor: impl Fn(usize) -> f32, arg: Arg) {
    let dim = s.shape.dim;
    for (row, from) in rows.chunks_exact(dim).enumerate() {
        let at = block.at(s, row / s.group, dim) + row % s.group * dim;
        let factor = factor(row);
        // SAFETY: by the caller's promise.
        unsafe { arg.write_floats(at, dim, |i| from[i] * factor) };
    }
}

/// # Safety
/// Checked arguments, and memory of [`workspace`].
unsafe fn forward<const PARTS: usize>(
    s: &Sizes,
    args: &[Arg],
    task: usize,
    mut memory: Memory<'_>,
    isa: Isa,
) {
    let &[q, k, v, o, lse] = args else { unreachable!("checked") };
    let AttentionShape { time, dim, kv_heads, scale, .. } = s.shape;
    let (pair, part) = (task / s.parts, task % s.parts);
    let (batch, kv_head) = (pair / kv_heads, pair % kv_heads);
    let whole = Block::new(s, batch, kv_head, 0);
    let left = memory.lend(left_words(PARTS));
    let keys = memory.lend(right_words(PARTS, time, dim));
    let values = memory.lend(right_words(PARTS, dim, time));
    // SAFETY: the sequence's keys and values lie inside their arguments by the checked lengths.
    let (keys, values) = unsafe {
        (
            packed::<PARTS>(whole.keys_of(s, k).t(), [dim, time], keys),
            packed::<PARTS>(whole.keys_of(s, v), [time, dim], values),
        )
    };
    let scores = memory.take(ROWS * time);
    let (queries, out, inverse) = (memory.lend(ROWS * dim), memory.take(ROWS * dim), memory.take(ROWS));
    for block in (part..s.blocks).step_by(s.parts) {
        let block = Block::new(s, batch, kv_head, block);
        let (rows, seen) = (block.len * s.group, block.keys());
        let (scores, out) = (&mut scores[..rows * seen], &mut out[..rows * dim]);
        let (p, om) = (Matrix::of_mut(scores, seen), Matrix::of_mut(out, dim));
        // SAFETY: sizes as taken; the block's queries lie inside q.
        unsafe {
            let queries = rows_of(&block, s, q, queries);
            keys.multiply(queries, p, rows, [0, seen], false, left);
        }
        for (row, scores) in scores.chunks_exact_mut(seen).enumerate() {
            let (visible, hidden) = scores.split_at_mut(block.visible(row, s.group));
            hidden.fill(0.0);
            let (max, sum) = isa.run(Softmax { scores: visible, scale });
            let at = block.at(s, row / s.group, 1) + row % s.group;
            // SAFETY: inside by the checked lengths; each task writes its own rows.
            unsafe { lse.write::<f32>(at, 1)[0] = max + math::log(sum) };
            inverse[row] = 1.0 / sum;
        }
        // SAFETY: as above.
        unsafe {
            Right { depth: seen, ..values }.multiply(p, om, rows, [0, dim], false, left);
            write_rows(&block, s, out, |row| inverse[row], o);
        }
    }
}

/// # Safety
/// Checked arguments, memory of [`grad_workspace`], and the task's own sums.
unsafe fn backward<const PARTS: usize>(
    s: &Sizes,
    args: &[Arg],
    sums: Arg,
    task: usize,
    mut memory: Memory<'_>,
    isa: Isa,
) {
    let &[q, k, v, o, lse, d_o, d_q, ..] = args else { unreachable!("checked") };
    let AttentionShape { time, dim, kv_heads, .. } = s.shape;
    let (pair, part) = (task / s.parts, task % s.parts);
    let (batch, kv_head) = (pair / kv_heads, pair % kv_heads);
    let whole = Block::new(s, batch, kv_head, 0);
    let left = memory.lend(left_words(PARTS));
    let wide = right_words(PARTS, time, dim);
    let (keys, values) = (memory.lend(wide), memory.lend(wide));
    let key_rows = memory.lend(right_words(PARTS, dim, time));
    let (km, vm) = (whole.keys_of(s, k), whole.keys_of(s, v));
    // SAFETY: the sequence's keys and values lie inside their arguments by the checked lengths.
    let (keys, values, key_rows) = unsafe {
        (
            packed::<PARTS>(km.t(), [dim, time], keys),
            packed::<PARTS>(vm.t(), [dim, time], values),
            packed::<PARTS>(km, [time, dim], key_rows),
        )
    };
    let [dk, dv] = [0, 1].map(|which| Matrix::new(sums, (2 * task + which) * time * dim, dim, 1));
    // SAFETY: this task's own part of the workspace.
    unsafe { sums.write::<f32>(2 * task * time * dim, 2 * time * dim) }.fill(0.0);
    let block_words = right_words(PARTS, dim, ROWS);
    let (query_block, d_o_block) = (memory.lend(block_words), memory.lend(block_words));
    let (probs, d_probs) = (memory.take(ROWS * time), memory.take(ROWS * time));
    let (queries, d_outs, dq) = (memory.lend(ROWS * dim), memory.lend(ROWS * dim), memory.take(ROWS * dim));
    for block in (part..s.blocks).step_by(s.parts) {
        let block = Block::new(s, batch, kv_head, block);
        let (rows, seen) = (block.len * s.group, block.keys());
        let (probs, d_probs) = (&mut probs[..rows * seen], &mut d_probs[..rows * seen]);
        let (pm, dpm) = (Matrix::of_mut(probs, seen), Matrix::of_mut(d_probs, seen));
        // SAFETY: sizes as taken; the block's rows lie inside q and the output's gradient.
        let (queries, d_outs) = unsafe {
            let (queries, d_outs) = (rows_of(&block, s, q, queries), rows_of(&block, s, d_o, d_outs));
            keys.multiply(queries, pm, rows, [0, seen], false, left);
            values.multiply(d_outs, dpm, rows, [0, seen], false, left);
            (queries, d_outs)
        };
        // SAFETY: inside by the checked lengths; inputs are not written.
        unsafe { softmax_grad(&block, s, [o, lse, d_o], probs, d_probs, isa) };
        // SAFETY: as above; gradients of keys and values are this task's own.
        unsafe {
            let queries = packed::<PARTS>(queries, [rows, dim], query_block);
            let d_outs = packed::<PARTS>(d_outs, [rows, dim], d_o_block);
            for key in (0..seen).step_by(ROWS) {
                let count = ROWS.min(seen - key);
                queries.multiply(dpm.at(0, key).t(), dk.at(key, 0), count, [0, dim], true, left);
                d_outs.multiply(pm.at(0, key).t(), dv.at(key, 0), count, [0, dim], true, left);
            }
            let dq = &mut dq[..rows * dim];
            let dqm = Matrix::of_mut(dq, dim);
            Right { depth: seen, ..key_rows }.multiply(dpm, dqm, rows, [0, dim], false, left);
            write_rows(&block, s, dq, |_| 1.0, d_q);
        }
    }
}

/// A block's scores to probabilities, and gradients of probabilities to those of scores.
///
/// # Safety
/// The arguments o, lse and do must hold the block's rows, and nobody write them.
unsafe fn softmax_grad(
    block: &Block,
    s: &Sizes,
    [o, lse, d_o]: [Arg; 3],
    probs: &mut [f32],
    d_probs: &mut [f32],
    isa: Isa,
) {
    let AttentionShape { dim, scale, .. } = s.shape;
    let rows = probs.chunks_exact_mut(block.keys()).zip(d_probs.chunks_exact_mut(block.keys()));
    for (row, (probs, d_probs)) in rows.enumerate() {
        let at = block.at(s, row / s.group, 1) + row % s.group;
        // SAFETY: by the caller's promise.
        let (lse, delta) = unsafe { (lse.read::<f32>(at, 1)[0], dot(o, d_o, at * dim, dim)) };
        let visible = block.visible(row, s.group);
        probs[visible..].fill(0.0);
        d_probs[visible..].fill(0.0);
        let (probs, d_probs) = (&mut probs[..visible], &mut d_probs[..visible]);
        isa.run(SoftmaxGrad { probs, d_probs, delta, lse, scale });
    }
}

/// Σ x · y over `len` elements of two arguments of one type, in a fixed order.
///
/// # Safety
/// Both must hold them, and nobody write them.
unsafe fn dot(x: Arg, y: Arg, at: usize, len: usize) -> f32 {
    let mut sums = [0.0f32; 16];
    // SAFETY: by the caller's promise.
    unsafe {
        if x.dtype() == DType::BF16 {
            let pairs = x.read::<u16>(at, len).iter().zip(y.read::<u16>(at, len));
            pairs
                .enumerate()
                .for_each(|(i, (x, y))| sums[i % 16] += math::from_bf16(*x) * math::from_bf16(*y));
        } else {
            let pairs = x.read::<f32>(at, len).iter().zip(y.read::<f32>(at, len));
            pairs.enumerate().for_each(|(i, (x, y))| sums[i % 16] += x * y);
        }
    }
    sums.iter().sum()
}
