//! Arguments that say which programs of a model are meant, at which shape. It names programs and compiles none.

use anyhow::bail;
use clap::Args;
use pg_codegen::machine::{self, Machine};
use pg_ir::lang::nearest;
use pg_runtime::session::{Key, Session};

/// Which programs, how large, and whether they are fused.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProgramArgs {
    /// This program only; without it, all of them in short.
    #[arg(long, value_name = "NAME")]
    pub(crate) program: Option<String>,
    /// Sequences of a batch [default: those of a micro-batch].
    #[arg(long, value_name = "N", value_parser = super::run::count)]
    batch: Option<usize>,
    /// Tokens of a sequence [default: the model's].
    #[arg(long, value_name = "N", value_parser = super::run::count)]
    seq_len: Option<usize>,
    /// Plan one kernel an op.
    #[arg(long)]
    pub(crate) no_fuse: bool,
}

impl ProgramArgs {
    /// How to lower.
    pub(crate) fn options(&self) -> pg_codegen::Options {
        pg_codegen::Options { fuse: !self.no_fuse, ..Default::default() }
    }

    /// Sequences of a batch, and tokens of each.
    pub(crate) fn shape(&self, session: &Session) -> (usize, usize) {
        let train = &session.model.train;
        let seq = self.seq_len.unwrap_or(train.seq_len);
        (self.batch.unwrap_or((train.micro_batch_tokens / seq.max(1)).max(1)), seq)
    }

    /// Programs by name. Quantisation-aware training is part of a program, and so of its name.
    pub(crate) fn named(&self, session: &Session) -> Vec<(String, Key)> {
        let (batch, seq) = self.shape(session);
        let mut all = Vec::new();
        for phase in 0..session.model.phases.len() {
            let qat = session.model.is_quantised(phase);
            let suffix = format!(
                "{}{}",
                if qat { ".qat" } else { "" },
                if phase > 0 { format!(".phase{phase}") } else { String::new() }
            );
            for (name, accumulate) in [("grad.first", false), ("grad.next", true)] {
                all.push((format!("{name}{suffix}"), Key::Grad { phase, batch, seq, qat, accumulate }));
            }
        }
        all.push(("update".into(), Key::Update));
        all.push(("score".into(), Key::Score { batch, seq, qat: false }));
        all.push(("logits".into(), Key::Logits { batch, seq, qat: false }));
        if session.model.eval.ttt.is_some() {
            all.push(("adapt".into(), Key::Adapt));
        }
        all
    }
}

/// The program of that name.
pub(crate) fn find(named: &[(String, Key)], name: &str) -> anyhow::Result<Key> {
    if let Some((_, key)) = named.iter().find(|(n, _)| n == name) {
        return Ok(*key);
    }
    let known: Vec<&str> = named.iter().map(|(n, _)| n.as_str()).collect();
    let hint = nearest(name, known.iter().copied());
    let hint = hint.map_or(String::new(), |n| format!(" (did you mean `{n}`?)"));
    bail!("there is no program `{name}`{hint}; the programs are {}", known.join(", "));
}

/// Help of an argument that names one of the known machines.
pub(super) fn machines(what: &str, is_offered: impl Fn(&Machine) -> bool) -> String {
    format!("{what}: {}", machine_names(is_offered))
}

/// Names of the known machines of a kind.
pub(super) fn machine_names(is_offered: impl Fn(&Machine) -> bool) -> String {
    let names: Vec<&str> = machine::ALL.iter().filter(|m| is_offered(m)).map(|m| &*m.name).collect();
    names.join(", ")
}
