//! A job as the arguments of the `pg run` that does it.

use super::{JobOptions, TextOptions};

/// A word as a shell takes it: quoted where it must be.
pub fn shell_word(word: &str) -> String {
    // A NUL, which no argument can hold, is all that cannot be quoted.
    shlex::try_quote(word).map_or_else(|_| word.into(), |quoted| quoted.into_owned())
}

impl JobOptions {
    /// The arguments, without the model's file; paths and patterns are as they were given.
    pub fn arguments(&self) -> Vec<String> {
        // Every field has its argument: a new one does not compile until it has.
        let JobOptions {
            model: _,
            overrides,
            profile,
            steps,
            seconds,
            flops,
            eval_seconds,
            batch_tokens,
            micro_batch_tokens,
            seq_len,
            warmdown_steps,
            seed,
            text: TextOptions { data, val, tokenizer, val_bytes },
            init,
            unscaled_schedule,
            storage,
            val_every,
            skip_full_size,
            skip_validation,
        } = self;
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                arguments.extend([format!("--{name}"), value]);
            }
        };
        for (name, value) in overrides {
            add("set", Some(format!("{name}={value}")));
        }
        add("profile", profile.clone());
        add("steps", steps.map(|n| n.to_string()));
        add("seconds", seconds.map(|s| s.to_string()));
        add("budget", flops.map(|flops| format!("flops={flops}")));
        add("eval-seconds", eval_seconds.map(|s| s.to_string()));
        add("batch-tokens", batch_tokens.map(|n| n.to_string()));
        add("micro-batch-tokens", micro_batch_tokens.map(|n| n.to_string()));
        add("seq-len", seq_len.map(|n| n.to_string()));
        add("warmdown-steps", warmdown_steps.map(|n| n.to_string()));
        add("seed", seed.map(|n| n.to_string()));
        add("data", data.clone());
        add("val", val.clone());
        add("tokenizer", tokenizer.as_ref().map(|path| path.display().to_string()));
        add("val-bytes", val_bytes.clone());
        add("init", init.as_ref().map(|path| path.display().to_string()));
        add("schedule", unscaled_schedule.then(|| "spec".into()));
        add("precision", storage.map(|storage| storage.to_string()));
        add("val-every", val_every.map(|n| n.to_string()));
        let flags = [("--no-full-size", skip_full_size), ("--no-validate", skip_validation)];
        arguments.extend(flags.into_iter().filter(|(_, is_set)| **is_set).map(|(flag, _)| flag.into()));
        arguments
    }
}
