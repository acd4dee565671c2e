//! Regions in the shapes that models need, and regions that must be rejected.

use pg_codegen::plan::Kernel;
use pg_codegen::region::{Affine, Guard, IndexMap, Instr, Region, interp};
use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::ty::DType;

use pg_codegen::region::verify::Malformed;

use super::super::error::Problem;
use super::{Data, Random, assert_close, launch, launch_all};

fn at(offset: i64, strides: &[i64]) -> Affine {
    Affine { offset, strides: strides.into() }
}

fn load(arg: u32, strides: &[i64]) -> Instr {
    Instr::Load { arg, map: IndexMap { at: at(0, strides), guards: vec![] } }
}

fn store(arg: u32, value: u32, strides: &[i64]) -> Instr {
    Instr::Store { arg, value, at: at(0, strides) }
}

fn compare(region: &Region, args: &[Data], tolerance: f64) -> Vec<Data> {
    let mut want: Vec<Vec<f64>> = args.iter().map(Data::f64).collect();
    interp::run(region, &mut want);
    let have = launch_all(&Kernel::Region(region.clone()), args);
    for (have, want) in have.iter().zip(&want) {
        if let Data::F32(have) = have {
            assert_close(have, want, tolerance);
        }
    }
    have
}

/// softmax(x) · ‖x‖ over rows, and the norm itself: three row reductions, two of them in sequence.
fn softmax(rows: usize, columns: usize) -> Region {
    let n = columns as i64;
    Region {
        rows: vec![rows],
        reduced: 0,
        columns,
        body: vec![
            load(0, &[n, 1]),
            Instr::RowReduce(Reduction::Max, 0),
            Instr::Binary(Binary::Sub, 0, 1),
            Instr::Unary(Unary::Exp, 2),
            Instr::RowReduce(Reduction::Sum, 3),
            Instr::Binary(Binary::Div, 3, 4),
            Instr::Binary(Binary::Mul, 0, 0),
            Instr::RowReduce(Reduction::Sum, 6),
            Instr::Unary(Unary::Sqrt, 7),
            Instr::Binary(Binary::Mul, 5, 8),
            store(1, 9, &[n, 1]),
            store(2, 8, &[1, 0]),
        ],
        args: vec![DType::F32; 3],
    }
}

#[test]
fn rows_of_any_length_reduce() {
    let mut random = Random::new(1);
    for (rows, columns) in [(1, 1), (5, 3), (13, 1024), (3, 16_384), (1, 16_385), (3, 50_021), (1, 400_003)] {
        let args = [
            random.floats(rows * columns),
            Data::zeros(DType::F32, rows * columns),
            Data::zeros(DType::F32, rows),
        ];
        compare(&softmax(rows, columns), &args, 1e-5);
    }
}

#[test]
fn the_largest_of_a_long_row_is_found_wherever_it_stands() {
    for (columns, largest) in [(7, 0), (50_021, 3), (50_021, 50_020), (400_003, 200_000)] {
        let body = vec![load(0, &[1]), Instr::RowReduce(Reduction::Max, 0), store(1, 1, &[0])];
        let region = Region { rows: vec![], reduced: 0, columns, body, args: vec![DType::F32; 2] };
        let mut row = Random::new(7).floats(columns);
        let Data::F32(values) = &mut row else { panic!("floats are float32") };
        values[largest] = 1e3;
        let have = compare(&region, &[row, Data::zeros(DType::F32, 1)], 0.0);
        assert_eq!(have[1].f32(), [1e3]);
    }
}

#[test]
fn a_number_is_summed_as_often_as_there_are_rows() {
    for (rows, kind) in [(7, Reduction::Sum), (5000, Reduction::Sum), (7, Reduction::Max)] {
        let body = vec![load(0, &[0, 0]), Instr::Accumulate { arg: 1, value: 0, kind, at: at(0, &[0, 0]) }];
        let region = Region { rows: vec![rows], reduced: 1, columns: 1, body, args: vec![DType::F32; 2] };
        compare(&region, &[Data::F32(vec![0.3]), Data::zeros(DType::F32, 1)], 1e-6);
    }
}

