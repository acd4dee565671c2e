//! No score depends on the future: by perturbation, through single forwards, sliding windows and
//! test-time training, beside the static proof that every scoring program passes before it is compiled.

use pg_ir::causality::{Reach, reach};
use pg_ir::slot::{Slot, Space};
use pg_runtime::eval::{Windows, score_and_adapt, window_nll};
use pg_runtime::session::{Key, Session};
use pg_runtime::state::State;
use pg_testing::models::{Noise, SMALL, noisy_weights, session};

const BATCH: usize = 2;
const SEQ: usize = 21;
const VOCAB: usize = 1024;

fn small() -> Session {
    session("int4mlp_12l.rs", SMALL)
}

fn logits(session: &mut Session, state: &mut State, tokens: &[i32]) -> Vec<f32> {
    let key = Key::Logits { batch: BATCH, seq: SEQ, qat: false };
    session.run(key, state, &[("tokens", tokens)], &[]).unwrap().result("logits").to_vec()
}

#[test]
fn a_later_token_changes_no_earlier_logit() {
    let mut session = small();
    let weights = noisy_weights(&session, 1);
    let mut state = session.state_with(&weights, &[Space::Param]).unwrap();
    let tokens = Noise(5).tokens(BATCH * SEQ, VOCAB);
    let before = logits(&mut session, &mut state, &tokens);
    for t in 0..SEQ {
        let mut changed = tokens.clone();
        // Position t of the second sequence.
        changed[SEQ + t] = (changed[SEQ + t] + 7) % VOCAB as i32;
        let after = logits(&mut session, &mut state, &changed);
        let same = (SEQ + t) * VOCAB;
        assert!(before[..same].iter().zip(&after).all(|(a, b)| a.to_bits() == b.to_bits()), "position {t}");
        assert!(
            before[same..same + VOCAB] != after[same..same + VOCAB],
            "position {t} does not see its own token"
        );
    }
}

#[test]
fn the_static_proof_agrees() {
    let session = small();
    let program = session.program(Key::Score { batch: BATCH, seq: SEQ, qat: false }).unwrap();
    let nll = program.graph.output(&Slot::new(Space::Result, "nll")).unwrap();
    for name in ["tokens", "targets"] {
        let reach = reach(&program.graph, &Slot::new(Space::Data, name), nll);
        assert_eq!(reach, Reach::Until(0), "{name}");
    }
}

#[test]
fn probabilities_sum_to_one_and_give_the_loss() {
    let mut session = small();
    let weights = noisy_weights(&session, 2);
    let mut state = session.state_with(&weights, &[Space::Param]).unwrap();
    let (tokens, targets) = (Noise(6).tokens(BATCH * SEQ, VOCAB), Noise(7).tokens(BATCH * SEQ, VOCAB));
    let logits = logits(&mut session, &mut state, &tokens);
    let key = Key::Score { batch: BATCH, seq: SEQ, qat: false };
    let data: [(&str, &[i32]); 2] = [("tokens", &tokens), ("targets", &targets)];
    // Summed over every possible target, the probabilities that scoring gives must be 1.
    let mut total = vec![0.0; BATCH * SEQ];
    for target in 0..VOCAB as i32 {
        let all = vec![target; BATCH * SEQ];
        let result = session.run(key, &mut state, &[("tokens", &tokens), ("targets", &all)], &[]).unwrap();
        let nll = result.result("nll");
        total.iter_mut().zip(nll).for_each(|(t, n)| *t += f64::from(-n).exp());
    }
    assert!(total.iter().all(|t| (t - 1.0).abs() < 1e-4), "{total:?}");
    let nll = session.run(key, &mut state, &data, &[]).unwrap().result("nll").to_vec();
    for (row, (&n, &target)) in nll.iter().zip(&targets).enumerate() {
        let row = &logits[row * VOCAB..][..VOCAB];
        let sum: f64 = row.iter().map(|&z| f64::from(z).exp()).sum();
        let expected = sum.ln() - f64::from(row[target as usize]);
        assert!((f64::from(n) - expected).abs() < 1e-4, "{n} against {expected}");
    }
}

fn sliding(session: &mut Session, state: &mut State, tokens: &[i32], windows: Windows) -> Vec<f32> {
    let mut nll = vec![f32::NAN; tokens.len() - 1];
    let mut sink = |target: usize, value: f32| {
        assert!(nll[target].is_nan(), "target {target} was scored twice");
        nll[target] = value;
    };
    let list = windows.cover(tokens.len() - 1);
    window_nll(session, state, tokens, &list, (windows.seq, false), &mut sink, &mut |_| Ok(())).unwrap();
    assert!(nll.iter().all(|n| n.is_finite()), "a target was not scored");
    nll
}

/// Machine i is token i + 1: changing token t changes the scores of targets t − 1 and later, at most.
fn assert_only_later(before: &[f32], after: &[f32], t: usize) {
    let same = t - 1;
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&before[..same]), bits(&after[..same]), "token {t} changed an earlier score");
    assert_ne!(bits(&before[same..]), bits(&after[same..]), "token {t} changed nothing");
}

#[test]
fn sliding_windows_see_no_later_token() {
    let mut session = small();
    let weights = noisy_weights(&session, 3);
    let mut state = session.state_with(&weights, &[Space::Param]).unwrap();
    let windows = Windows { seq: SEQ, stride: 5, rescore_tail: false };
    let tokens = Noise(8).tokens(83, VOCAB);
    let before = sliding(&mut session, &mut state, &tokens, windows);
    for t in [1, 20, 21, 22, 50, 82] {
        let mut changed = tokens.clone();
        changed[t] = (changed[t] + 7) % VOCAB as i32;
        assert_only_later(&before, &sliding(&mut session, &mut state, &changed, windows), t);
    }
}

#[test]
fn test_time_training_sees_no_later_token() {
    let mut session =
        session("int4mlp_12l.rs", &[SMALL, &["TTT_CHUNK=42", "TTT_LR=0.05", "TTT_BATCH_SEQS=2"]].concat());
    let weights = noisy_weights(&session, 4);
    let windows = Windows { seq: SEQ, stride: 7, rescore_tail: false };
    let ttt = session.model.eval.ttt.clone().unwrap();
    let tokens = Noise(9).tokens(150, VOCAB);
    let mut run = |tokens: &[i32]| {
        let mut state = session.state_with(&weights, &[Space::Param, Space::Grad, Space::Velocity]).unwrap();
        score_and_adapt(&mut session, &mut state, tokens, windows, &ttt, false, &mut |_| Ok(())).unwrap()
    };
    let before = run(&tokens);
    assert_eq!((before.chunks_scored, before.chunks_trained), (4, 3));
    for t in [1, 41, 42, 43, 90, 149] {
        let mut changed = tokens.clone();
        changed[t] = (changed[t] + 7) % VOCAB as i32;
        assert_only_later(&before.nll, &run(&changed).nll, t);
    }
}
