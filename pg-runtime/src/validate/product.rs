//! Contractions of the reference in float64 through the `gemm` crate: the sums that the op's definition writes down,
//! in another order and some hundred times as fast.
//!
//! It shares no line with the executors, which it helps to scorer, and must never round to anything below float64.

use gemm::Parallelism;
use pg_ir::interp::{Tensor, strides};
use pg_ir::op::DotDims;
use pg_ir::ty::Type;

/// Below so many products the definition's own loop is as fast.
const LEAST: usize = 1 << 12;

/// Axes of an operand that are walked together, outermost first: sizes and strides.
type Axes = Vec<(usize, usize)>;

/// The sums of products, [batch, free axes of a, free axes of b]; `None` if there are too few to be worth it.
pub(super) fn product(dims: &DotDims, [a, b]: [&Tensor; 2], [ta, tb]: [&Type; 2]) -> Option<Tensor> {
    let (sa, sb) = (strides(&ta.shape()), strides(&tb.shape()));
    let of = |ty: &Type, strides: &[usize], axis: usize| (ty.axes[axis].size, strides[axis]);
    let left = |axis: usize| of(ta, &sa, axis);
    let right = |axis: usize| of(tb, &sb, axis);
    let batch_a: Axes = dims.batch.iter().map(|p| left(p.0)).collect();
    let batch_b: Axes = dims.batch.iter().map(|p| right(p.1)).collect();
    let inner_a: Axes = dims.contract.iter().map(|p| left(p.0)).collect();
    let inner_b: Axes = dims.contract.iter().map(|p| right(p.1)).collect();
    let free_a: Axes = dims.lhs_free(ta.rank()).into_iter().map(left).collect();
    let free_b: Axes = dims.rhs_free(tb.rank()).into_iter().map(right).collect();
    let (m, n, k) = (count(&free_a), count(&free_b), count(&inner_a));
    if m * n * k < LEAST {
        return None;
    }
    let (starts_a, starts_b) = (offsets(&batch_a), offsets(&batch_b));
    let mut out = vec![0.0; starts_a.len() * m * n];
    let (mut packed_a, mut packed_b) = (Vec::new(), Vec::new());
    for ((result, &start_a), &start_b) in out.chunks_exact_mut(m * n).zip(&starts_a).zip(&starts_b) {
        let a = Matrix::of(&a[start_a..], &free_a, &inner_a, &mut packed_a);
        let b = Matrix::of(&b[start_b..], &inner_b, &free_b, &mut packed_b);
        multiply([m, n, k], a, b, result);
    }
    Some(out)
}

fn count(axes: &[(usize, usize)]) -> usize {
    axes.iter().map(|a| a.0).product()
}

/// Offsets of every index of some axes, in row-major order.
fn offsets(axes: &[(usize, usize)]) -> Vec<usize> {
    let mut all = vec![0];
    for &(size, stride) in axes {
        all = all.iter().flat_map(|&at| (0..size).map(move |i| at + i * stride)).collect();
    }
    all
}

/// The one stride of axes that lie in memory as one; `None` if they do not.
fn merged(axes: &[(usize, usize)]) -> Option<usize> {
    let mut wide = axes.iter().copied().filter(|a| a.0 > 1).rev();
    let Some((size, stride)) = wide.next() else { return Some(1) };
    let mut next = size * stride;
    for (size, outer) in wide {
        if outer != next {
            return None;
        }
        next *= size;
    }
    Some(stride)
}

/// A matrix in a slice: its elements and its strides between rows and columns.
struct Matrix<'a> {
    data: &'a [f64],
    row: usize,
    col: usize,
}

impl<'a> Matrix<'a> {
    /// Rows and columns over some axes: in place where each side has one stride, otherwise copied to `packed`.
    fn of(
        data: &'a [f64],
        rows: &[(usize, usize)],
        cols: &[(usize, usize)],
        packed: &'a mut Vec<f64>,
    ) -> Matrix<'a> {
        if let (Some(row), Some(col)) = (merged(rows), merged(cols)) {
            return Matrix { data, row, col };
        }
        let (rows, cols) = (offsets(rows), offsets(cols));
        packed.clear();
        packed.extend(rows.iter().flat_map(|r| cols.iter().map(move |c| data[r + c])));
        Matrix { data: packed, row: cols.len(), col: 1 }
    }

    /// One past the last element of so many rows and columns.
    fn end(&self, rows: usize, cols: usize) -> usize {
        (rows - 1) * self.row + (cols - 1) * self.col + 1
    }
}

