use super::*;
use crate::cpu::math::{from_bf16, round_bf16};

/// A product by hand in float64: each sum, and the sum of magnitudes.
fn reference(
    [m, n, k]: [usize; 3],
    a: &dyn Fn(usize, usize) -> f32,
    b: &dyn Fn(usize, usize) -> f32,
) -> Vec<[f64; 2]> {
    let dot = |i: usize, j: usize| {
        (0..k).fold([0.0, 0.0], |[sum, size], p| {
            let x = f64::from(a(i, p)) * f64::from(b(p, j));
            [sum + x, size + x.abs()]
        })
    };
    (0..m * n).map(|at| dot(at / n, at % n)).collect()
}

fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    (0..rows * cols).map(|at| x[at % rows * cols + at / rows]).collect()
}

/// Numbers as they are stored.
enum Stored {
    Wide(Vec<f32>),
    Narrow(Vec<u16>),
}

impl Stored {
    fn new(x: Vec<f32>, dtype: DType) -> Stored {
        match dtype {
            DType::BF16 => Stored::Narrow(x.iter().map(|x| (x.to_bits() >> 16) as u16).collect()),
            _ => Stored::Wide(x),
        }
    }

    fn matrix(&mut self, row: usize) -> Matrix {
        match self {
            Stored::Wide(x) => Matrix::of_mut(x, row),
            Stored::Narrow(x) => Matrix { ptr: x.as_mut_ptr().cast(), dtype: DType::BF16, row, col: 1 },
        }
    }

    fn get(&self, i: usize) -> f64 {
        match self {
            Stored::Wide(x) => f64::from(x[i]),
            Stored::Narrow(x) => f64::from(from_bf16(x[i])),
        }
    }
}

const SIZES: [[usize; 3]; 6] =
    [[32, 32, 32], [33, 47, 65], [130, 37, 300], [257, 33, 513], [64, 129, 2100], [40, 2100, 33]];

/// Every layout of a, b and c, with and without an old c; `tolerance` is of the sum of magnitudes.
fn agrees(dtypes: [DType; 3], tolerance: f64) {
    let Some(amx) = Amx::detect() else {
        eprintln!("skipped: this machine has no AMX, so its products are the gemm crate's");
        return;
    };
    for shape in SIZES {
        let [m, n, k] = shape;
        let number = |i: usize| ((i * 2_654_435_761) % 1_000_003) as f32 / 500_000.0 - 1.0;
        let stored = |x: f32| if dtypes[0] == DType::BF16 { round_bf16(x) } else { x };
        let a: Vec<f32> = (0..m * k).map(|i| stored(number(i + 1) * 1.37f32.powi((i % 7) as i32))).collect();
        let b: Vec<f32> =
            (0..k * n).map(|i| stored(number(i + 777) * 0.71f32.powi((i % 5) as i32))).collect();
        let want = reference(shape, &|i, p| a[i * k + p], &|p, j| b[p * n + j]);
        for layout in 0..8 {
            let [t_a, t_b, t_c] = [1, 2, 4].map(|bit| layout & bit != 0);
            let mut a = Stored::new(if t_a { transposed(&a, m, k) } else { a.clone() }, dtypes[0]);
            let mut b = Stored::new(if t_b { transposed(&b, k, n) } else { b.clone() }, dtypes[1]);
            let mut c = Stored::new(vec![0.5; m * n], dtypes[2]);
            let am = if t_a { a.matrix(m).t() } else { a.matrix(k) };
            let bm = if t_b { b.matrix(k).t() } else { b.matrix(n) };
            let cm = if t_c { c.matrix(m).t() } else { c.matrix(n) };
            let accumulate = layout % 3 == 0;
            let mut memory = Workspace::default();
            memory.reserve(workspace(1, shape, dtypes));
            memory.allocate(rayon::current_num_threads()).unwrap();
            // SAFETY: the matrices are whole vectors of their shapes.
            let run =
                || unsafe { products(amx, shape, (1, |_| [am, bm, cm]), accumulate, false, &mut memory) };
            rayon::join(run, || ());
            for (i, [sum, size]) in want.iter().enumerate() {
                let (row, col) = (i / n, i % n);
                let got = c.get(if t_c { col * m + row } else { i });
                let want = sum + if accumulate { 0.5 } else { 0.0 };
                let error = (got - want).abs();
                assert!(
                    error <= tolerance * (size + 0.5),
                    "{shape:?} layout {layout} [{row}, {col}]: {got} {want}"
                );
            }
        }
    }
}

#[test]
fn float32_products_are_as_exact_as_float32() {
    // A few roundings of the sum of magnitudes, as in any order of summation.
    agrees([DType::F32; 3], 4e-7);
}

#[test]
fn products_of_bfloat16_are_exact_and_summed_in_float32() {
    agrees([DType::BF16, DType::BF16, DType::F32], 4e-7);
}

#[test]
fn bfloat16_results_are_rounded_once() {
    agrees([DType::BF16; 3], 1.0 / 256.0);
}
