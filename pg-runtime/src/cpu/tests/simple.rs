//! Matmul, scatter and copy.

use pg_codegen::plan::result_regions::result;
use pg_codegen::plan::{Contraction, Kernel, Matmul, MatrixView, Member, Segment, Side};
use pg_codegen::region::{Affine, IndexMap, Instr, Region};
use pg_ir::op::Binary;
use pg_ir::ty::DType;

use super::super::amx::Amx;
use super::super::error::Problem;
use super::super::kernel::Compiled;
use super::super::matmul;
use super::super::raw::Arg;
use super::super::workspace::Workspace;
use super::{Data, Random, assert_close, launch, launch_all};

fn agrees(batch: usize, m: usize, n: usize, k: usize, transposed: [bool; 3], accumulate: bool) {
    let mut random = Random::new((m * n + k) as u64);
    let view = |rows: usize, cols: usize, t: bool| {
        let (row, col) = if t { (1, rows) } else { (cols, 1) };
        MatrixView { offset: 3, batch: rows * cols, row, col }
    };
    let (a, b, c) = (view(m, k, transposed[0]), view(k, n, transposed[1]), view(m, n, transposed[2]));
    let mm = Matmul { batch, m, n, k, a, b, c, accumulate, symmetric: false };
    let args = [m * k, k * n, m * n].map(|n| random.floats(3 + batch * n));
    let [x, y, old] = args.each_ref().map(Data::f64);
    let mut want = old.clone();
    for i in 0..batch {
        for r in 0..m {
            for s in 0..n {
                let at = |v: &MatrixView, r, s| v.offset + i * v.batch + r * v.row + s * v.col;
                let sum: f64 = (0..k).map(|j| x[at(&a, r, j)] * y[at(&b, j, s)]).sum();
                want[at(&c, r, s)] = sum + if accumulate { old[at(&c, r, s)] } else { 0.0 };
            }
        }
    }
    let have = launch_all(&Kernel::from(mm), &args);
    assert_close(have[2].f32(), &want, 1e-5);
}

#[test]
fn matmul_agrees_for_all_strides() {
    for bits in 0..8 {
        let t = [bits & 1 > 0, bits & 2 > 0, bits & 4 > 0];
        agrees(1, 37, 41, 29, t, bits % 2 == 0);
        agrees(5, 7, 3, 11, t, bits % 2 == 1);
    }
    agrees(1, 1, 1, 1, [false; 3], false);
    agrees(9, 40, 133, 37, [false, true, true], true);
    agrees(2, 131, 67, 257, [false; 3], true);
    agrees(17, 1, 64, 5, [false; 3], false);
    agrees(1, 300, 520, 140, [false, true, false], false);
}

#[test]
fn symmetric_products_are_whole_and_symmetric_to_the_bit() {
    for (batch, m, k) in [(1, 1, 1), (3, 31, 7), (8, 261, 33), (2, 129, 40), (2, 300, 65)] {
        let args = [Random::new(m as u64).floats(batch * m * k), Data::zeros(DType::F32, batch * m * m)];
        let view = |row, col| MatrixView { offset: 0, batch: m * k, row, col };
        let c = MatrixView { offset: 0, batch: m * m, row: m, col: 1 };
        let (a, b) = (view(k, 1), view(1, k));
        let plain = Matmul { batch, m, n: m, k, a, b, c, accumulate: false, symmetric: false };
        let x = args[0].f64();
        let element = |i: usize, r: usize, s: usize| {
            (0..k).map(|j| x[(i * m + r) * k + j] * x[(i * m + s) * k + j]).sum()
        };
        let want: Vec<f64> = (0..batch * m * m).map(|at| element(at / (m * m), at / m % m, at % m)).collect();
        let suits = Amx::suits([m, m, k], [DType::F32; 3], [m, 1]);
        for amx in [None, Amx::detect().filter(|_| suits)] {
            let mm = Matmul { symmetric: true, ..plain.clone() };
            let mut result = vec![0.0f32; batch * m * m];
            let x = args[0].f32().as_ptr().cast_mut();
            let a = Arg::new(x.cast(), batch * m * k, DType::F32);
            let c = Arg::new(result.as_mut_ptr().cast(), result.len(), DType::F32);
            let mut memory = Workspace::default();
            memory.reserve(matmul::workspace(&mm, [DType::F32; 3], amx));
            memory.allocate(rayon::current_num_threads()).unwrap();
            matmul::check(&mm, &[a, a, c]).unwrap();
            rayon::join(|| matmul::run(&mm, &[a, a, c], &mut memory, amx), || ());
            assert_close(&result, &want, 1e-5);
            for (i, r, s) in (0..batch * m * m).map(|at| (at / (m * m), at / m % m, at % m)) {
                let at = |r: usize, s: usize| result[(i * m + r) * m + s].to_bits();
                assert_eq!(at(r, s), at(s, r));
            }
        }
    }
}