/// result [m, n] = a [m, k] · b [k, n].
fn multiply([m, n, k]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, result: &mut [f64]) {
    assert!(a.end(m, k) <= a.data.len() && b.end(k, n) <= b.data.len() && result.len() == m * n);
    let stride = |s: usize| s as isize;
    // SAFETY: the assertion holds every access inside the slices; the result is exclusive.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            result.as_mut_ptr(),
            1,
            stride(n),
            false,
            a.data.as_ptr(),
            stride(a.col),
            stride(a.row),
            b.data.as_ptr(),
            stride(b.col),
            stride(b.row),
            0.0f64,
            1.0f64,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}

#[cfg(test)]
mod tests {
    use pg_ir::graph::Builder;
    use pg_ir::interp::{Environment, run, run_with};
    use pg_ir::op::{DotDims, Op};
    use pg_ir::slot::{Slot, Space};
    use pg_ir::ty::Type;

    use super::*;

    /// A product of such operands by both roads.
    fn both(a: &[usize], b: &[usize], dims: DotDims) {
        let mut g = Builder::default();
        let mut env = Environment::new();
        let mut operand = |g: &mut Builder, name: &str, shape: &[usize], seed: f64| {
            let slot = Slot::new(Space::Param, name);
            let len = shape.iter().product::<usize>();
            env.insert(slot.clone(), (0..len).map(|i| (i as f64 * seed).sin()).collect());
            g.input(slot, Type::channels(shape))
        };
        let (x, y) = (operand(&mut g, "a", a, 0.7), operand(&mut g, "b", b, 1.3));
        let dot = g.op(Op::Dot(dims.clone()), &[x, y]);
        let out = Slot::new(Space::Result, "y");
        g.output(out.clone(), dot);
        let graph = g.finish();
        let mut used = 0;
        let fast = run_with(&graph, &env, Some(product), &mut |_, _| used += 1).unwrap();
        let slow = run(&graph, &env).unwrap();
        let [x, y] = ["a", "b"].map(|n| &env[&Slot::new(Space::Param, n)]);
        assert!(product(&dims, [x, y], [&Type::channels(a), &Type::channels(b)]).is_some(), "{a:?} {b:?}");
        assert_eq!((fast[&out].len(), used), (slow[&out].len(), 3));
        for (f, s) in fast[&out].iter().zip(&slow[&out]) {
            assert!((f - s).abs() <= 1e-12 * s.abs().max(1.0), "{a:?} {b:?}: {f} {s}");
        }
    }

    #[test]
    fn it_computes_what_the_definition_says() {
        both(&[40, 33], &[17, 33], DotDims::contract(1, 1));
        both(&[40, 33], &[33, 17], DotDims::contract(1, 0));
        // Weights' gradient: several axes are summed.
        both(&[3, 7, 20], &[3, 7, 31], DotDims::contract_all(&[(0, 0), (1, 1)]));
        // In an order in which they do not lie.
        both(&[7, 3, 20], &[3, 7, 31], DotDims::contract_all(&[(1, 0), (0, 1)]));
        both(&[5, 19, 23], &[5, 29, 23], DotDims::batched(2, 2));
        // Free axes around the summed one, and a batch axis inside.
        both(&[6, 24, 4, 5], &[8, 24, 9], DotDims::contract(1, 1));
        let inside = DotDims { batch: [(1, 2)].into_iter().collect(), ..DotDims::contract(0, 0) };
        both(&[32, 4, 9], &[32, 21, 4], inside);
        // Axes of one element, and a row by a column.
        both(&[1, 64, 1], &[64, 80, 1], DotDims::contract(1, 0));
        both(&[5000], &[5000], DotDims::contract(0, 0));
    }

    #[test]
    fn axes_that_lie_as_one_have_one_stride() {
        assert_eq!(merged(&[(2, 12), (3, 4), (4, 1)]), Some(1));
        assert_eq!(merged(&[(2, 24), (1, 7), (4, 6)]), Some(6));
        assert_eq!(merged(&[(2, 12), (3, 5)]), None);
        assert_eq!(merged(&[]), Some(1));
    }
}
