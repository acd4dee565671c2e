//! The orthonormal factor of a matrix, by Cholesky QR.
//!
//! A = QR with R's diagonal positive is unique, and RᵀR = AᵀA, so R comes from a Cholesky factorisation of
//! the Gram matrix and Q = A R⁻¹. Unlike Householder's method this is matrix products throughout. Its error
//! grows with the square of A's condition number; a second pass over the nearly orthonormal result removes
//! it (Fukaya et al. 2014, "CholeskyQR2"), and a diagonal shift saves the rare matrix whose Gram matrix is
//! not numerically positive definite ("shifted CholeskyQR3", Fukaya et al. 2020). A product of upper
//! triangular matrices with positive diagonals is one, so the signs stay right through every pass.

use gemm::Parallelism;

/// Passes after which a matrix that is not full rank is given up on.
const MAX_PASSES: usize = 6;

/// Below this block size the factorisation is plain loops.
const BLOCK: usize = 32;

/// Bytes that [`orthogonal`] takes: two copies of the matrix, and four of the Gram matrix of its shorter side.
pub(super) fn bytes(rows: usize, cols: usize) -> u64 {
    let product = |a: usize, b: usize| (a as u64).saturating_mul(b as u64);
    let (matrix, gram) = (product(rows, cols), product(rows.min(cols), rows.min(cols)));
    matrix.saturating_mul(2).saturating_add(gram.saturating_mul(4)).saturating_mul(8)
}

/// Q of the thin QR decomposition of a row-major `rows` × `cols` matrix, R's diagonal positive. A wide matrix
/// is transposed, factored and transposed back.
pub(super) fn orthogonal(a: Vec<f64>, rows: usize, cols: usize) -> Vec<f64> {
    assert_eq!(a.len(), rows * cols, "a matrix holds rows * cols values");
    // Work on the shorter side's vectors as *rows*: Qᵀ of a wide matrix is row-major Q itself.
    let (n, m) = (rows.min(cols), rows.max(cols));
    let mut q = if rows > cols { transposed(&a, rows, cols) } else { a };
    for _ in 0..MAX_PASSES {
        if pass(&mut q, n, m) {
            break;
        }
    }
    if rows > cols { transposed(&q, n, m) } else { q }
}

/// Makes the rows of `a` (n × m, n ≤ m) more nearly orthonormal: A ← R⁻ᵀ A with RᵀR = A Aᵀ. Whether the result
/// is orthonormal to far below float32's precision.
fn pass(a: &mut [f64], n: usize, m: usize) -> bool {
    let mut gram = vec![0.0; n * n];
    multiply(
        View::of(&mut gram, n),
        false,
        1.0,
        Operand::of(a, m),
        Operand::of(a, m).transposed(),
        (n, n, m),
    );
    let trace: f64 = (0..n).map(|i| gram[i * (n + 1)]).sum();

    let original = gram.clone();
    let mut inverse = vec![0.0; n * n];
    let mut work = vec![0.0; n * n];
    let shifted = !invert_factor(&mut gram, &mut inverse, &mut work, n, n);
    if shifted {
        // 11 (mn + n(n + 1)) u ‖A‖², which is certain to make the factorisation succeed.
        let shift = 11.0 * (m * n + n * (n + 1)) as f64 * f64::EPSILON / 2.0 * trace;
        gram = original;
        inverse.fill(0.0);
        (0..n).for_each(|i| gram[i * (n + 1)] += shift);
        if !invert_factor(&mut gram, &mut inverse, &mut work, n, n) {
            return true;
        }
    }
    let before = a.to_vec();
    multiply(View::of(a, m), false, 1.0, Operand::of(&inverse, n), Operand::of(&before, m), (n, m, n));

    // cond(A)² ≤ trace(G) trace(G⁻¹), and trace(G⁻¹) = ‖L⁻¹‖². The error of a pass is about u cond².
    let condition: f64 = trace * inverse.iter().map(|x| x * x).sum::<f64>();
    !shifted && condition * f64::EPSILON < 1e-9
}

