//! Every op's gradient against central differences in float64 on the interpreter, and the text form,
//! the verifier and the causality proof on the graphs that come out.

use std::collections::HashSet;

use pg_ir::autodiff::gradients;
use pg_ir::graph::{Builder, Graph, ValueId};
use pg_ir::interp::{self, Environment};
use pg_ir::op::{Binary, Bits, DotDims, Op, Reduction, Unary};
use pg_ir::quant::{Grid, ScaleRule};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::{Axis, DType, Role, Type};
use pg_ir::verify::verify;

/// Deterministic values in about −1 … 1, away from ties and kinks.
fn values(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64 * 2.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn sequence(sizes: &[usize]) -> Type {
    let roles = [Role::Batch, Role::Time, Role::Head, Role::Channel];
    Type::new(DType::F32, sizes.iter().zip(roles).map(|(&s, r)| Axis::new(s, r)))
}

/// A case: the operand types of float inputs, and the graph from them to a value.
struct Case {
    name: &'static str,
    inputs: Vec<Type>,
    /// Shifts and scales operands into the op's domain.
    domain: fn(f64) -> f64,
    build: fn(&mut Builder, &[ValueId]) -> ValueId,
}

fn case(name: &'static str, inputs: Vec<Type>, build: fn(&mut Builder, &[ValueId]) -> ValueId) -> Case {
    Case { name, inputs, domain: |x| x, build }
}

fn cases() -> Vec<Case> {
    let c = Type::channels;
    let mut cases = vec![
        case("add", vec![c(&[3, 5]), c(&[5])], |b, v| b.add(v[0], v[1])),
        case("sub", vec![c(&[3, 5]), c(&[3, 1])], |b, v| b.sub(v[0], v[1])),
        case("mul", vec![c(&[3, 5]), c(&[])], |b, v| b.mul(v[0], v[1])),
        case("max", vec![c(&[3, 5]), c(&[3, 5])], |b, v| b.binary(Binary::Max, v[0], v[1])),
        case("select/gt", vec![c(&[7]), c(&[7])], |b, v| {
            let zero = b.constant_like(0.1, v[0]);
            let cond = b.binary(Binary::Gt, v[0], zero);
            let square = b.mul(v[0], v[0]);
            b.try_select(cond, square, v[1]).unwrap()
        }),
        case("select/eq", vec![c(&[7])], |b, v| {
            let i = b.op(Op::Iota(Axis::channel(7)), &[]);
            let three = b.constant_like(3.0, i);
            let cond = b.binary(Binary::Eq, i, three);
            let square = b.mul(v[0], v[0]);
            b.op(Op::Select, &[cond, square, v[0]])
        }),
        case("cast", vec![c(&[4])], |b, v| {
            let i = b.op(Op::Iota(Axis::channel(4)), &[]);
            let f = b.op(Op::Cast(DType::F32), &[i]);
            let prod = b.mul(v[0], f);
            b.op(Op::Cast(DType::F32), &[prod])
        }),
        case("sum", vec![c(&[2, 3, 4])], |b, v| b.reduce(Reduction::Sum, v[0], &[0, 2])),
        case("reduce_max", vec![c(&[2, 3, 4])], |b, v| b.reduce(Reduction::Max, v[0], &[1])),
        case("broadcast to a sequence", vec![c(&[3, 2])], |b, v| {
            // A parameter with a row a position: its rows become positions, and its gradient's positions rows.
            let axes = [Axis::new(2, Role::Batch), Axis::new(3, Role::Time), Axis::channel(2)];
            b.broadcast(v[0], axes.into_iter().collect())
        }),
        case("reshape", vec![sequence(&[2, 3, 2, 5])], |b, v| {
            b.reshape(
                v[0],
                [Axis::new(2, Role::Batch), Axis::new(3, Role::Time), Axis::channel(10)]
                    .into_iter()
                    .collect(),
            )
        }),
        case("transpose", vec![c(&[2, 3, 4])], |b, v| {
            b.op(Op::Transpose([2, 0, 1].into_iter().collect()), &[v[0]])
        }),
        case("broadcast", vec![c(&[3, 1])], |b, v| b.broadcast(v[0], Type::channels(&[2, 3, 5]).axes)),
        case("slice", vec![c(&[4, 7])], |b, v| b.op(Op::Slice { axis: 1, start: 2, len: 3 }, &[v[0]])),
        case("pad", vec![c(&[4, 3])], |b, v| b.op(Op::Pad { axis: 0, before: 1, after: 2 }, &[v[0]])),
        case("shift", vec![sequence(&[2, 5, 1, 2])], |b, v| b.op(Op::Shift { axis: 1, by: 2 }, &[v[0]])),
        case("shift back", vec![sequence(&[2, 5, 1, 2])], |b, v| {
            b.op(Op::Shift { axis: 1, by: -1 }, &[v[0]])
        }),
        case("shift out", vec![c(&[3])], |b, v| b.op(Op::Shift { axis: 0, by: 3 }, &[v[0]])),
        case("permute_columns", vec![c(&[2, 4])], |b, v| b.op(Op::Permute([2, 0, 3, 1].into()), &[v[0]])),
        case("dot", vec![c(&[3, 5]), c(&[4, 5])], |b, v| b.dot(DotDims::contract(1, 1), v[0], v[1])),
        case("dot two", vec![c(&[2, 3, 4]), c(&[5, 3, 2])], |b, v| {
            b.dot(DotDims::contract_all(&[(0, 2), (1, 1)]), v[0], v[1])
        }),
        case("dot batched", vec![c(&[3, 2, 4]), c(&[3, 4, 5])], |b, v| {
            b.dot(DotDims::batched(2, 1), v[0], v[1])
        }),
        case("dot outer", vec![c(&[3]), c(&[2])], |b, v| b.dot(DotDims::default(), v[0], v[1])),
        case("dot late batch", vec![c(&[2, 3, 4]), c(&[4, 2, 5])], |b, v| {
            let mut d = DotDims::contract(0, 1);
            d.batch.push((2, 0));
            b.dot(d, v[0], v[1])
        }),
        case("gather", vec![c(&[6, 3])], |b, v| {
            let ids = ids(b, 6);
            b.op(Op::Gather, &[v[0], ids])
        }),
        case("scatter_add", vec![sequence(&[2, 5, 1, 2])], |b, v| {
            let ids = ids(b, 6);
            b.op(Op::ScatterAdd { rows: 6 }, &[ids, v[0]])
        }),
        case(
            "attention",
            vec![sequence(&[2, 5, 4, 3]), sequence(&[2, 5, 2, 3]), sequence(&[2, 5, 2, 3])],
            |b, v| b.op(Op::Attention { scale: Bits::new(0.7) }, v),
        ),
        case("stop_gradient", vec![c(&[4])], |b, v| {
            let stopped = b.op(Op::StopGradient, &[v[0]]);
            // Stopped from its own value it must drop out: x + stop(x) − stop(x).
            let up = b.add(v[0], stopped);
            b.sub(up, stopped)
        }),
    ];
    let positive: fn(f64) -> f64 = |x| x.abs() + 0.3;
    let unary = |name, domain, build| Case { name, inputs: vec![Type::channels(&[2, 5])], domain, build };
    cases.push(unary("exp", |x| x, |b, v| b.unary(Unary::Exp, v[0])));
    cases.push(unary("log", positive, |b, v| b.unary(Unary::Log, v[0])));
    cases.push(unary("tanh", |x| x, |b, v| b.unary(Unary::Tanh, v[0])));
    cases.push(unary("sigmoid", |x| x, |b, v| b.unary(Unary::Sigmoid, v[0])));
    cases.push(unary("sqrt", positive, |b, v| b.unary(Unary::Sqrt, v[0])));
    cases.push(unary("rsqrt", positive, |b, v| b.unary(Unary::Rsqrt, v[0])));
    cases.push(unary("sin", |x| x, |b, v| b.unary(Unary::Sin, v[0])));
    cases.push(unary("cos", |x| x, |b, v| b.unary(Unary::Cos, v[0])));
    cases.push(Case { domain: positive, ..case("div", vec![c(&[3, 5]), c(&[5])], |b, v| b.div(v[0], v[1])) });
    cases
}

fn ids(b: &mut Builder, modulus: i64) -> ValueId {
    let ty = Type::new(DType::I32, [Axis::new(2, Role::Batch), Axis::new(5, Role::Time)]);
    let tokens = b.input(Slot::new(Space::Data, "tokens"), ty);
    let m = b.constant_like(modulus as f64, tokens);
    let r = b.op(Op::Binary(Binary::Rem), &[tokens, m]);
    let one = b.constant_like(1.0, r);
    let flipped = b.op(Op::Binary(Binary::Xor), &[r, one]);
    b.op(Op::Binary(Binary::Rem), &[flipped, m])
}

/// Loss = Σ weights ∘ value, with fixed weights so that every element matters differently.
fn graph_of(case: &Case) -> (Graph, Vec<Slot>) {
    let mut b = Builder::default();
    let slots: Vec<Slot> = (0..case.inputs.len()).map(|i| Slot::new(Space::Param, format!("x{i}"))).collect();
    let inputs: Vec<ValueId> =
        slots.iter().zip(&case.inputs).map(|(s, t)| b.input(s.clone(), t.clone())).collect();
    let value = (case.build)(&mut b, &inputs);
    let weights = b.input(Slot::new(Space::Param, "weights"), b.ty(value).clone());
    let weighted = b.mul(value, weights);
    let loss = b.sum_all(weighted);
    let seed = b.scalar("seed");
    b.output(Slot::new(Space::Result, "loss"), loss);
    for (slot, grad) in slots.iter().zip(gradients(&mut b, loss, seed, &inputs)) {
        let grad = grad.unwrap_or_else(|| panic!("{}: no gradient for {slot}", case.name));
        b.output(Slot::new(Space::Grad, &slot.name), grad);
    }
    (b.finish(), slots)
}

fn environment(case: &Case, graph: &Graph) -> Environment {
    let inputs = graph.inputs().enumerate();
    let fill = |(i, (slot, value)): (usize, (&Slot, ValueId))| {
        let n = graph.ty(value).len();
        let x = match slot.space {
            Space::Data => (0..n).map(|j| ((j * 7 + 3) % 11) as f64).collect(),
            Space::Scalar => vec![1.5],
            _ => values(n, i as u64 + 1).into_iter().map(case.domain).collect(),
        };
        (slot.clone(), x)
    };
    inputs.map(fill).collect()
}

#[test]
fn gradients_match_central_differences() {
    for case in cases() {
        let (graph, slots) = graph_of(&case);
        verify(&graph).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        let env = environment(&case, &graph);
        let out = interp::run(&graph, &env).unwrap();
        let loss =
            |env: &Environment| interp::run(&graph, env).unwrap()[&Slot::new(Space::Result, "loss")][0];
        for slot in &slots {
            let grad = &out[&Slot::new(Space::Grad, &slot.name)];
            for (i, &analytic) in grad.iter().enumerate() {
                let h = 1e-5;
                let moved = |delta: f64| {
                    let mut env = env.clone();
                    env.get_mut(slot).unwrap()[i] += delta;
                    loss(&env)
                };
                // The seed is 1.5: gradients are of 1.5 · loss.
                let numeric = 1.5 * (moved(h) - moved(-h)) / (2.0 * h);
                let error = (numeric - analytic).abs() / (1.0 + numeric.abs());
                assert!(error < 1e-7, "{} {slot}[{i}]: {analytic} against {numeric}", case.name);
            }
        }
    }
}

#[test]
fn the_straight_through_gradient_is_the_identity() {
    let quant: fn(&mut Builder, &[ValueId]) -> ValueId =
        |b, v| b.op(Op::FakeQuant(Grid { clip: 7, rule: ScaleRule::Amax }), &[v[0]]);
    let case = case("fake_quant", vec![Type::channels(&[3, 8])], quant);
    let (graph, slots) = graph_of(&case);
    let env = environment(&case, &graph);
    let out = interp::run(&graph, &env).unwrap();
    let weights = &env[&Slot::new(Space::Param, "weights")];
    let grad = &out[&Slot::new(Space::Grad, &slots[0].name)];
    assert!(grad.iter().zip(weights).all(|(g, w)| (g - 1.5 * w).abs() < 1e-12));
}

#[test]
fn the_cases_cover_every_op() {
    let mut seen: HashSet<&str> = HashSet::from(["fake_quant"]);
    for case in cases() {
        let (graph, _) = graph_of(&case);
        seen.extend(graph.nodes().map(|(_, n)| n.op.record().name));
    }
    let missing: Vec<_> = pg_ir::ops::all().iter().map(|r| r.name).filter(|n| !seen.contains(n)).collect();
    assert!(missing.is_empty(), "no gradient case for {missing:?}");
}

#[test]
fn text_round_trips() {
    for case in cases() {
        let (graph, _) = graph_of(&case);
        let text = graph.to_string();
        let back = Graph::parse(&text).unwrap_or_else(|e| panic!("{}: {e}\n{text}", case.name));
        assert_eq!(back, graph, "{}", case.name);
    }
}
