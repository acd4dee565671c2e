//! Regions: every instruction, in every schedule.

use pg_codegen::plan::Kernel;
use pg_codegen::region::{Affine, Guard, IndexMap, Instr, Region, interp};
use pg_fuzz::regions::{Limits, TOLERANCE, assert_all_met, case, census};
use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::quant::{Grid, ScaleRule};
use pg_ir::ty::DType;

use super::{Arg, close, device, noise, run};

/// Random regions: each is compiled by the device's driver.
const RANDOM: u64 = 60;

fn affine(offset: i64, strides: &[i64]) -> Affine {
    Affine { offset, strides: strides.iter().copied().collect() }
}

fn load(arg: u32, strides: &[i64]) -> Instr {
    Instr::Load { arg, map: IndexMap { at: affine(0, strides), guards: vec![] } }
}

fn store(arg: u32, value: u32, strides: &[i64]) -> Instr {
    Instr::Store { arg, value, at: affine(0, strides) }
}

/// Relative, of one function: exponentials are a power of two of a product, whose rounding grows with the argument.
const SMALL_TOLERANCE: f64 = 1e-5;

/// Runs a region and compares everything that it writes.
fn check(what: &str, region: Region, args: &[Arg], tolerance: f64) {
    let Some(device) = device() else { return };
    let mut want: Vec<Vec<f64>> = args.iter().map(Arg::f64).collect();
    interp::run(&region, &mut want);
    let written = |(arg, want)| matches!(arg, &Arg::Out(_) | &Arg::InOut(..)).then_some(want);
    let want: Vec<Vec<f64>> = args.iter().zip(want).filter_map(written).collect();
    let have = run(&device, &Kernel::Region(region), args);
    for (i, (have, want)) in have.iter().zip(&want).enumerate() {
        close(&format!("{what}, result {i}"), have, want, tolerance);
    }
}

fn floats(rows: &[usize], reduced: usize, columns: usize, args: usize, body: Vec<Instr>) -> Region {
    Region { rows: rows.to_vec(), reduced, columns, body, args: vec![DType::F32; args] }
}

#[test]
fn elementwise_at_odd_sizes() {
    for (rows, columns) in [(1, 1), (3, 1), (1, 5), (7, 4), (5, 33), (2, 257), (300, 8), (13, 1000)] {
        let l = columns as i64;
        let body = vec![
            load(0, &[l, 1]),
            load(1, &[0, 1]),
            load(2, &[1, 0]),
            Instr::Binary(Binary::Mul, 0, 1),
            Instr::Binary(Binary::Add, 3, 2),
            Instr::Binary(Binary::Gt, 4, 0),
            Instr::Binary(Binary::Sub, 4, 0),
            Instr::Binary(Binary::Max, 6, 1),
            Instr::Select(5, 7, 4),
            store(3, 8, &[l, 1]),
            // Transposed, and one a row.
            store(4, 4, &[1, rows as i64]),
            store(5, 2, &[1, 0]),
        ];
        let args = [
            Arg::Floats(noise(rows * columns, 1)),
            Arg::Floats(noise(columns, 2)),
            Arg::Floats(noise(rows, 3)),
            Arg::Out(rows * columns),
            Arg::Out(rows * columns),
            Arg::Out(rows),
        ];
        check(&format!("{rows} × {columns}"), floats(&[rows], 0, columns, 6, body), &args, 1e-6);
    }
}

#[test]
fn functions() {
    use Unary::{Cos, Exp, Log, Rsqrt, Sigmoid, Sin, Sqrt, Tanh};
    let n = 1003;
    let x: Vec<f32> = noise(n, 5).iter().map(|x| x * 8.0).collect();
    let far: Vec<f32> = noise(n, 6).iter().map(|x| x * 50_000.0).collect();
    let positive: Vec<f32> = noise(n, 7).iter().map(|x| 1.001 + x).collect();
    for (f, x, tolerance) in [
        (Exp, &x, 2e-6),
        (Tanh, &x, 2e-6),
        (Sigmoid, &x, 2e-6),
        (Sin, &x, 1e-6),
        (Cos, &x, 1e-6),
        (Sin, &far, 2e-6),
        (Cos, &far, 2e-6),
        (Log, &positive, 2e-6),
        (Sqrt, &positive, 1e-6),
        (Rsqrt, &positive, 1e-6),
    ] {
        let body = vec![load(0, &[1]), Instr::Unary(f, 0), store(1, 1, &[1])];
        let args = [Arg::Floats(x.clone()), Arg::Out(n)];
        check(&format!("{f:?}"), floats(&[], 0, n, 2, body), &args, tolerance);
    }
}