/// Factors the leading n × n of the symmetric `g` (row stride `stride`) as L Lᵀ and writes L⁻¹ to `x`, whose upper
/// triangle must be zero. `g` is overwritten with L in its lower triangle. Whether every pivot was positive.
fn invert_factor(g: &mut [f64], x: &mut [f64], work: &mut [f64], n: usize, stride: usize) -> bool {
    if n <= BLOCK {
        return invert_factor_unblocked(g, x, n, stride);
    }
    // [L₁₁ 0; L₂₁ L₂₂] with L₂₁ = G₂₁ L₁₁⁻ᵀ, L₂₂ the factor of G₂₂ − L₂₁ L₂₁ᵀ; the inverse's lower left block is
    // −L₂₂⁻¹ L₂₁ L₁₁⁻¹.
    let (n1, n2) = (n / 2, n - n / 2);
    let low = n1 * stride;
    let diagonal = low + n1;
    if !invert_factor(g, x, work, n1, stride) {
        return false;
    }
    let l21 = &mut work[..n2 * n1];
    let x11 = Operand { data: x, rows: stride, cols: 1 };
    let g21 = Operand { data: &g[low..], rows: stride, cols: 1 };
    multiply(View { data: l21, stride: n1 }, false, 1.0, g21, x11.transposed(), (n2, n1, n1));
    let l21 = Operand::of(l21, n1);
    multiply(View { data: &mut g[diagonal..], stride }, true, -1.0, l21, l21.transposed(), (n2, n2, n1));
    for (row, line) in l21.data.chunks_exact(n1).enumerate() {
        g[low + row * stride..][..n1].copy_from_slice(line);
    }
    if !invert_factor(&mut g[diagonal..], &mut x[diagonal..], work, n2, stride) {
        return false;
    }
    let product = &mut work[..n2 * n1];
    let g21 = Operand { data: &g[low..], rows: stride, cols: 1 };
    let x11 = Operand { data: x, rows: stride, cols: 1 };
    multiply(View { data: product, stride: n1 }, false, 1.0, g21, x11, (n2, n1, n1));
    // The block to write lies in the same rows as L₂₂⁻¹, left of it: copied out, so that nothing aliases.
    let mut x22 = vec![0.0; n2 * n2];
    for (row, line) in x22.chunks_exact_mut(n2).enumerate() {
        line.copy_from_slice(&x[diagonal + row * stride..][..n2]);
    }
    let product = Operand::of(product, n1);
    multiply(View { data: &mut x[low..], stride }, false, -1.0, Operand::of(&x22, n2), product, (n2, n1, n2));
    true
}

fn invert_factor_unblocked(g: &mut [f64], x: &mut [f64], n: usize, stride: usize) -> bool {
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| g[i * stride + k] * g[j * stride + k]).sum();
            let rest = g[i * stride + j] - dot;
            if i != j {
                g[i * stride + j] = rest / g[j * stride + j];
            } else if rest > 0.0 && rest.is_finite() {
                g[i * stride + i] = rest.sqrt();
            } else {
                return false;
            }
        }
        // Row i of the inverse: (e_i − Σ_k L_ik X_k) / L_ii.
        let (above, row) = x.split_at_mut(i * stride);
        row[i] = 1.0;
        for k in 0..i {
            let factor = g[i * stride + k];
            for (to, from) in row[..=k].iter_mut().zip(&above[k * stride..]) {
                *to -= factor * from;
            }
        }
        let pivot = g[i * stride + i];
        row[..=i].iter_mut().for_each(|v| *v /= pivot);
    }
    true
}

fn transposed(a: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let mut out = vec![0.0; a.len()];
    // Square tiles, so that neither side is walked a cache line an element.
    const TILE: usize = 16;
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (0..cols).step_by(TILE) {
            for r in r0..rows.min(r0 + TILE) {
                for c in c0..cols.min(c0 + TILE) {
                    out[c * rows + r] = a[r * cols + c];
                }
            }
        }
    }
    out
}

