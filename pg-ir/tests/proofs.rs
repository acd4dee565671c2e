//! What the static proofs refuse: one leaking graph for each op that could carry the leak.

use pg_ir::causality::{prove_causal, prove_pointwise};
use pg_ir::graph::{Builder, ValueId};
use pg_ir::interp::{Environment, evaluate};
use pg_ir::lang::{Options, Source, elaborate};
use pg_ir::op::{Binary, Bits, DotDims, Op, Reduction, Unary};
use pg_ir::programs::Program;
use pg_ir::quant::{Grid, ScaleRule};
use pg_ir::refusal::Refusal;
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::{Axis, DType, Role, Type};
use pg_ir::{programs, verify};

const B: Axis = Axis { size: 2, role: Role::Batch };
const T: Axis = Axis { size: 6, role: Role::Time };

/// A graph over `tokens` as int32 and as float [batch, time], and what `prove_causal` says of the result.
fn proof(build: impl FnOnce(&mut Builder, ValueId, ValueId) -> ValueId) -> Result<(), Refusal> {
    let mut b = Builder::default();
    let ids = b.input(Slot::new(Space::Data, "tokens"), Type::new(DType::I32, [B, T]));
    let x = b.op(Op::Cast(DType::F32), &[ids]);
    let y = build(&mut b, ids, x);
    prove_causal(b.graph(), y)
}

#[track_caller]
fn refused(build: impl FnOnce(&mut Builder, ValueId, ValueId) -> ValueId) {
    let error = proof(build).expect_err("a graph that mixes the rows of a batch was proved causal");
    assert!(error.what.contains("later tokens"), "{error}");
}

fn transposed(b: &mut Builder, x: ValueId) -> ValueId {
    b.op(Op::Transpose([1, 0].into_iter().collect()), &[x])
}

#[test]
fn position_by_position_is_causal() {
    proof(|b, _, x| b.scale(2.0, x)).unwrap();
    proof(|b, _, x| b.op(Op::Shift { axis: 1, by: 1 }, &[x])).unwrap();
    // [B, T, 1] · [B, 1, 3], walked in step along the batch: each row with itself.
    proof(|b, _, x| {
        let x = b.reshape(x, [B, T, Axis::channel(1)].into_iter().collect());
        let w = b.input(Slot::new(Space::Param, "w"), Type::channels(&[3, 1]));
        b.dot(DotDims::contract(2, 1), x, w)
    })
    .unwrap();
}

#[test]
fn reductions_over_a_batch_are_refused() {
    refused(|b, _, x| b.reduce(Reduction::Sum, x, &[0]));
    refused(|b, _, x| b.reduce(Reduction::Max, x, &[0]));
}

#[test]
fn shifts_slices_pads_and_columns_along_a_batch_are_refused() {
    for by in [1, -1] {
        refused(|b, _, x| b.op(Op::Shift { axis: 0, by }, &[x]));
    }
    refused(|b, _, x| b.op(Op::Slice { axis: 0, start: 1, len: 1 }, &[x]));
    refused(|b, _, x| b.op(Op::Pad { axis: 0, before: 1, after: 0 }, &[x]));
    refused(|b, _, x| {
        let x = transposed(b, x);
        b.op(Op::Permute([1, 0].into()), &[x])
    });
}

#[test]
fn reshapes_that_move_elements_to_other_positions_are_refused() {
    refused(|b, _, x| b.reshape(x, [T, B].into_iter().collect()));
    refused(|b, _, x| b.reshape(x, [B, Axis::channel(6)].into_iter().collect()));
    refused(|b, _, x| b.reshape(x, [Axis { size: 12, ..T }].into_iter().collect()));
}

