//! Ended in a panic, since the launch that computes a result was dropped: launches waited for each other.
//! expect: agrees

pg_macros::model! {
    /// A random model.
    random_1229 {
        fn forward(tokens) {
            let table = param("tok_emb.weight", [1024, 48], normal(0.02));
            let t0 = gather(table, tokens);
            let t1 = silu(t0);
            let v2 = split_heads(project(t0, "v2", 24), 1);
            let y2 = causal_attention(rms_norm(split_heads(project(t0, "q2", 48), 2)), rms_norm(split_heads(project(t1, "k2", 24), 1)), v2, scale = 0.20412414523193154);
            let t2 = t0 + merge_heads(y2);
            let t3 = silu(t1);
            let t4 = silu(t3);
            let t5 = t0 - 0.5 * t3;
            let v6 = split_heads(project(t4, "v6", 24), 1);
            let y6 = causal_attention(rms_norm(split_heads(project(t4, "q6", 48), 2)), rms_norm(split_heads(project(t0, "k6", 24), 1)), v6, scale = 0.20412414523193154);
            let t6 = t4 + merge_heads(y6);
            let v7 = split_heads(project(t4, "v7", 24), 1);
            let y7 = causal_attention(rms_norm(split_heads(project(t4, "q7", 48), 2)), rms_norm(split_heads(project(t0, "k7", 24), 1)), v7, scale = 0.20412414523193154);
            let t7 = t4 + merge_heads(xsa(y7, v7));
            let t8 = silu(t2);
            let t9 = project(t7, "w9", 48);
            let t10 = t6 + t3;
            let t11 = 0.5 * t2 + 0.5 * shift(t8, 1);
            let t12 = project(t11, "w12", 48);
            let t13 = t12 * mean(t0, -1);
            let t14 = gain(t11, "g14") * t11;
            let t15 = rms_norm(t10);
            tied_logits(t15 + t14 + t2 + t12, table, 30.0)
        }

        optim { "*" => adamw(lr = 0.001) }
        train { batch_tokens = 72; seq_len = 24; steps = 1; }
    }
}
