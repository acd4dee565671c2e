//! Rates at the shapes of int4mlp_12l with 2,048 tokens. Run with
//! `cargo test --release -p pg-runtime throughput -- --ignored --nocapture --test-threads=1`.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use pg_codegen::plan::{AttentionShape, Kernel, Matmul, MatrixView};
use pg_codegen::region::{Affine, IndexMap, Instr, Region};
use pg_ir::op::{Binary, Reduction, Unary};
use pg_ir::ty::DType;

use super::super::kernel::{Compiled, Machine};
use super::super::raw::Arg;
use super::{Data, Random};

/// Seconds that this thread has been running, where the system tells: on a shared machine, with one
/// thread, a better clock than the wall's.
fn busy() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? * 1e-9)
}

/// Seconds of a run: with one thread the mean of its busy time, with more the fastest by the clock.
fn time(kernel: &Kernel, args: &mut [Data]) -> f64 {
    let compiled = Compiled::new(kernel).expect("compiles");
    let args: Vec<Arg> = args.iter_mut().map(Data::arg).collect();
    compiled.check(&args).expect("fits");
    let mut machine = Machine::new();
    let kinds: Vec<_> = args.iter().map(|a| (a.dtype(), a.len())).collect();
    compiled.reserve(&kinds, &mut machine);
    machine.allocate(rayon::current_num_threads()).unwrap();
    let outside = AtomicBool::new(false);
    let mut run = || compiled.run(&args, &mut machine, &outside);
    let measure = move || {
        run();
        let (mut fastest, begin, from) = (f64::INFINITY, Instant::now(), busy());
        let mut runs = 0;
        while begin.elapsed().as_secs_f64() < 0.5 || runs < 5 {
            let start = Instant::now();
            run();
            fastest = fastest.min(start.elapsed().as_secs_f64());
            runs += 1;
        }
        match (from, busy()) {
            (Some(from), Some(to)) if rayon::current_num_threads() == 1 => (to - from) / f64::from(runs),
            _ => fastest,
        }
    };
    rayon::join(measure, || ()).0
}

fn gbs(name: &str, bytes: usize, seconds: f64) {
    println!("{name:<44} {:8.3} ms {:7.1} GB/s", seconds * 1e3, bytes as f64 / seconds / 1e9);
}

fn gflops(name: &str, flops: f64, seconds: f64) {
    println!("{name:<44} {:8.3} ms {:7.1} GFLOP/s", seconds * 1e3, flops / seconds / 1e9);
}

fn load(arg: u32, strides: &[i64]) -> Instr {
    Instr::Load { arg, map: IndexMap { at: Affine { offset: 0, strides: strides.into() }, guards: vec![] } }
}

fn store(arg: u32, value: u32, strides: &[i64]) -> Instr {
    Instr::Store { arg, value, at: Affine { offset: 0, strides: strides.into() } }
}