#[test]
fn contractions_that_mix_a_batch_are_refused() {
    let weights = |b: &mut Builder, n| b.input(Slot::new(Space::Param, "w"), Type::channels(&[n, 3]));
    // Contracted.
    refused(|b, _, x| {
        let w = weights(b, 2);
        b.dot(DotDims::contract(0, 0), x, w)
    });
    // Free on both sides.
    refused(|b, _, x| {
        let x = b.reshape(x, [B, T, Axis::channel(1)].into_iter().collect());
        b.dot(DotDims::contract(2, 2), x, x)
    });
    // Walked in step with, and free beside, another axis of the batch.
    refused(|b, _, x| {
        let c = b.reduce(Reduction::Max, x, &[1]);
        let c = b.reshape(c, [B].into_iter().collect());
        let wide = b.broadcast(c, [B, B].into_iter().collect());
        b.dot(DotDims { batch: [(0, 0)].into_iter().collect(), ..DotDims::default() }, wide, c)
    });
    // Walked in step with an axis of another role, which would be the result's.
    refused(|b, _, x| {
        let w = weights(b, 2);
        b.dot(DotDims { batch: [(0, 0)].into_iter().collect(), ..DotDims::default() }, w, x)
    });
}

#[test]
fn rows_of_a_batch_as_a_table_are_refused() {
    refused(|b, ids, x| b.op(Op::Gather, &[x, ids]));
    refused(|b, ids, x| b.op(Op::ScatterAdd { rows: 9 }, &[ids, x]));
    // The batch is inside the rows.
    refused(|b, ids, x| {
        let x = b.reshape(x, [Axis::channel(1), B, T].into_iter().collect());
        b.op(Op::Gather, &[x, ids])
    });
}

#[test]
fn attention_among_sequences_is_refused() {
    refused(|b, _, x| {
        let ones = |n: usize| Axis::new(n, Role::Batch);
        let axes = [Axis { size: 1, ..B }, T, ones(2), Axis::channel(1)];
        let x = transposed(b, x);
        let x = b.reshape(x, axes.into_iter().collect());
        b.push(Op::Attention { scale: Bits::new(1.0) }, &[x, x, x]).unwrap()[0]
    });
}

#[test]
fn quantising_across_a_sequence_is_refused() {
    refused(|b, _, x| b.op(Op::FakeQuant(Grid { clip: 7, rule: ScaleRule::Amax }), &[x]));
}

/// x [B, T] as [B, T, T], the same for every i.
fn table(b: &mut Builder, x: ValueId) -> ValueId {
    let x = b.reshape(x, [B, Axis { size: 1, ..T }, T].into_iter().collect());
    b.broadcast(x, [B, T, T].into_iter().collect())
}

/// [B, T, T] as [B, T], by a sum over j.
fn summed(b: &mut Builder, x: ValueId) -> ValueId {
    let x = b.reduce(Reduction::Sum, x, &[2]);
    b.reshape(x, [B, T].into_iter().collect())
}

fn number(b: &mut Builder, value: f64, dtype: DType) -> ValueId {
    b.op(Op::Const(Bits::new(value), dtype), &[])
}

/// Positions i [T, 1] and j [T], each times `factor` plus nothing.
fn positions(b: &mut Builder, factor: f64) -> [ValueId; 2] {
    let j = b.op(Op::Iota(T), &[]);
    let k = number(b, factor, DType::I32);
    let j = b.mul(j, k);
    [b.reshape(j, [T, Axis { size: 1, ..T }].into_iter().collect()), j]
}

/// The sum of x over j, where i + by > j.
fn before(b: &mut Builder, x: ValueId, by: ValueId) -> ValueId {
    let [i, j] = positions(b, 1.0);
    let i = if b.ty(by).dtype == DType::F32 { b.op(Op::Cast(DType::F32), &[i]) } else { i };
    let j = if b.ty(by).dtype == DType::F32 { b.op(Op::Cast(DType::F32), &[j]) } else { j };
    let i = b.add(i, by);
    let mask = b.binary(Binary::Gt, i, j);
    let (x, zero) = (table(b, x), b.constant(0.0));
    let kept = b.try_select(mask, x, zero).unwrap();
    summed(b, kept)
}

#[test]
fn a_sum_behind_a_mask_of_positions_is_causal_up_to_the_mask() {
    for (by, is_causal) in [(-1.0, true), (0.0, true), (1.0, true), (2.0, false), (6.0, false)] {
        for dtype in [DType::I32, DType::F32] {
            let said = proof(|b, _, x| {
                let by = number(b, by, dtype);
                before(b, x, by)
            });
            assert_eq!(said.is_ok(), is_causal, "{by} {dtype}: {said:?}");
        }
    }
    let error = proof(|b, _, x| {
        let by = number(b, 3.0, DType::I32);
        before(b, x, by)
    });
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("position i reads token i + 2; the mask before it lets position j = i + 2"),
        "{error}"
    );
}