/// What targets with epilogues are given: the product's rows through a region that adds its old result and scales.
#[test]
fn a_region_runs_on_a_products_result() {
    for (batch, m, n, k, stored) in
        [(1, 5, 3, 7, DType::F32), (2, 40, 64, 96, DType::F32), (1, 70, 33, 40, DType::BF16)]
    {
        let view = |rows: usize, cols: usize| MatrixView { offset: 0, batch: rows * cols, row: cols, col: 1 };
        // `c` is of no meaning.
        let nowhere = MatrixView { offset: 9, batch: 0, row: 0, col: 0 };
        let (a, b) = (view(m, k), view(k, n));
        let mm = Matmul { batch, m, n, k, a, b, c: nowhere, accumulate: true, symmetric: false };
        let at = || Affine { offset: 0, strides: [n as i64, 1].into_iter().collect() };
        let load = |arg| Instr::Load { arg, map: IndexMap { at: at(), guards: Vec::new() } };
        let body = vec![
            load(0),
            load(1),
            Instr::Binary(Binary::Mul, 0, 1),
            Instr::Store { arg: 2, value: 2, at: at() },
            Instr::Store { arg: 3, value: 0, at: at() },
        ];
        let args = vec![stored, DType::F32, DType::F32, DType::F32];
        let region = Region { rows: vec![batch * m], reduced: 0, columns: n, body, args };
        let mut random = Random::new(5);
        let len = batch * m * n;
        let args = [
            random.floats(batch * m * k),
            random.floats(batch * k * n),
            random.floats(len),
            Data::zeros(DType::F32, len),
            Data::zeros(DType::F32, len),
        ];
        let [x, y, factor, ..] = args.each_ref().map(Data::f64);
        let product = |i: usize| {
            let (row, col) = (i / n, i % n);
            (0..k).map(|j| x[row * k + j] * y[row / m * k * n + j * n + col]).sum::<f64>()
        };
        let tolerance = if stored == DType::BF16 { 1.0 / 128.0 } else { 1e-5 };
        let have =
            launch_all(&Kernel::Contraction(Contraction::with_epilogue(mm.clone(), region.clone())), &args);
        let want: Vec<f64> = (0..len).map(product).collect();
        assert_close(have[4].f32(), &want, tolerance);
        let scaled: Vec<f64> = want.iter().zip(&factor).map(|(w, f)| w * f).collect();
        assert_close(have[3].f32(), &scaled, tolerance);
        // Too few arguments, and a region of another size, are errors.
        assert!(
            launch(
                &Kernel::Contraction(Contraction::with_epilogue(mm.clone(), region.clone())),
                &mut args[..4].to_vec(),
                1
            )
            .is_err()
        );
        let short = Region { rows: vec![1], ..region };
        assert_eq!(
            launch(&Kernel::Contraction(Contraction::with_epilogue(mm, short)), &mut args.to_vec(), 1),
            Err(Problem::Shape("the region on a product's result is of another size"))
        );
    }
}

