//! Whole programs of int4mlp_12l with 4 × 512 tokens, quantisers on: fused against one kernel an op, float32 against
//! bf16 storage, the optimiser (of which Newton–Schulz is most), and scoring.
//!
//! `cargo bench --bench steps`, with a filter behind `--`. Throughput is in tokens.

mod common;

use common::{BATCH, SEQ, session};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pg_ir::slot::Space;
use pg_ir::ty::DType;
use pg_runtime::session::Key;
use pg_runtime::train::schedule::Schedule;
use pg_runtime::train::{spaces, update_scalars};

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("int4mlp_12l");
    group.sample_size(10);
    group.throughput(Throughput::Elements((BATCH * SEQ) as u64));
    let grad = Key::Grad { phase: 0, batch: BATCH, seq: SEQ, qat: true, accumulate: false };
    let score = Key::Score { batch: BATCH, seq: SEQ, qat: false };
    let cases = [
        ("forward and backward, float32", grad, true, DType::F32),
        ("forward and backward, bf16", grad, true, DType::BF16),
        ("forward and backward, unfused", grad, false, DType::F32),
        ("update, float32", Key::Update, true, DType::F32),
        ("update, bf16", Key::Update, true, DType::BF16),
        ("update, unfused", Key::Update, false, DType::F32),
        ("score", score, true, DType::F32),
    ];
    for (name, key, fuse, storage) in cases {
        group.bench_function(name, |b| {
            // Made where it is measured: a filter skips the rest, and two sessions never share the memory.
            let mut session = session(fuse).storing(storage);
            let weights = session.initial_weights(1).unwrap();
            let kept = if key == score { vec![Space::Param] } else { spaces(&session.model.train) };
            let mut state = session.state_with(&weights, &kept).expect("a state of the model");
            let tokens: Vec<i32> = (0..=BATCH * SEQ).map(|i| (i * 37 % session.model.vocab) as i32).collect();
            let data = [("tokens", &tokens[..BATCH * SEQ]), ("targets", &tokens[1..])];
            let scalars = update_scalars(&session, &Schedule::spec(&session.model.train), 0, 1.0);
            let mut scalars: Vec<(&str, f32)> =
                scalars.iter().map(|(n, v)| (n.as_str(), *v as f32)).collect();
            scalars.push(("inv_accum", 1.0));
            b.iter(|| {
                session.run(key, &mut state, &data, &scalars).expect("the program runs");
            });
        });
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
