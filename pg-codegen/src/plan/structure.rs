//! Structure: what kind of code a kernel is, whatever its sizes. Two kernels of one structure run the same instructions
//! in the same order on operands that lie alike; only how often differs.
//!
//! Validation takes a small program for a large one by it, so it must say of any two kernels that differ in more than
//! sizes that they differ. It may say so of more.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::plan::{Kernel, Matmul, MatrixView};
use crate::region::{Affine, IndexMap, Instr, Region};

impl Kernel {
    /// A digest of the kernel's structure, good within one process.
    pub fn structure(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        kernel(self, &mut hasher);
        hasher.finish()
    }
}

fn kernel(kernel: &Kernel, to: &mut impl Hasher) {
    kernel.family().hash(to);
    match kernel {
        Kernel::Region(r) => region(r, to),
        Kernel::Contraction(c) => {
            (c.shared, c.members.len()).hash(to);
            for member in &c.members {
                matmul(&member.matmul, to);
                for s in &member.segments {
                    (s.k > 1, walks(&s.a), walks(&s.b)).hash(to);
                }
                member.epilogue.is_some().hash(to);
                member.epilogue.iter().for_each(|r| region(r, to));
            }
        }
        Kernel::Attention(s) | Kernel::AttentionGrad(s) => {
            (s.batch > 1, s.time > 1, s.heads, s.kv_heads, s.dim).hash(to);
        }
        Kernel::ScatterAdd { width, .. } => width.hash(to),
        Kernel::Copy { .. } => {}
    }
}

fn matmul(m: &Matmul, to: &mut impl Hasher) {
    [m.batch, m.m, m.n, m.k].map(|size| size > 1).hash(to);
    [&m.a, &m.b, &m.c].map(walks).hash(to);
    (m.accumulate, m.symmetric).hash(to);
}

fn walks(v: &MatrixView) -> (bool, usize, usize, bool) {
    (v.batch == 0, v.row.min(2), v.col.min(2), v.offset > 0)
}

fn region(r: &Region, to: &mut impl Hasher) {
    let sizes: Vec<bool> = r.rows.iter().map(|&size| size > 1).collect();
    (sizes, r.reduced, r.columns > 1, &r.args).hash(to);
    r.body.iter().for_each(|i| instruction(i, to));
}

/// Constants are left out: the mean of a loss divides by the number of tokens.
fn instruction(instr: &Instr, to: &mut impl Hasher) {
    std::mem::discriminant(instr).hash(to);
    match instr {
        Instr::Load { arg, map } => (arg, walked(map)).hash(to),
        Instr::Gather { arg, row, stride, map, .. } => (arg, row, *stride == 0, walked(map)).hash(to),
        Instr::Const(_) | Instr::ConstInt(_) => {}
        Instr::Index(at) => steps(at).hash(to),
        Instr::Unary(f, a) => (f, a).hash(to),
        Instr::Binary(f, a, b) => (f, a, b).hash(to),
        Instr::Select(c, a, b) => (c, a, b).hash(to),
        Instr::Cast(dtype, a) => (dtype, a).hash(to),
        Instr::RowReduce(kind, a) => (kind, a).hash(to),
        Instr::Permute(perm, a) => (perm, a).hash(to),
        Instr::FakeQuant(grid, a) => (grid, a).hash(to),
        Instr::Store { arg, value, at } => (arg, value, steps(at)).hash(to),
        Instr::Accumulate { arg, value, kind, at } => (arg, value, kind, steps(at)).hash(to),
    }
}

/// For each axis whether the index stands still, goes to the next element, or elsewhere.
fn steps(at: &Affine) -> Vec<i64> {
    at.strides.iter().map(|&s| s.clamp(-2, 2)).collect()
}

fn walked(map: &IndexMap) -> (Vec<i64>, Vec<Vec<i64>>) {
    (steps(&map.at), map.guards.iter().map(|g| steps(&g.expr)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Contraction;

    fn product(m: usize, n: usize, k: usize) -> Matmul {
        let view = |row: usize, col: usize| MatrixView { offset: 0, batch: 0, row, col };
        let (a, b, c) = (view(k, 1), view(1, k), view(n, 1));
        Matmul { batch: 1, m, n, k, a, b, c, accumulate: false, symmetric: false }
    }

    #[test]
    fn sizes_do_not_matter_and_the_rest_does() {
        let of = |m: Matmul| Kernel::Contraction(Contraction::of(m)).structure();
        assert_eq!(of(product(128, 64, 64)), of(product(2048, 64, 64)));
        let added = Matmul { accumulate: true, ..product(128, 64, 64) };
        let turned =
            Matmul { a: MatrixView { offset: 0, batch: 0, row: 1, col: 128 }, ..product(128, 64, 64) };
        let single = product(1, 64, 64);
        for other in [added, turned, single] {
            assert_ne!(of(product(128, 64, 64)), of(other));
        }
    }

    #[test]
    fn instructions_and_how_they_walk_matter() {
        let load = |stride: i64| {
            let at = Affine { offset: 0, strides: [stride, 1].into_iter().collect() };
            Instr::Load { arg: 0, map: IndexMap { at, guards: Vec::new() } }
        };
        let region = |rows: usize, body: Vec<Instr>| {
            Kernel::Region(Region { rows: vec![rows], reduced: 0, columns: 8, body, args: Vec::new() })
        };
        let scaled = |stride, by: f32| {
            vec![load(stride), Instr::Const(by), Instr::Binary(pg_ir::op::Binary::Mul, 0, 1)]
        };
        let one = region(128, scaled(8, 0.5)).structure();
        assert_eq!(one, region(4096, scaled(64, 0.25)).structure());
        assert_ne!(one, region(1, scaled(8, 0.5)).structure());
        assert_ne!(one, region(128, scaled(0, 0.5)).structure());
        let swapped = vec![load(8), Instr::Const(0.5), Instr::Binary(pg_ir::op::Binary::Mul, 1, 0)];
        assert_ne!(one, region(128, swapped).structure());
    }
}