/// A sum over segments of k, into memory or into an epilogue, is rounded once.
#[test]
fn segments_of_k_are_added() {
    let view = |rows: usize, cols: usize| MatrixView { offset: 0, batch: rows * cols, row: cols, col: 1 };
    for stored in [DType::F32, DType::BF16] {
        let mut random = Random::new(17);
        let mut values = |len: usize| match stored {
            DType::BF16 => Data::BF16((0..len).map(|_| 0x3f00 + random.below(119) as u16).collect()),
            _ => random.floats(len),
        };
        let (batch, m, n) = (2, 33, 20);
        let mut args = Vec::new();
        let mut want = vec![0.0; batch * m * n];
        let mut segments = Vec::new();
        for k in [40, 7, 16] {
            let (x, y) = (values(batch * m * k), values(batch * k * n));
            for (i, sum) in want.iter_mut().enumerate() {
                let (row, col) = (i / n, i % n);
                let (x, y) = (x.f64(), y.f64());
                *sum += (0..k).map(|j| x[row * k + j] * y[row / m * k * n + j * n + col]).sum::<f64>();
            }
            segments.push(Segment { k, a: view(m, k), b: view(k, n) });
            args.extend([x, y]);
        }
        args.push(Data::zeros(stored, batch * m * n));
        let Segment { k, a, b } = segments.remove(0);
        let c = view(m, n);
        let matmul = Matmul { batch, m, n, k, a, b, c, accumulate: false, symmetric: false };
        let store = result(&matmul, stored);
        for epilogue in [None, Some(store)] {
            let member = Member { segments: segments.clone(), epilogue, ..matmul.clone().into() };
            let kernel = Kernel::Contraction(Contraction { shared: None, members: vec![member] });
            let have = launch_all(&kernel, &args)[6].clone();
            let have: Vec<f32> = have.f64().iter().map(|&x| x as f32).collect();
            // Half a unit in the last place of bfloat16, and no more: nothing was rounded before the end.
            assert_close(&have, &want, if stored == DType::BF16 { 1.0 / 256.0 } else { 1e-5 });
            assert!(matches!(
                launch(&kernel, &mut args[..5].to_vec(), 1),
                Err(Problem::ArgCount { .. } | Problem::ArgRange { .. })
            ));
        }
    }
}

/// Products that share an operand are what each is alone, whichever side they share and however they are stored; none
/// may write what another one reads or writes.
#[test]
fn products_of_one_operand_are_what_they_are_alone() {
    let view = |rows: usize, cols: usize| MatrixView { offset: 0, batch: rows * cols, row: cols, col: 1 };
    for (shared, stored) in [(Side::Left, DType::F32), (Side::Right, DType::BF16)] {
        let mut random = Random::new(13);
        let mut values = |len: usize| match stored {
            DType::BF16 => Data::BF16((0..len).map(|_| 0x3f00 + random.below(119) as u16).collect()),
            _ => random.floats(len),
        };
        let (batch, same, k) = (2, 33, 40);
        let mut args = vec![values(batch * same * k)];
        let mut members = Vec::new();
        for (own, accumulate) in [(64, false), (5, true), (17, false)] {
            let (m, n) = if shared == Side::Left { (same, own) } else { (own, same) };
            let (a, b, c) = (view(m, k), view(k, n), view(m, n));
            members.push(Matmul { batch, m, n, k, a, b, c, accumulate, symmetric: false }.into());
            args.extend([values(batch * own * k), values(batch * m * n)]);
        }
        let all = Contraction { shared: Some(shared), members };
        let have = launch_all(&Kernel::Contraction(all.clone()), &args);
        for (i, m) in all.members.iter().enumerate() {
            let at = all.args(i);
            let own: Vec<Data> = at.iter().map(|&at| args[at].clone()).collect();
            let alone = launch_all(
                &Kernel::Contraction(Contraction { shared: None, members: vec![m.clone()] }),
                &own,
            );
            assert_eq!(have[at[2]], alone[2]);
            assert_ne!(have[at[2]], args[at[2]]);
        }
        let kernel = Kernel::Contraction(all);
        assert!(matches!(
            launch(&kernel, &mut args[..6].to_vec(), 1),
            Err(Problem::ArgCount { want: 7, have: 6 })
        ));
        let mut bound: Vec<Arg> = args.iter_mut().map(Data::arg).collect();
        bound[3] = bound[2];
        let overwritten = Compiled::new(&kernel).unwrap().check(&bound);
        assert!(overwritten.is_err(), "a product reads what another writes");
    }
}

