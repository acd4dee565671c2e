pg_macros::model! {
    small {
        const VOCAB = 16;
        fn forward(tokens) {
            linear(gather(param("emb", [VOCAB, 4], normal(0.02)), tokens), param("head", [VOCAB, 4], orthogonal))
        }
        optim { "*" => adamw(lr = 0.01) }
        train { batch_tokens = 8; seq_len = 4; steps = 2; }
        eval { seq_len = 4; stride = 2; }
    }
}