/// A matrix to read, with the distance between rows and between columns.
#[derive(Clone, Copy)]
struct Operand<'a> {
    data: &'a [f64],
    rows: usize,
    cols: usize,
}

impl<'a> Operand<'a> {
    /// Row-major with rows of `width`.
    fn of(data: &'a [f64], width: usize) -> Self {
        Operand { data, rows: width, cols: 1 }
    }

    fn transposed(self) -> Self {
        Operand { rows: self.cols, cols: self.rows, ..self }
    }

    /// Whether a `rows` × `cols` matrix lies within the data.
    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.rows + (cols - 1) * self.cols < self.data.len()
    }
}

/// A row-major matrix to write.
struct View<'a> {
    data: &'a mut [f64],
    stride: usize,
}

impl<'a> View<'a> {
    fn of(data: &'a mut [f64], stride: usize) -> Self {
        View { data, stride }
    }
}

/// out ← factor · lhs · rhs, added to what is there if `add`; (rows, columns, contracted length). On one thread: the
/// callers run several matrices at a time.
fn multiply(
    out: View<'_>,
    add: bool,
    factor: f64,
    lhs: Operand<'_>,
    rhs: Operand<'_>,
    (m, n, k): (usize, usize, usize),
) {
    let target = Operand::of(out.data, out.stride);
    assert!(
        target.holds(m, n) && lhs.holds(m, k) && rhs.holds(k, n),
        "a product reaches outside its matrices"
    );
    // SAFETY: all three matrices lie within their slices (asserted), and `out` is borrowed mutably, so that it
    // overlaps neither operand. Strides are at most a slice's length, so they fit isize.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data.as_mut_ptr(),
            1,
            out.stride as isize,
            add,
            lhs.data.as_ptr(),
            lhs.cols as isize,
            lhs.rows as isize,
            rhs.data.as_ptr(),
            rhs.cols as isize,
            rhs.rows as isize,
            1.0,
            factor,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gram–Schmidt, twice: slow and obviously right. Rows are orthonormalised in order.
    fn reference(a: &[f64], n: usize, m: usize) -> Vec<f64> {
        let mut q = a.to_vec();
        for i in 0..n {
            for _ in 0..2 {
                for j in 0..i {
                    let dot: f64 = (0..m).map(|k| q[i * m + k] * q[j * m + k]).sum();
                    (0..m).for_each(|k| q[i * m + k] -= dot * q[j * m + k]);
                }
            }
            let norm = (0..m).map(|k| q[i * m + k].powi(2)).sum::<f64>().sqrt();
            (0..m).for_each(|k| q[i * m + k] /= norm);
        }
        q
    }

    fn pseudo_random(len: usize) -> Vec<f64> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        (0..len).map(|_| next()).collect()
    }

    fn difference(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn equals_the_decomposition_with_a_positive_diagonal() {
        for (n, m) in [(3, 3), (33, 40), (64, 64), (70, 131)] {
            let a = pseudo_random(n * m);
            assert!(difference(&orthogonal(a.clone(), n, m), &reference(&a, n, m)) < 1e-7, "{n}x{m}");
        }
    }

    #[test]
    fn a_tall_matrix_is_the_transpose_of_a_wide_one() {
        let a = pseudo_random(5 * 9);
        let wide = orthogonal(a.clone(), 5, 9);
        let tall = orthogonal(transposed(&a, 5, 9), 9, 5);
        assert_eq!(transposed(&tall, 9, 5), wide);
    }

    #[test]
    fn nearly_dependent_rows_still_come_out_orthonormal() {
        // The second row differs from the first by 1e-9: the Gram matrix is singular in float64.
        let (n, m) = (40, 60);
        let mut a = pseudo_random(n * m);
        let noise = pseudo_random(2 * m);
        for k in 0..m {
            a[m + k] = a[k] + 1e-9 * noise[m + k];
        }
        let q = orthogonal(a, n, m);
        for i in 0..n {
            for j in 0..n {
                let dot: f64 = (0..m).map(|k| q[i * m + k] * q[j * m + k]).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-9, "{i} {j} {dot}");
            }
        }
    }
}