#[test]
fn what_was_read_outlives_a_store_to_its_place() {
    let mut random = Random::new(8);
    let columns = 1031;
    let body = vec![
        load(0, &[1]),
        Instr::Binary(Binary::Mul, 0, 0),
        store(0, 1, &[1]),
        Instr::Binary(Binary::Add, 0, 1),
        store(1, 3, &[1]),
    ];
    let region = Region { rows: vec![], reduced: 0, columns, body, args: vec![DType::F32; 2] };
    compare(&region, &[random.floats(columns), Data::zeros(DType::F32, columns)], 1e-6);
}

#[test]
fn whole_numbers_are_cut_not_rounded() {
    let body = vec![load(0, &[1]), Instr::Cast(DType::I32, 0), store(1, 1, &[1])];
    let args = vec![DType::F32, DType::I32];
    let region = Region { rows: vec![], reduced: 0, columns: 5, body, args };
    let given = Data::F32(vec![1.7, -1.7, 2.5, 0.0, -0.2]);
    let have = launch_all(&Kernel::Region(region), &[given, Data::zeros(DType::I32, 5)]);
    assert_eq!(have[1], Data::I32(vec![1, -1, 2, 0, 0]));
}

#[test]
fn a_long_row_can_be_scaled_in_place() {
    let mut random = Random::new(2);
    let columns = 100_003;
    let body = vec![
        load(0, &[1]),
        Instr::Binary(Binary::Mul, 0, 0),
        Instr::RowReduce(Reduction::Sum, 1),
        Instr::Unary(Unary::Rsqrt, 2),
        Instr::Binary(Binary::Mul, 0, 3),
        store(0, 4, &[1]),
    ];
    let region = Region { rows: vec![], reduced: 0, columns, body, args: vec![DType::F32] };
    compare(&region, &[random.floats(columns)], 1e-6);
}

#[test]
fn columns_accumulate_over_any_number_of_rows() {
    let mut random = Random::new(3);
    for (kept, reduced, columns) in
        [(1, 1, 5), (3, 7, 1), (1, 5000, 1), (1, 4099, 64), (6, 211, 17), (2, 3, 9001)]
    {
        let (r, n) = (reduced as i64, columns as i64);
        let body = vec![
            load(0, &[r * n, n, 1]),
            load(1, &[0, 0, 1]),
            Instr::Binary(Binary::Mul, 0, 1),
            Instr::Accumulate { arg: 2, value: 2, kind: Reduction::Sum, at: at(0, &[n, 0, 1]) },
            Instr::Accumulate { arg: 3, value: 0, kind: Reduction::Max, at: at(0, &[n, 0, 1]) },
        ];
        let region =
            Region { rows: vec![kept, reduced], reduced: 1, columns, body, args: vec![DType::F32; 4] };
        let out = Data::F32(vec![7.0; kept * columns]);
        compare(
            &region,
            &[random.floats(kept * reduced * columns), random.floats(columns), out.clone(), out],
            1e-5,
        );
    }
}

/// x[t − by], zero outside: the map itself leaves the argument, the guard keeps it inside.
#[test]
fn shifts_read_zeros_outside() {
    let mut random = Random::new(4);
    for by in [-9i64, -7, -1, 0, 1, 3, 12] {
        let (batch, time, columns) = (3, 7, 5);
        let guard = Guard { expr: at(-by, &[0, 1, 0]), size: time };
        let map = IndexMap { at: at(-by * columns, &[time * columns, columns, 1]), guards: vec![guard] };
        let body = vec![Instr::Load { arg: 0, map }, store(1, 0, &[time * columns, columns, 1])];
        let rows = vec![batch, time as usize];
        let region = Region { rows, reduced: 0, columns: columns as usize, body, args: vec![DType::F32; 2] };
        let n = batch * (time * columns) as usize;
        compare(&region, &[random.floats(n), Data::F32(vec![9.0; n])], 0.0);
    }
}