#[test]
fn what_executors_round_or_wrap_is_no_position() {
    // 1 in float64, 0 or 2 in float32.
    refused(|b, _, x| {
        let (large, less) = (number(b, 16_777_217.0, DType::F32), number(b, 16_777_216.0, DType::F32));
        let by = b.sub(large, less);
        before(b, x, by)
    });
    // Halves are exact, but of what is next to a whole number nobody can be sure.
    refused(|b, _, x| {
        let by = number(b, 1.000_000_001, DType::F32);
        before(b, x, by)
    });
    for (factor, is_causal) in [(3.0, true), (f64::from(1 << 30), false)] {
        let said = proof(|b, _, x| {
            let [i, j] = positions(b, factor);
            let later = b.binary(Binary::Gt, j, i);
            let (x, zero) = (table(b, x), b.constant(0.0));
            let kept = b.try_select(later, zero, x).unwrap();
            summed(b, kept)
        });
        assert_eq!(said.is_ok(), is_causal, "{factor}: {said:?}");
    }
}

#[test]
fn a_product_with_zero_outside_of_a_dot_tells_a_sign() {
    refused(|b, _, x| {
        let [i, j] = positions(b, 1.0);
        let next = number(b, 1.0, DType::I32);
        let i = b.add(i, next);
        let mask = b.binary(Binary::Gt, i, j);
        let ones = b.op(Op::Cast(DType::F32), &[mask]);
        let x = b.unary(Unary::Tanh, x);
        let x = table(b, x);
        let signed = b.mul(ones, x);
        // 1 / +0 or 1 / −0.
        let one = b.constant(1.0);
        let told = b.div(one, signed);
        b.reduce(Reduction::Max, told, &[2])
    });
}

/// Σ_j mask(i, j) · bounded(x_j), as a dot.
fn running_sum(b: &mut Builder, x: ValueId, bounded: impl Fn(&mut Builder, ValueId) -> ValueId) -> ValueId {
    let [i, j] = positions(b, 1.0);
    let next = number(b, 1.0, DType::I32);
    let i = b.add(i, next);
    let mask = b.binary(Binary::Gt, i, j);
    let ones = b.op(Op::Cast(DType::F32), &[mask]);
    let x = bounded(b, x);
    let sums = b.dot(DotDims::contract(1, 1), x, ones);
    b.reshape(sums, [B, T].into_iter().collect())
}

#[test]
fn a_dot_with_zeros_reads_past_them_unless_the_other_factor_is_finite() {
    fn below(
        b: &mut Builder,
        x: ValueId,
        most: f64,
        than: impl Fn(&mut Builder, ValueId) -> ValueId,
    ) -> ValueId {
        let (most, zero, y) = (b.constant_like(most, x), b.constant_like(0.0, x), than(b, x));
        let condition = b.binary(Binary::Gt, most, y);
        b.op(Op::Select, &[condition, x, zero])
    }
    let exp = |b: &mut Builder, x| b.unary(Unary::Exp, x);
    // Tokens are whole numbers, and finite.
    proof(|b, _, x| running_sum(b, x, |_, x| x)).unwrap();
    refused(|b, _, x| running_sum(b, x, exp));
    proof(|b, _, x| {
        running_sum(b, x, |b, x| {
            let x = exp(b, x);
            below(b, x, 1e8, |b, x| b.mul(x, x))
        })
    })
    .unwrap();
    // e to something is above zero, its logarithm may be −∞.
    proof(|b, _, x| {
        running_sum(b, x, |b, x| {
            let x = exp(b, x);
            below(b, x, 1e8, |_, x| x)
        })
    })
    .unwrap();
    refused(|b, _, x| {
        running_sum(b, x, |b, x| {
            let x = b.unary(Unary::Log, x);
            below(b, x, 1e8, |_, x| x)
        })
    });
    refused(|b, _, x| {
        running_sum(b, x, |b, x| {
            let x = exp(b, x);
            below(b, x, 1e39, |_, x| x)
        })
    });
    // The larger of NaN and a number is NaN to executors; tanh of NaN is.
    refused(|b, _, x| {
        running_sum(b, x, |b, x| {
            let x = b.unary(Unary::Log, x);
            b.unary(Unary::Tanh, x)
        })
    });
}

