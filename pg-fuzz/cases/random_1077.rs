//! Trained on a gradient norm of 0.971 instead of 3.136: launches waited for each other and were dropped.
//! expect: agrees

pg_macros::model! {
    /// A random model.
    random_1077 {
        fn forward(tokens) {
            let table = param("tok_emb.weight", [1024, 32], normal(0.02));
            let t0 = gather(table, tokens);
            let t1 = t0 + t0;
            let t2 = t1 * mean(t0, -1);
            let t3 = gain(t2, "g3") * t1;
            let t4 = project(t3, "w4", 32);
            let v5 = split_heads(project(t2, "v5", 32), 1);
            let y5 = causal_attention(rms_norm(split_heads(project(t2, "q5", 32), 1)), rms_norm(split_heads(project(t0, "k5", 32), 1)), v5, scale = 0.17677669529663687);
            let t5 = t2 + merge_heads(xsa(y5, v5));
            let v6 = split_heads(project(t5, "v6", 32), 1);
            let y6 = causal_attention(rms_norm(split_heads(project(t5, "q6", 32), 1)), rms_norm(split_heads(project(t4, "k6", 32), 1)), v6, scale = 0.17677669529663687);
            let t6 = t5 + merge_heads(y6);
            let v7 = split_heads(project(t4, "v7", 32), 1);
            let y7 = causal_attention(rms_norm(split_heads(project(t4, "q7", 32), 1)), rms_norm(split_heads(project(t3, "k7", 32), 1)), v7, scale = 0.17677669529663687);
            let t7 = t4 + merge_heads(xsa(y7, v7));
            let t8 = leaky_relu(t4, 0.5).square() * 0.3;
            let t9 = t5 + t7;
            let t10 = project(t9, "w10", 32);
            let t11 = t0 + merge_heads(split_heads(t7, 1) * reshape(sigmoid(linear(t0, param("h11", [1, 32], zeros))), [dim(t7, 0), dim(t7, 1), head(1), 1]));
            let t12 = t11 + merge_heads(split_heads(t6, 1) * reshape(sigmoid(linear(t11, param("h12", [1, 32], zeros))), [dim(t6, 0), dim(t6, 1), head(1), 1]));
            let v13 = split_heads(project(t7, "v13", 32), 1);
            let y13 = causal_attention(rms_norm(split_heads(project(t7, "q13", 32), 1)), rms_norm(split_heads(project(t0, "k13", 32), 1)), v13, scale = 0.17677669529663687);
            let t13 = t7 + merge_heads(y13);
            let t14 = t8 - 0.5 * t0;
            let t15 = leaky_relu(t13, 0.5).square() * 0.3;
            let t16 = t15 + sigmoid(param("s16", [32], zeros)) * t10;
            let v17 = split_heads(project(t16, "v17", 32), 1);
            let y17 = causal_attention(rms_norm(split_heads(project(t16, "q17", 32), 1)), rms_norm(split_heads(project(t15, "k17", 32), 1)), v17, scale = 0.17677669529663687);
            let t17 = t16 + merge_heads(y17);
            let v18 = split_heads(project(t17, "v18", 32), 1);
            let y18 = causal_attention(rms_norm(split_heads(project(t17, "q18", 32), 1)), rms_norm(split_heads(project(t12, "k18", 32), 1)), v18, scale = 0.17677669529663687);
            let t18 = t17 + merge_heads(xsa(y18, v18));
            let t19 = project(t16, "w19", 32);
            tied_logits(t19 + t17, table, 30.0)
        }

        optim { "*" => adamw(lr = 0.001) }
        train { batch_tokens = 72; seq_len = 24; steps = 1; }
    }
}
