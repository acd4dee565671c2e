//! One quantiser: what training computes, what the artifact holds and what its reader scores agree.

use pg_ir::footprint::Moment;
use pg_ir::lang::model::Export;
use pg_ir::lang::{Options, Override, Source};
use pg_ir::quant;
use pg_ir::slot::Space;
use pg_runtime::artifact::TensorData;
use pg_runtime::export::{self, Provenance, dequantise, quantise};
use pg_runtime::session::{Key, Session};
use pg_runtime::weights::Weights;
use pg_testing::files::model_file;
use pg_testing::models::{Noise, SMALL, noisy_weights, overrides, session};

const VOCAB: usize = 1024;

fn nll(session: &mut Session, weights: &Weights, qat: bool) -> Vec<f32> {
    let mut state = session.state_with(weights, &[Space::Param]).unwrap();
    let key = Key::Score { batch: 2, seq: 32, qat };
    let (x, y) = (Noise(3).tokens(64, VOCAB), Noise(4).tokens(64, VOCAB));
    session.run(key, &mut state, &[("tokens", &x), ("targets", &y)], &[]).unwrap().result("nll").to_vec()
}

#[test]
fn the_training_forward_is_the_forward_of_the_artifact() {
    let mut session = session("int4mlp_12l.rs", SMALL);
    let weights = noisy_weights(&session, 11);
    // Tables and small tensors are not trained on a grid: what training sees of them is their stored value.
    let stored = dequantise(&quantise(&session.model, &weights).unwrap());
    let on_grid = |name: &str| matches!(session.model.params[name].export, Export::TrainingGrid(_));
    let latent: Weights =
        weights.iter().map(|(n, w)| (n.clone(), if on_grid(n) { w } else { &stored[n] }.clone())).collect();
    let trained = nll(&mut session, &latent, true);
    let read_back = nll(&mut session, &stored, false);
    let unquantised = nll(&mut session, &latent, false);
    let mean = |v: &[f32]| v.iter().map(|&x| f64::from(x)).sum::<f64>() / v.len() as f64;
    let gap = (mean(&trained) - mean(&read_back)).abs();
    let effect = trained.iter().zip(&unquantised).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(effect > 1e-3, "quantisation does nothing here: {effect}");
    assert!(gap < 1e-5 * mean(&trained), "training and artifact differ by {gap}");
}

#[test]
fn exported_codes_are_those_of_training() {
    let session = session("int4mlp_12l.rs", SMALL);
    let weights = noisy_weights(&session, 12);
    let mut trained_tensors = 0;
    for tensor in quantise(&session.model, &weights).unwrap() {
        let param = &session.model.params[&tensor.name];
        let (Export::TrainingGrid(grid), TensorData::Codes { codes, .. }) = (param.export, &tensor.data)
        else {
            continue;
        };
        trained_tensors += 1;
        let (_, cols) = param.matrix();
        let expected = weights[&tensor.name].chunks(cols).flat_map(|row| {
            let scale = grid.row_scale(row);
            row.iter().map(move |&w| quant::code(w, scale, grid.clip)).collect::<Vec<_>>()
        });
        let steps: Vec<i32> = codes.iter().zip(expected).map(|(&c, e)| (i32::from(c) - e).abs()).collect();
        let equal = steps.iter().filter(|&&s| s == 0).count();
        assert!(equal as f64 >= 0.995 * steps.len() as f64, "{}", tensor.name);
        assert!(steps.iter().all(|&s| s <= 1), "{}", tensor.name);
    }
    assert_eq!(trained_tensors, 6 * 4);
}

fn provenance(settings: &[&str]) -> Provenance {
    Provenance {
        source: Source::load(model_file("int4mlp_12l.rs")).unwrap(),
        options: Options {
            overrides: overrides(settings).into_iter().map(Override::from).collect(),
            profile: None,
        },
        seed: 1,
    }
}

#[test]
fn the_artifact_scores_bit_for_bit_as_the_weights_in_memory() {
    let mut session = session("int4mlp_12l.rs", SMALL);
    let weights = noisy_weights(&session, 13);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pg");
    export::write(&path, &session.model, &weights, &provenance(SMALL)).unwrap();
    let loaded = export::read(&path).unwrap();
    let in_memory = dequantise(&quantise(&session.model, &weights).unwrap());
    assert_eq!(loaded.weights, in_memory);
    let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(nll(&mut session, &loaded.weights, false)), bits(nll(&mut session, &in_memory, false)));
    assert_eq!(loaded.model.params, session.model.params);
}

/// The prediction at the quick profile's shapes, before and after something like training.
#[test]
fn the_predicted_size_is_the_written_size() {
    let settings = ["DIM=128", "HEADS=2", "KV_HEADS=1", "LAYERS=6", "VE_LAYERS=[4,5]"];
    let session = session("int4mlp_12l.rs", &settings);
    let initial = session.initial_weights(3).unwrap();
    let mut noise = Noise(17);
    // Sums of uniforms stand for trained, about Gaussian weights.
    let mut gaussian = |scale: f32| scale * (0..12).map(|_| noise.sample()).sum::<f32>() / 2.0;
    let trained: Weights =
        initial.iter().map(|(n, w)| (n.clone(), w.iter().map(|v| v + gaussian(0.08)).collect())).collect();
    let folder = tempfile::tempdir().unwrap();
    for (moment, weights) in [(Moment::AtInitialisation, &initial), (Moment::Trained, &trained)] {
        let path = folder.path().join(format!("{moment:?}.pg"));
        let written =
            export::write(&path, &session.model, weights, &provenance(&settings)).unwrap().total_bytes;
        let predicted = session.model.predict_size(moment).unwrap().estimate_bytes;
        let error = predicted as f64 / written as f64 - 1.0;
        assert!(error.abs() < 0.03, "{moment:?}: {predicted} predicted, {written} written");
    }
}

#[test]
fn an_artifact_over_the_cap_is_refused_and_leaves_the_old_one_alone() {
    let settings = [SMALL, &["export.cap_bytes=20000"]].concat();
    let source = Source::load(model_file("int4mlp_12l.rs")).unwrap();
    let options =
        Options { overrides: overrides(&settings).into_iter().map(Override::from).collect(), profile: None };
    let model = pg_ir::lang::elaborate(&source, &options).unwrap_or_else(|e| panic!("{e}"));
    let session = Session::new(std::sync::Arc::new(model), Default::default());
    let weights = noisy_weights(&session, 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pg");
    std::fs::write(&path, b"old").unwrap();
    let refused = export::write(&path, &session.model, &weights, &provenance(&settings));
    assert!(refused.unwrap_err().to_string().contains("over the cap"));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
}
