pg_macros::model! {
    pos {
        const D = 16;
        fn forward(tokens) {
            let e = gather(param("emb.weight", [1024, D], normal(0.02)), tokens);
            let p = slice(param("pos.weight", [128, D], normal(0.02)), 0, 0, seq_len(e));
            linear(rms_norm(e + p), param("head.weight", [1024, D], orthogonal))
        }
        optim { "*" => adamw(lr = 0.01) }
        train { batch_tokens = 512; seq_len = 64; steps = 5; }
        eval { seq_len = 64; stride = 64; max_targets = 128; }
    }
}
