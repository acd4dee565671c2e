//! Trained on a gradient norm of 0 instead of 2.283: launches waited for each other and were dropped.
//! expect: agrees

pg_macros::model! {
    /// A random model.
    random_1210 {
        fn forward(tokens) {
            let table = param("tok_emb.weight", [1024, 32], normal(0.02));
            let t0 = gather(table, tokens);
            let t1 = project(t0, "w1", 32);
            let t2 = leaky_relu(t0, 0.5).square() * 0.3;
            let t3 = gain(t2, "g3") * t2;
            let v4 = split_heads(project(t2, "v4", 16), 2);
            let y4 = causal_attention(rms_norm(split_heads(project(t2, "q4", 32), 4)), rms_norm(split_heads(project(t1, "k4", 16), 2)), v4, scale = 0.35355339059327373);
            let t4 = t2 + merge_heads(xsa(y4, v4));
            let t5 = t1 + t4;
            tied_logits(t5, table, 30.0)
        }

        optim { "*" => adamw(lr = 0.001) }
        train { batch_tokens = 64; seq_len = 32; steps = 1; }
    }
}
