//! One tensor contracted with itself over time made `pg check` panic.
//! expect: refused: the logits of a position depend on later tokens

pg_macros::model! {
    gram {
        const D = 16;
        fn forward(tokens) {
            let e = gather(param("emb.weight", [1024, D], normal(0.02)), tokens);
            let s = dot(e, e, contract = [[2, 2]], batch = [[0, 0]]);
            linear(e + sum(s, -1), param("head.weight", [1024, D], orthogonal))
        }
        optim { "*" => adamw(lr = 0.01) }
        train { batch_tokens = 512; seq_len = 64; steps = 2; }
    }
}