#[test]
fn views_along_time_are_followed() {
    let cut = |b: &mut Builder, x, start, len| b.op(Op::Slice { axis: 1, start, len }, &[x]);
    let shifted = |before: usize, start: usize| {
        proof(move |b, _, x| {
            let y = cut(b, x, start, 4);
            b.op(Op::Pad { axis: 1, before, after: 2 - before }, &[y])
        })
    };
    for (before, start) in [(2, 0), (1, 0), (2, 2), (1, 1), (0, 0), (2, 1)] {
        shifted(before, start).unwrap();
    }
    for (before, start) in [(0, 1), (1, 2), (0, 2)] {
        let error = shifted(before, start).unwrap_err().to_string();
        assert!(error.contains(&format!("position i reads token i + {}", start - before)), "{error}");
    }
    // The first token for every position; no other.
    let one = |at: usize| {
        proof(move |b, _, x| {
            let y = cut(b, x, at, 1);
            b.add(x, y)
        })
    };
    one(0).unwrap();
    assert!(one(1).is_err() && one(5).is_err());
}

#[test]
fn sequences_are_kept_apart_by_masks_too() {
    let among = |f: Binary| {
        proof(move |b, _, x| {
            let one = Axis { size: 1, ..B };
            let y = b.reshape(x, [one, B, T].into_iter().collect());
            let y = b.broadcast(y, [B, B, T].into_iter().collect());
            let index = b.op(Op::Iota(B), &[]);
            let rows = b.reshape(index, [B, one].into_iter().collect());
            let mask = b.binary(f, rows, index);
            let mask = b.reshape(mask, [B, B, Axis::channel(1)].into_iter().collect());
            let zero = b.constant(0.0);
            let own = b.try_select(mask, y, zero).unwrap();
            let own = b.reduce(Reduction::Sum, own, &[1]);
            b.reshape(own, [B, T].into_iter().collect())
        })
    };
    among(Binary::Eq).unwrap();
    let error = among(Binary::Gt).unwrap_err().to_string();
    assert!(error.contains("a sequence reads tokens of another sequence"), "{error}");
}

#[test]
fn a_likelihood_reads_its_own_target_alone() {
    let said = |by: i64, scored: bool| {
        let mut b = Builder::default();
        let mut input = |name: &str| b.input(Slot::new(Space::Data, name), Type::new(DType::I32, [B, T]));
        let (tokens, targets) = (input("tokens"), input("targets"));
        let x = b.op(Op::Cast(DType::F32), &[tokens]);
        let y = b.op(Op::Cast(DType::F32), &[targets]);
        let y = if by == 0 { y } else { b.op(Op::Shift { axis: 1, by }, &[y]) };
        let nll = if scored { b.add(x, y) } else { x };
        prove_pointwise(b.graph(), nll)
    };
    said(0, true).unwrap();
    // An earlier target is no leak, but then a target is scored elsewhere, or twice.
    assert!(said(1, true).unwrap_err().to_string().contains("targets of other positions"));
    assert!(said(-1, true).unwrap_err().to_string().contains("targets of other positions"));
    assert!(said(0, false).unwrap_err().to_string().contains("does not depend on its target"));
}

const MODEL: &str = r#"model! { m {
    const CLIP = 7;
    fn forward(tokens) {
        let x = gather(param("t", [16, 8], normal(1.0)), tokens);
        linear(x, param("head", [16, 8], normal(1.0)))
    }
    quant { "head" => int(clip = CLIP) }
    optim { "*" => adamw(lr = 0.1) }
    train { seq_len = 16; }
} }"#;