/// Each value, however small, to a few roundings of its own: soft caps and gates work near zero.
#[test]
fn functions_keep_the_digits_of_small_values() {
    use Unary::{Exp, Sigmoid, Sin, Sqrt, Tanh};
    let Some(device) = device() else { return };
    let n = 1000;
    let small = |i: usize| 10f32.powf(i as f32 / 125.0 - 8.0) * if i.is_multiple_of(2) { 1.0 } else { -1.0 };
    let signed: Vec<f32> = (0..n).map(small).collect();
    let positive: Vec<f32> = signed.iter().map(|x| x.abs()).collect();
    let below_zero: Vec<f32> = positive.iter().map(|x| -80.0 * x).collect();
    for (f, x) in
        [(Tanh, &signed), (Sin, &signed), (Sqrt, &positive), (Exp, &below_zero), (Sigmoid, &below_zero)]
    {
        let body = vec![load(0, &[1]), Instr::Unary(f, 0), store(1, 1, &[1])];
        let region = floats(&[], 0, n, 2, body);
        let mut want = vec![x.iter().map(|&x| f64::from(x)).collect(), vec![0.0; n]];
        interp::run(&region, &mut want);
        let found = run(&device, &Kernel::Region(region), &[Arg::Floats(x.clone()), Arg::Out(n)]);
        for ((x, found), want) in x.iter().zip(&found[0]).zip(&want[1]) {
            let error = (f64::from(*found) / want - 1.0).abs();
            assert!(
                error < SMALL_TOLERANCE,
                "{f:?}({x:e}) is {found:e}, should be {want:e}: off by {error:.1e}"
            );
        }
    }
}

#[test]
fn integers_casts_and_gathers() {
    let (rows, columns, table) = (11, 24, 17);
    let ids: Vec<i32> = (0..rows as i32).map(|i| (i * 7) % table).collect();
    let body = vec![
        load(0, &[1, 0]),
        Instr::Gather {
            arg: 1,
            row: 0,
            rows: table as usize,
            stride: columns,
            map: IndexMap { at: affine(0, &[0, 1]), guards: vec![] },
        },
        Instr::Index(affine(3, &[2, 1])),
        Instr::ConstInt(7),
        Instr::Binary(Binary::Rem, 2, 3),
        Instr::Binary(Binary::Xor, 4, 0),
        Instr::Cast(DType::F32, 5),
        Instr::Binary(Binary::Add, 6, 1),
        Instr::Binary(Binary::Eq, 4, 3),
        Instr::Cast(DType::F32, 8),
        Instr::Cast(DType::BF16, 7),
        store(2, 7, &[columns, 1]),
        store(3, 9, &[columns, 1]),
        store(4, 10, &[columns, 1]),
        // A gather whose rows differ along the columns.
        Instr::Gather {
            arg: 1,
            row: 4,
            rows: table as usize,
            stride: columns,
            map: IndexMap { at: affine(1, &[0, 0]), guards: vec![] },
        },
        store(5, 14, &[columns, 1]),
    ];
    let n = rows * columns as usize;
    let args = [
        Arg::Ints(ids),
        Arg::Floats(noise(table as usize * columns as usize, 1)),
        Arg::Out(n),
        Arg::Out(n),
        Arg::Out(n),
        Arg::Out(n),
    ];
    let mut region = floats(&[rows], 0, columns as usize, 6, body);
    region.args[0] = DType::I32;
    check("integers", region, &args, 1e-6);
}

#[test]
fn guards_give_zeros() {
    for (time, columns) in [(5, 8), (7, 3), (1, 4)] {
        let l = columns as i64;
        // Row t − 1, and columns shifted by one.
        let row = IndexMap {
            at: affine(-l, &[time * l, l, 1]),
            guards: vec![Guard { expr: affine(-1, &[0, 1, 0]), size: time }],
        };
        let column = IndexMap {
            at: affine(1, &[time * l, l, 1]),
            guards: vec![Guard { expr: affine(1, &[0, 0, 1]), size: l }],
        };
        let body = vec![
            Instr::Load { arg: 0, map: row },
            Instr::Load { arg: 0, map: column },
            store(1, 0, &[time * l, l, 1]),
            store(2, 1, &[time * l, l, 1]),
        ];
        let n = 2 * time as usize * columns;
        let args = [Arg::Floats(noise(n, 4)), Arg::Out(n), Arg::Out(n)];
        check(&format!("{time} × {columns}"), floats(&[2, time as usize], 0, columns, 3, body), &args, 1e-7);
    }
}