#[test]
#[ignore = "measures, asserts nothing"]
fn throughput() {
    let mut random = Random::new(1);
    let f = DType::F32;
    println!("{} threads", rayon::current_num_threads());

    let n = 16 << 20;
    let mut two = [random.floats(n), Data::zeros(f, n)];
    gbs("copy 64 MB", 8 * n, time(&Kernel::Copy { len: n }, &mut two));
    let region = |rows: Vec<usize>, reduced, lanes, args: usize, body| {
        Kernel::Region(Region { rows, reduced, lanes, body, args: vec![f; args] })
    };
    let body = vec![load(0, &[1]), Instr::Const(2.0), Instr::Binary(Binary::Mul, 0, 1), store(1, 2, &[1])];
    gbs("region: 2x, 64 MB", 8 * n, time(&region(vec![], 0, n, 2, body), &mut two));
    let body = vec![
        load(0, &[1]),
        load(1, &[1]),
        Instr::Const(0.9),
        Instr::Binary(Binary::Mul, 0, 2),
        Instr::Binary(Binary::Add, 3, 1),
        store(0, 4, &[1]),
    ];
    gbs("region: momentum in place, 64 MB", 12 * n, time(&region(vec![], 0, n, 2, body), &mut two));
    let body = vec![
        load(0, &[1]),
        Instr::Binary(Binary::Mul, 0, 0),
        Instr::RowReduce(Reduction::Sum, 1),
        store(1, 2, &[0]),
    ];
    let mut norm = [random.floats(n), Data::zeros(f, 1)];
    gbs("region: norm of 16M", 4 * n, time(&region(vec![], 0, n, 2, body), &mut norm));

    let (t, d) = (2048usize, 512usize);
    let di = d as i64;
    let rms = vec![
        load(0, &[di, 1]),
        Instr::Binary(Binary::Mul, 0, 0),
        Instr::RowReduce(Reduction::Sum, 1),
        Instr::Const(1.0 / 512.0),
        Instr::Binary(Binary::Mul, 2, 3),
        Instr::Unary(Unary::Rsqrt, 4),
        Instr::Binary(Binary::Mul, 0, 5),
        store(1, 6, &[di, 1]),
    ];
    let mut x = [random.floats(t * d), Data::zeros(f, t * d)];
    gbs("region: rms norm 2048 x 512", 8 * t * d, time(&region(vec![t], 0, d, 2, rms), &mut x));
    let mut h = [random.floats(t * 3 * d), Data::zeros(f, t * 3 * d)];
    let n3 = t * 3 * d;
    let body = vec![
        load(0, &[1]),
        Instr::Const(0.5),
        Instr::Binary(Binary::Mul, 0, 1),
        Instr::Binary(Binary::Max, 0, 2),
        Instr::Binary(Binary::Mul, 3, 3),
        store(1, 4, &[1]),
    ];
    gbs("region: leaky relu squared 2048 x 1536", 8 * n3, time(&region(vec![], 0, n3, 2, body), &mut h));
    let body = vec![
        load(0, &[di, 1]),
        Instr::Accumulate {
            arg: 1,
            value: 0,
            kind: Reduction::Sum,
            at: Affine { offset: 0, strides: [0, 1].as_slice().into() },
        },
    ];
    let mut c = [random.floats(t * d), Data::zeros(f, d)];
    gbs("region: column sums 2048 x 512", 4 * t * d, time(&region(vec![t], 1, d, 2, body), &mut c));
    for unary in [Unary::Exp, Unary::Log, Unary::Tanh, Unary::Sigmoid, Unary::Sin] {
        let body = vec![load(0, &[1]), Instr::Unary(unary, 0), store(1, 1, &[1])];
        gbs(&format!("region: {unary:?} of 1M"), 8 * t * d, time(&region(vec![], 0, t * d, 2, body), &mut x));
    }
    let body = vec![load(0, &[di, 1]), store(1, 0, &[1, t as i64])];
    gbs("region: transpose 2048 x 512", 8 * t * d, time(&region(vec![t], 0, d, 2, body), &mut x));

    for (m, n, k, batch) in
        [(2048, 512, 512, 1), (2048, 1536, 512, 1), (512, 1536, 2048, 1), (512, 512, 512, 12)]
    {
        let view = |rows: usize, cols: usize| MatrixView { offset: 0, batch: rows * cols, row: cols, col: 1 };
        let mm = Matmul {
            batch,
            m,
            n,
            k,
            a: view(m, k),
            b: view(k, n),
            c: view(m, n),
            accumulate: false,
            symmetric: false,
        };
        let mut args =
            [random.floats(batch * m * k), random.floats(batch * k * n), Data::zeros(f, batch * m * n)];
        let flops = 2.0 * (batch * m * n * k) as f64;
        gflops(&format!("matmul {batch} x {m} x {n} x {k}"), flops, time(&Kernel::from(mm), &mut args));
    }
    for (batch, time_) in [(4, 512), (1, 2048)] {
        let s = AttentionShape { batch, time: time_, heads: 8, kv_heads: 4, dim: 64, scale: 0.125 };
        let (q, kv, l) = (t * 512, t * 256, t * 8);
        let mut args: Vec<Data> = [q, kv, kv, q, l].map(|n| random.floats(n)).into();
        // Causal half of 2 products of 2 · T · T · D an (sequence, head).
        let flops = 2.0 * (batch * 8 * time_ * time_ * 64) as f64;
        gflops(&format!("attention {batch} x {time_}"), flops, time(&Kernel::Attention(s), &mut args));
        args.extend([q, q, kv, kv].map(|n| random.floats(n)));
        gflops(
            &format!("attention backward {batch} x {time_}"),
            2.5 * flops,
            time(&Kernel::AttentionGrad(s), &mut args),
        );
    }
}