#[test]
fn storage_types_round_trip() {
    let mut random = Random::new(5);
    let n = 4099;
    let bf16 = Data::BF16((0..n).map(|_| (random.float().to_bits() >> 16) as u16).collect());
    let bools = Data::Bool((0..n).map(|_| random.below(2) as u8).collect());
    let body = vec![load(0, &[1]), load(1, &[1]), store(2, 0, &[1]), store(3, 1, &[1])];
    let args = vec![DType::BF16, DType::Bool, DType::BF16, DType::Bool];
    let region = Region { rows: vec![], reduced: 0, columns: n, body, args };
    let outputs = [Data::zeros(DType::BF16, n), Data::zeros(DType::Bool, n)];
    let have = launch_all(
        &Kernel::Region(region),
        &[bf16.clone(), bools.clone(), outputs[0].clone(), outputs[1].clone()],
    );
    assert_eq!((&have[2], &have[3]), (&bf16, &bools));
}

#[test]
fn ids_outside_their_table_are_reported() {
    let map = IndexMap { at: at(0, &[0, 1]), guards: vec![] };
    let gather = Instr::Gather { arg: 1, row: 0, rows: 2, stride: 4, map };
    let body = vec![load(0, &[1, 0]), gather, store(2, 1, &[4, 1])];
    let args = vec![DType::I32, DType::F32, DType::F32];
    let region = Kernel::Region(Region { rows: vec![3], reduced: 0, columns: 4, body, args });
    let mut random = Random::new(6);
    for (ids, inside) in [([0, 1, 1], true), ([0, 2, 1], false), ([-1, 0, 0], false)] {
        // The third row is not of the table, even if it is of the buffer.
        let mut args = [Data::I32(ids.into()), random.floats(12), Data::zeros(DType::F32, 12)];
        assert_eq!(launch(&region, &mut args, 2), Ok(inside));
    }
}

#[test]
fn unsound_regions_are_rejected() {
    let region = |body, n: usize| {
        Kernel::Region(Region { rows: vec![5], reduced: 0, columns: n, body, args: vec![DType::F32; 2] })
    };
    let run =
        |body: Vec<Instr>| launch(&region(body, 4), &mut [20, 20].map(|n| Data::zeros(DType::F32, n)), 1);
    let fine = vec![load(0, &[4, 1]), store(1, 0, &[4, 1])];
    assert_eq!(run(fine), Ok(true));
    let beyond = vec![load(0, &[5, 1]), store(1, 0, &[4, 1])];
    assert!(matches!(run(beyond), Err(Problem::ArgRange { arg: 0, .. })));
    let before = vec![load(0, &[-4, 1]), store(1, 0, &[4, 1])];
    assert!(matches!(run(before), Err(Problem::ArgRange { arg: 0, first: -16, .. })));
    let twice = vec![load(0, &[4, 1]), store(1, 0, &[3, 1])];
    assert!(matches!(run(twice), Err(Problem::Region(Malformed { instr: Some(1), .. }))));
    let wide = vec![load(0, &[4, 1]), store(1, 0, &[1, 0])];
    assert!(matches!(run(wide), Err(Problem::Region(Malformed { instr: Some(1), .. }))));
    let forward = vec![Instr::Unary(Unary::Exp, 1), load(0, &[4, 1])];
    assert!(matches!(run(forward), Err(Problem::Region(Malformed { instr: Some(0), .. }))));
    let no_argument = vec![load(2, &[4, 1])];
    assert!(matches!(run(no_argument), Err(Problem::Region(Malformed { instr: Some(0), .. }))));
    let typed = vec![load(0, &[4, 1]), Instr::Index(at(0, &[1, 1])), Instr::Binary(Binary::Add, 0, 1)];
    assert!(matches!(run(typed), Err(Problem::Region(Malformed { instr: Some(2), .. }))));
    // In place at other indices: another task's element.
    let reversed = Instr::Load { arg: 0, map: IndexMap { at: at(19, &[-4, -1]), guards: vec![] } };
    assert!(matches!(
        run(vec![reversed, store(0, 0, &[4, 1])]),
        Err(Problem::Hazard { written: 0, read: 0 })
    ));
    // In place at its own indices.
    assert_eq!(run(vec![load(0, &[4, 1]), Instr::Unary(Unary::Exp, 0), store(0, 1, &[4, 1])]), Ok(true));
}