#[test]
fn rows_reduce_and_permute() {
    // Columns of one piece, of several, and too many for registers.
    for (rows, columns) in
        [(1, 1), (3, 2), (9, 7), (5, 64), (17, 100), (3, 512), (2, 1536), (2, 4099), (2, 9000)]
    {
        let l = columns as i64;
        let mut body = vec![
            load(0, &[l, 1]),
            Instr::Binary(Binary::Mul, 0, 0),
            Instr::RowReduce(Reduction::Sum, 1),
            Instr::Unary(Unary::Rsqrt, 2),
            Instr::Binary(Binary::Mul, 0, 3),
            Instr::RowReduce(Reduction::Max, 4),
            Instr::Binary(Binary::Sub, 4, 5),
            Instr::Unary(Unary::Exp, 6),
            Instr::RowReduce(Reduction::Sum, 7),
            Instr::Binary(Binary::Div, 7, 8),
            store(1, 9, &[l, 1]),
            store(2, 5, &[1, 0]),
            Instr::Unary(Unary::Sigmoid, 0),
            Instr::RowReduce(Reduction::Sum, 12),
            store(3, 13, &[1, 0]),
        ];
        let mut args = vec![
            Arg::Floats(noise(rows * columns, 1)),
            Arg::Out(rows * columns),
            Arg::Out(rows),
            Arg::Out(rows),
        ];
        if columns < 4099 {
            // Halves exchanged (whole vectors, where they fit), then everything reversed.
            let half: Vec<u32> =
                (0..columns as u32).map(|j| (j + columns as u32 / 2) % columns as u32).collect();
            let back: Vec<u32> = (0..columns as u32).rev().collect();
            body.push(Instr::Permute(half.into(), 9));
            body.push(Instr::Permute(back.into(), 15));
            body.push(store(4, 16, &[l, 1]));
            args.push(Arg::Out(rows * columns));
        }
        let region = floats(&[rows], 0, columns, args.len(), body);
        check(&format!("{rows} × {columns}"), region, &args, 2e-5);
    }
}

#[test]
fn quantisers_are_bit_exact() {
    for (clip, rule) in [(7, ScaleRule::Amax), (31, ScaleRule::Floored), (127, ScaleRule::Amax)] {
        for (rows, columns) in [(3, 1), (5, 7), (4, 64), (3, 1536), (2, 9000)] {
            let grid = Grid { clip, rule };
            let l = columns as i64;
            let mut w = noise(rows * columns, 8);
            w[..columns].fill(0.0);
            let body = vec![load(0, &[l, 1]), Instr::FakeQuant(grid, 0), store(1, 1, &[l, 1])];
            let args = [Arg::Floats(w), Arg::Out(rows * columns)];
            check(&format!("{grid} {rows} × {columns}"), floats(&[rows], 0, columns, 2, body), &args, 0.0);
        }
    }
}

#[test]
fn columns_accumulate() {
    // One thread block, several, several blocks of columns, and kept rows.
    for (kept, folded, columns) in [
        (1, 1, 1),
        (1, 5, 3),
        (1, 1000, 1),
        (1, 7000, 12),
        (3, 130, 5),
        (2, 77, 64),
        (1, 300, 2100),
        (4, 1, 8),
    ] {
        let (f, l) = (folded as i64, columns as i64);
        let strides = [f * l, l, 1];
        let body = vec![
            load(0, &strides),
            load(1, &[0, 0, 1]),
            Instr::Binary(Binary::Mul, 0, 1),
            Instr::Accumulate { arg: 2, value: 2, kind: Reduction::Sum, at: affine(0, &[l, 0, 1]) },
            Instr::Accumulate { arg: 3, value: 0, kind: Reduction::Max, at: affine(0, &[l, 0, 1]) },
            store(4, 2, &strides),
        ];
        let n = kept * folded * columns;
        let args = [
            Arg::Floats(noise(n, 1)),
            Arg::Floats(noise(columns, 2)),
            Arg::Out(kept * columns),
            Arg::Out(kept * columns),
            Arg::Out(n),
        ];
        let region = floats(&[kept, folded], 1, columns, 5, body);
        check(&format!("{kept} × {folded} × {columns}"), region, &args, 1e-5);
    }
}