/// Widened arguments may suit AMX where the stored ones do not.
#[test]
fn arguments_of_several_float_types_are_widened_and_have_memory() {
    let (m, n, k) = (96, 64, 160);
    let view = |row| MatrixView { offset: 0, batch: 0, row, col: 1 };
    let mm =
        Matmul { batch: 1, m, n, k, a: view(k), b: view(n), c: view(n), accumulate: false, symmetric: false };
    let mut random = Random::new(11);
    let narrow = Data::BF16((0..m * k).map(|i| 0x3f00 + (i % 119) as u16).collect());
    let args = [narrow, random.floats(k * n), Data::zeros(DType::F32, m * n)];
    let (a, b) = (args[0].f64(), args[1].f64());
    let element = |at: usize| (0..k).map(|j| a[at / n * k + j] * b[j * n + at % n]).sum();
    let want: Vec<f64> = (0..m * n).map(element).collect();
    let have = launch_all(&Kernel::from(mm), &args);
    assert_close(have[2].f32(), &want, 1e-5);
}

#[test]
fn matmul_rejects_what_does_not_fit() {
    let view = MatrixView { offset: 0, batch: 6, row: 3, col: 1 };
    let mm =
        Matmul { batch: 1, m: 2, n: 3, k: 3, a: view, b: view, c: view, accumulate: false, symmetric: false };
    let sizes = |b| [6, b, 6].map(|n| Data::zeros(DType::F32, n));
    assert_eq!(launch(&Kernel::from(mm.clone()), &mut sizes(9), 1), Ok(true));
    let short = launch(&Kernel::from(mm.clone()), &mut sizes(8), 1);
    assert!(matches!(short, Err(Problem::ArgRange { arg: 1, len: 8, last: 8, .. })), "{short:?}");
    let overlapping = Matmul { c: MatrixView { row: 2, ..view }, ..mm };
    assert!(matches!(launch(&Kernel::from(overlapping), &mut sizes(9), 1), Err(Problem::Shape(_))));
}

#[test]
fn scatter_adds_in_order_of_position() {
    let mut random = Random::new(5);
    for (rows, width, count) in [(1usize, 1, 1), (7, 5, 0), (7, 5, 13), (1024, 3, 2048), (131, 64, 509)] {
        // Half of the rows are never named.
        let ids: Vec<i32> = (0..count).map(|_| random.below(rows.div_ceil(2)) as i32).collect();
        let values = random.floats(count * width);
        let mut want = vec![0.0f32; rows * width];
        for (id, row) in ids.iter().zip(values.f32().chunks(width)) {
            want[*id as usize * width..].iter_mut().zip(row).for_each(|(w, x)| *w += x);
        }
        let out = Data::F32(vec![9.0; rows * width]);
        let have = launch_all(&Kernel::ScatterAdd { rows, width, count }, &[Data::I32(ids), values, out]);
        assert_eq!(have[2].f32(), want);
    }
    for id in [-1, 3] {
        let mut args = [Data::I32(vec![id]), Data::F32(vec![1.0]), Data::F32(vec![0.0; 3])];
        assert_eq!(launch(&Kernel::ScatterAdd { rows: 3, width: 1, count: 1 }, &mut args, 1), Ok(false));
        assert_eq!(args[2].f32(), [0.0; 3]);
    }
}

#[test]
fn copies_copy() {
    let mut random = Random::new(6);
    for len in [1, 17, 100_003] {
        let from = random.floats(len + 2);
        let have = launch_all(&Kernel::Copy { len }, &[from.clone(), Data::zeros(DType::F32, len)]);
        assert_eq!(have[1].f32(), &from.f32()[..len]);
    }
    let ids = Data::I32(vec![4, 5, 6]);
    let have = launch_all(&Kernel::Copy { len: 3 }, &[ids.clone(), Data::zeros(DType::I32, 3)]);
    assert_eq!(have[1], ids);
    let mut mixed = [Data::zeros(DType::I32, 3), Data::zeros(DType::F32, 3)];
    assert!(matches!(launch(&Kernel::Copy { len: 3 }, &mut mixed, 1), Err(Problem::ArgType { .. })));
}
