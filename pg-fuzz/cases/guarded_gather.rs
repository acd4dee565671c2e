//! Random model 300004. Vulkan lost a row's gradient: its kernel took the table to have fewer rows than it has,
//! because it looked at lanes that a guard keeps out.
//! expect: agrees

pg_macros::model! {
    guarded_gather {
        const DIM = 3;
        const VOCAB = 2;

        fn forward(tokens) {
            let table = param("tok_emb.weight", [VOCAB, DIM], normal(0.02));
            let x0 = gather(table, tokens);
            let t1 = x0 + shift(x0, 2, axis = -1);
            tied_logits(t1, table, 8.0)
        }

        optim {
            "*" => adamw(lr = 0.01, weight_decay = 0.0),
        }

        train {
            batch_tokens = 1;
            micro_batch_tokens = 1;
            seq_len = 1;
            steps = 2;
        }
    }
}