#[test]
fn every_program_that_scores_is_proved_in_its_own_graph() {
    let source = Source::parse("m.rs", MODEL, &|_| Err("no base".into())).unwrap();
    let model = elaborate(&source, &Options::default()).unwrap();
    for qat in [false, true] {
        let prove = |p: &Program| verify::prove(&model, 0, qat, p);
        let score = programs::score(&model, 0, (2, 16), qat).unwrap();
        assert!(score.logits.is_some() && score.nll.is_some());
        let grad = programs::grad(&model, 0, (2, 16), qat, false).unwrap();
        assert!(grad.logits.is_some() && grad.nll.is_some());
        for program in [&score, &grad, &programs::logits(&model, 0, (2, 16), qat).unwrap()] {
            prove(program).unwrap();
            assert!(verify::prove(&model, 0, !qat, program).is_err());
        }
        // Logits that know the targets, though what is written is fine.
        let leaking = Program { logits: score.nll, ..score.clone() };
        assert!(prove(&leaking).unwrap_err().to_string().contains("depend on"));
        let unknown = Program { logits: None, ..score };
        assert!(prove(&unknown).is_err());
    }
}

#[test]
fn a_slot_is_one_input_and_quantised_wherever_it_comes_in() {
    let mut b = Builder::default();
    let grid = Grid { clip: 7, rule: ScaleRule::Amax };
    let slot = Slot::new(Space::Param, "w");
    let first = b.input(slot.clone(), Type::channels(&[3]));
    let coded = b.op(Op::FakeQuant(grid), &[first]);
    // Another type, so that it is another node.
    let second = b.input(slot, Type::channels(&[3, 1]));
    let raw = b.scale(2.0, second);
    b.output(Slot::new(Space::Result, "a"), coded);
    b.output(Slot::new(Space::Result, "b"), raw);
    assert!(verify::verify(b.graph()).unwrap_err().to_string().contains("an input twice"));
    assert!(verify::quantised(b.graph(), "w", grid).unwrap_err().to_string().contains("reads it raw"));
}

/// With as many words as positions the sizes of transposed logits are right.
#[test]
fn logits_have_the_roles_of_logits() {
    let forward = "linear(x, param(\"head\", [16, 8], normal(1.0)))";
    let text = MODEL.replace(forward, &format!("transpose({forward}, [0, 2, 1])"));
    let source = Source::parse("m.rs", &text, &|_| Err("no base".into())).unwrap();
    let errors = elaborate(&source, &Options::default()).unwrap_err().to_string();
    assert!(errors.contains("logits are float32 [batch, time, vocabulary]"), "{errors}");
}

#[test]
fn int32_arithmetic_is_exact_and_wraps() {
    let mut b = Builder::default();
    let k = |b: &mut Builder, v: i32| b.op(Op::Const(Bits::new(f64::from(v)), DType::I32), &[]);
    let (x, y) = (k(&mut b, 2_147_483_629), k(&mut b, 2_147_483_587));
    let all = [Binary::Mul, Binary::Add, Binary::Sub].map(|f| b.binary(f, x, y));
    let values = evaluate(b.graph(), &Environment::new()).unwrap();
    let (p, q) = (2_147_483_629_i32, 2_147_483_587_i32);
    let want = [p.wrapping_mul(q), p.wrapping_add(q), p.wrapping_sub(q)];
    assert_eq!(all.map(|v| values[v.index()][0]), want.map(f64::from));
    assert!(b.try_op(Op::Const(Bits::new(3e9), DType::I32), &[]).is_err());
    assert!(b.try_op(Op::Const(Bits::new(0.5), DType::I32), &[]).is_err());
}

#[test]
fn a_model_that_mixes_its_batch_is_refused_as_a_whole() {
    let build = |text: &str| {
        let source = Source::parse("m.rs", text, &|_| Err("no base".into())).unwrap();
        elaborate(&source, &Options::default()).unwrap()
    };
    build(MODEL).prove().unwrap();
    let leaking = MODEL.replace("linear(x, param", "linear(x + sum(x, 0), param");
    let error = build(&leaking).prove().unwrap_err();
    assert!(error.to_string().contains("depend on later tokens"), "{error}");
    // At the line that leaks, not at the model's name.
    let line = leaking.lines().position(|line| line.contains("sum(x, 0)")).unwrap() + 1;
    assert_eq!(error.list[0].loc().line as usize, line);
}