#[test]
fn row_results_accumulate() {
    for (folded, columns) in [(3, 7), (700, 64), (5, 9000)] {
        let l = columns as i64;
        let mut body = vec![
            load(0, &[l, 1]),
            Instr::RowReduce(Reduction::Sum, 0),
            Instr::Accumulate { arg: 1, value: 1, kind: Reduction::Sum, at: affine(0, &[0, 0]) },
        ];
        let mut args = vec![Arg::Floats(noise(folded * columns, 1)), Arg::Out(1)];
        if columns < 9000 {
            body.push(Instr::Binary(Binary::Mul, 0, 1));
            body.push(Instr::Accumulate { arg: 2, value: 3, kind: Reduction::Sum, at: affine(0, &[0, 1]) });
            args.push(Arg::Out(columns));
        }
        let region = floats(&[folded], 1, columns, args.len(), body);
        check(&format!("{folded} × {columns}"), region, &args, 1e-4);
    }
}

#[test]
fn in_place_and_in_the_middle_of_a_bank() {
    for offset in [0, 1, 4, 67] {
        let n = 1001;
        let body = vec![load(0, &[1]), load(1, &[1]), Instr::Binary(Binary::Add, 0, 1), store(0, 2, &[1])];
        let args = [Arg::InOut(noise(n, 1), offset), Arg::Floats(noise(n, 2))];
        check(&format!("offset {offset}"), floats(&[], 0, n, 2, body), &args, 1e-7);
    }
}

#[test]
fn an_irregular_permutation_is_a_table() {
    // 8·j² + 3·j mod 64 visits every column once, in no evenly spaced stretches.
    let (rows, columns) = (5, 64);
    let perm: Vec<u32> = (0..columns as u32).map(|j| (8 * j * j + 3 * j) % columns as u32).collect();
    let l = columns as i64;
    let body = vec![load(0, &[l, 1]), Instr::Permute(perm.into(), 0), store(1, 1, &[l, 1])];
    let args = [Arg::Floats(noise(rows * columns, 1)), Arg::Out(rows * columns)];
    check("table", floats(&[rows], 0, columns, 2, body), &args, 0.0);
}

/// Twelve permutations of rows of 1,024 columns, each with memory of its own, would take 48 KiB of a thread block's 32.
#[test]
fn the_permutations_of_a_row_share_memory() {
    let (rows, columns) = (3, 1024);
    let l = columns as i64;
    let rotated: Vec<u32> = (0..columns as u32).map(|j| (j + 512) % columns as u32).collect();
    let reversed: Vec<u32> = (0..columns as u32).rev().collect();
    let mut body = vec![load(0, &[l, 1])];
    for _ in 0..6 {
        for perm in [&rotated, &reversed] {
            let last = body.len() as u32 - 1;
            body.push(Instr::Permute(perm[..].into(), last));
            body.push(Instr::Binary(Binary::Add, last, last + 1));
        }
    }
    let last = body.len() as u32 - 1;
    body.push(store(1, last, &[l, 1]));
    let args = [Arg::Floats(noise(rows * columns, 1)), Arg::Out(rows * columns)];
    check("twelve", floats(&[rows], 0, columns, 2, body), &args, 1e-6);
}

#[test]
fn random_regions_agree_with_their_meaning() {
    if device().is_none() {
        return;
    }
    let limits = Limits { no_bf16: true };
    let cases: Vec<_> = (0..RANDOM).map(|seed| case(seed, limits)).collect();
    for (seed, case) in cases.iter().enumerate() {
        let arg = |(i, x): (usize, &Vec<f64>)| match case.region.args[i] {
            _ if i >= case.loaded => Arg::Out(x.len()),
            DType::I32 => Arg::Ints(x.iter().map(|&x| x as i32).collect()),
            DType::Bool => Arg::Bools(x.iter().map(|&x| x != 0.0).collect()),
            _ => Arg::Floats(x.iter().map(|&x| x as f32).collect()),
        };
        let args: Vec<Arg> = case.args.iter().enumerate().map(arg).collect();
        check(&format!("seed {seed}: {}", case.region), case.region.clone(), &args, TOLERANCE);
    }
    assert_all_met(&census(cases.iter().map(|case| &case.region)), 5);
}
