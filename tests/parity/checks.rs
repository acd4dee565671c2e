//! One check a kind of case. Each returns what disagrees.

use std::collections::HashMap;

use pg_ir::interp;
use pg_ir::quant::{self, Granularity, Grid, Method};
use pg_ir::slot::{Slot, Space};
use pg_runtime::eval::{Windows, score_and_adapt, window_nll};
use pg_runtime::session::{Key, Session};
use pg_runtime::train::schedule::Schedule;
use pg_runtime::train::{spaces, update_scalars};
use pg_runtime::weights::Weights;

use crate::case::{Case, error};

fn qat(case: &Case) -> bool {
    let clip = |name: &str| case.json["model"][name].as_u64().unwrap() > 0;
    clip("mlp_clip") || clip("attn_clip")
}

fn check(errors: &mut Vec<String>, what: &str, error: f64, tolerance: f64) {
    if error.is_nan() || error > tolerance {
        errors.push(format!("{what}: error {error:.2e} over {tolerance:.0e}"));
    }
}

fn ok<T, E: std::fmt::Display>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|e| panic!("{e}"))
}

fn grad_key(case: &Case, x: &str) -> Key {
    let [batch, seq] = case.shapes[x][..] else { panic!("{x} is [batch, time]") };
    Key::Grad { phase: 0, batch, seq, qat: qat(case), accumulate: false }
}

pub(crate) fn gradient(case: &Case) -> Vec<String> {
    let mut session = case.session();
    let weights = case.weights("param", &session.model);
    let mut state = ok(session.state_with(&weights, &[Space::Param, Space::Grad]));
    let (x, y) = (case.ints("x"), case.ints("y"));
    let data: [(&str, &[i32]); 2] = [("tokens", &x), ("targets", &y)];
    let key = grad_key(case, "x");
    let loss = ok(session.run(key, &mut state, &data, &[("inv_accum", 1.0)])).result("loss").to_vec();
    let grads = ok(session.read_weights(&state, Space::Grad));
    let Key::Grad { batch, seq, qat, .. } = key else { unreachable!() };
    let nll = ok(session.run(Key::Score { batch, seq, qat }, &mut state, &data, &[])).result("nll").to_vec();

    let mut errors = case.compare("grad", &grads, case.tolerance("grad"));
    check(&mut errors, "loss", error(&loss, &case.tensors["loss"]), case.tolerance("nll"));
    check(&mut errors, "nll", error(&nll, &case.tensors["nll"]), case.tolerance("nll"));
    errors
        .extend(interpreted(case, &session, key, &weights).into_iter().map(|e| format!("interpreter: {e}")));
    errors
}

/// The same graph in float64, which must be far closer.
fn interpreted(case: &Case, session: &Session, key: Key, weights: &Weights) -> Vec<String> {
    let program = ok(session.program(key));
    let mut env: interp::Environment = HashMap::new();
    for (name, values) in weights {
        env.insert(Slot::new(Space::Param, name), values.iter().map(|&v| v.into()).collect());
    }
    env.insert(Slot::new(Space::Data, "tokens"), case.tensors["x"].clone());
    env.insert(Slot::new(Space::Data, "targets"), case.tensors["y"].clone());
    env.insert(Slot::new(Space::Scalar, "inv_accum"), vec![1.0]);
    let out = ok(interp::run(&program.graph, &env));
    let grad = |name: &String| out[&Slot::new(Space::Grad, name)].iter().map(|&v| v as f32).collect();
    let grads: Weights = weights.keys().map(|name| (name.clone(), grad(name))).collect();
    case.compare("grad", &grads, 1e-5)
}

pub(crate) fn optimiser(case: &Case) -> Vec<String> {
    let mut session = case.session();
    let weights = case.weights("param", &session.model);
    let train = session.model.train.clone();
    let mut state = ok(session.state_with(&weights, &spaces(&train)));
    ok(session.write_weights(&mut state, Space::Ema, &weights));
    let schedule = Schedule::spec(&train);
    let list = |name: &str| -> Vec<f64> {
        case.json[name].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
    };
    let (scales, losses, norms) = (list("lr_scale"), list("losses"), list("grad_norms"));
    let mut errors = vec![];
    for step in 0..case.json["steps"].as_u64().unwrap() {
        let i = step as usize;
        let (x, y) = (format!("x.{step}"), format!("y.{step}"));
        let (tokens, targets) = (case.ints(&x), case.ints(&y));
        let data: [(&str, &[i32]); 2] = [("tokens", &tokens), ("targets", &targets)];
        let key = grad_key(case, &x);
        let loss = ok(session.run(key, &mut state, &data, &[("inv_accum", 1.0)])).result("loss").to_vec();
        let scalars = update_scalars(&session, &schedule, step, scales[i]);
        let scalars: Vec<(&str, f32)> = scalars.iter().map(|(n, v)| (n.as_str(), *v as f32)).collect();
        let norm = ok(session.run(Key::Update, &mut state, &[], &scalars)).result("grad_norm").to_vec();
        check(&mut errors, "loss", error(&loss, &losses[i..=i]), case.tolerance("loss"));
        check(&mut errors, "norm", error(&norm, &norms[i..=i]), case.tolerance("after"));
    }
    for (prefix, space) in [("after", Space::Param), ("ema", Space::Ema)] {
        let found = ok(session.read_weights(&state, space));
        errors.extend(case.compare(prefix, &found, case.tolerance(prefix)));
    }
    errors
}

