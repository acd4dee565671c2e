//! The blocks beside the functions: optimisers and quantisers on patterns of parameters that are there, phases,
//! batches, test-time training, a loss of the model's own.

use super::Generator;
use crate::rules;
use crate::text::walk::blocks;
use crate::text::{Expr, Phase, Rule, Stmt, Text};

impl Generator {
    /// Everything but functions.
    pub(crate) fn settings(&mut self) {
        if self.rng.once_in(5) {
            self.loss();
        }
        let (batch, time) = (self.rng.pick(&[1, 1, 2, 2, 3]), self.rng.pick(&[1, 4, 5, 6, 7, 8, 8, 9, 12]));
        let micro = batch * time;
        self.text.set_train("batch_tokens", 2 * micro);
        self.text.set_train("micro_batch_tokens", micro);
        self.text.set_train("seq_len", time);
        self.text.set_train("steps", 2);
        if self.rng.once_in(2) {
            let clip = self.rng.pick(&["0.3", "1.0"]);
            self.text.set_train("grad_clip", clip);
        }
        if self.rng.once_in(2) {
            self.text.set_train("ema_decay", "0.9");
        }
        let decay = self.rng.pick(&["0.0", "0.04"]);
        self.text
            .optim
            .push(Rule { glob: "*".into(), value: format!("adamw(lr = 0.01, weight_decay = {decay})") });
        if self.rng.once_in(3) {
            let ttt = [
                ("chunk", micro.to_string()),
                ("lr", "0.01".into()),
                ("epochs", "1".into()),
                ("batch_seqs", "1".into()),
            ];
            self.text.ttt = Some(ttt.map(|(n, v)| (n.to_string(), v)).to_vec());
        }
        if self.rng.once_in(10) {
            self.phase();
        }
        self.rules();
    }

    /// A constant that changes while training: a factor, a number of passes, a quantiser.
    fn phase(&mut self) {
        let phase = |text: &mut Text, name: &str, from: &str, to: &str| {
            text.set(name, from);
            let settings = vec![(name.to_string(), to.to_string())];
            text.phases.push(Phase { name: "late".into(), trigger: "step(1)".into(), settings });
        };
        match self.rng.below(3) {
            0 => {
                let Some(forward) = self.text.functions.iter_mut().find(|f| f.name == "forward") else {
                    return;
                };
                let Some(value) = forward.body.value.take() else { return };
                forward.body.value = Some(Box::new(value.op("*", Expr::text("GAIN"))));
                phase(&mut self.text, "GAIN", "1.0", "1.5");
            }
            1 => {
                // The last loop over a few passes.
                let mut found = false;
                for function in &mut self.text.functions {
                    blocks(&mut function.body, &mut |block| {
                        for stmt in &mut block.stmts {
                            if let Stmt::For(name, items, _) = stmt
                                && name.starts_with("pass")
                            {
                                *items = Expr::text("0..PASSES");
                                found = true;
                            }
                        }
                        false
                    });
                }
                if found {
                    phase(&mut self.text, "PASSES", "1", "2");
                }
            }
            _ => {
                self.text.quant.push(Rule { glob: "*.weight".into(), value: "int(clip = CLIP)".into() });
                phase(&mut self.text, "CLIP", "0", "7");
            }
        }
    }

    /// Muon and quantisers on patterns that fit.
    fn rules(&mut self) {
        let Ok(params) = rules::params(&self.text) else { return };
        if self.rng.once_in(2) {
            for _ in 0..1 + self.rng.below(2) {
                let glob = self.glob(&params, |p| p.1.len() == 2);
                let steps = self.rng.pick(&[1, 2, 3]);
                let value = format!("muon(lr = 0.02, weight_decay = 0.04, ns_steps = {steps})");
                self.text.optim.extend(glob.map(|glob| Rule { glob, value }));
            }
        }
        if self.rng.once_in(2) {
            for _ in 0..1 + self.rng.below(3) {
                let matrices = self.rng.below(4) > 0;
                let glob = self.glob(&params, |p| !matrices || p.1.len() == 2);
                let clip = self.rng.pick(&[1, 3, 7, 31, 127]);
                let rule = if self.rng.once_in(3) { ", rule = \"floored\"" } else { "" };
                self.text
                    .quant
                    .extend(glob.map(|glob| Rule { glob, value: format!("int(clip = {clip}{rule})") }));
            }
        }
    }

    /// A pattern that fits some parameters, all of the kind asked for.
    fn glob(&mut self, params: &[rules::Param], wanted: impl Fn(&rules::Param) -> bool) -> Option<String> {
        for _ in 0..8 {
            let name = &params[self.rng.below(params.len())].0;
            let mut parts: Vec<&str> = name.split('.').collect();
            let glob = match self.rng.below(4) {
                0 => name.clone(),
                1 => {
                    let other = &params[self.rng.below(params.len())].0;
                    if other == name { name.clone() } else { format!("{{{name},{other}}}") }
                }
                2 => {
                    let at = self.rng.below(parts.len());
                    parts[at] = "*";
                    parts.join(".")
                }
                _ => format!("*.{}", parts.last().unwrap_or(&"weight")),
            };
            let mut hits = params.iter().filter(|p| rules::fits(&glob, &p.0)).peekable();
            if hits.peek().is_some() && hits.all(&wanted) {
                return Some(glob);
            }
        }
        None
    }
}