pub(crate) fn gptq_lite(case: &Case) -> Vec<String> {
    let mut errors = vec![];
    for entry in case.json["entries"].as_array().unwrap() {
        let key = entry["key"].as_str().unwrap();
        let matrix = format!("w.{}", entry["matrix"]);
        let [rows, cols] = case.shapes[&matrix][..] else { panic!("{matrix} is a matrix") };
        let w: Vec<f32> = case.tensors[&matrix].iter().map(|&v| v as f32).collect();
        let rule = ok(entry["rule"].as_str().unwrap().parse());
        let grid = ok(Grid::new(entry["clip"].as_u64().unwrap() as u32, rule));
        let per_row = entry["per_row"].as_bool().unwrap();
        let granularity = if per_row { Granularity::Row } else { Granularity::Matrix };
        let (codes, scales) = quant::quantize(&w, rows, cols, grid, Method::GptqLite(granularity));
        let back = quant::dequantize(&codes, &scales, cols);
        let squares = w.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2));
        let mse = squares.sum::<f64>() / w.len() as f64;
        let expected = entry["mse"].as_f64().unwrap();
        check(&mut errors, &format!("mse.{key}"), ((mse - expected) / expected).abs(), case.tolerance("mse"));
        let scales: Vec<f32> = scales.iter().map(|s| s.to_f32()).collect();
        check(
            &mut errors,
            &format!("scale.{key}"),
            error(&scales, &case.tensors[&format!("scale.{key}")]),
            1e-6,
        );
        let codes = codes.iter().map(|&c| f64::from(c));
        let differ = codes.zip(&case.tensors[&format!("q.{key}")]).filter(|(a, b)| a != *b).count();
        // Codes may differ only where a value sits on a rounding tie.
        check(&mut errors, &format!("q.{key}"), differ as f64 / w.len() as f64, 1e-3);
    }
    errors
}

fn windows(case: &Case) -> Windows {
    let size = |name: &str| case.json[name].as_u64().unwrap() as usize;
    Windows { seq: size("seq"), stride: size("stride"), rescore_tail: false }
}

fn check_nll(case: &Case, nll: &[f32]) -> Vec<String> {
    let mut errors = vec![];
    check(&mut errors, "nll", error(nll, &case.tensors["nll"]), case.tolerance("nll"));
    let sum: f64 = nll.iter().map(|&v| f64::from(v)).sum();
    let expected = case.json["nll_sum"].as_f64().unwrap();
    check(&mut errors, "nll_sum", ((sum - expected) / expected).abs(), case.tolerance("nll"));
    errors
}

pub(crate) fn sliding(case: &Case) -> Vec<String> {
    let mut session = case.session();
    let weights = case.weights("param", &session.model);
    let mut state = ok(session.state_with(&weights, &[Space::Param]));
    let tokens = case.ints("tokens");
    let windows = windows(case);
    let list = windows.cover(tokens.len() - 1);
    let mut nll = vec![f32::NAN; tokens.len() - 1];
    let mut sink = |target: usize, value: f32| {
        assert!(nll[target].is_nan(), "target {target} was scored twice");
        nll[target] = value;
    };
    let shape = (windows.seq, qat(case));
    ok(window_nll(&mut session, &mut state, &tokens, &list, shape, &mut sink, &mut |_| Ok(())));
    check_nll(case, &nll)
}

pub(crate) fn ttt(case: &Case) -> Vec<String> {
    let mut session = case.session();
    let weights = case.weights("param", &session.model);
    let mut state = ok(session.state_with(&weights, &[Space::Param, Space::Grad, Space::Velocity]));
    let tokens = case.ints("tokens");
    let settings = session.model.eval.ttt.clone().expect("the model has test-time training");
    let outcome = ok(score_and_adapt(
        &mut session,
        &mut state,
        &tokens,
        windows(case),
        &settings,
        qat(case),
        &mut |_| Ok(()),
    ));
    let mut errors = check_nll(case, &outcome.nll);
    let after = ok(session.read_weights(&state, Space::Param));
    errors.extend(case.compare("after", &after, case.tolerance("after")));
    errors
}
