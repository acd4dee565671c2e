//! Ended in a panic, since the launch that computes a result was dropped: launches waited for each other.
//! expect: agrees

pg_macros::model! {
    /// A random model.
    random_1227 {
        fn forward(tokens) {
            let table = param("tok_emb.weight", [1024, 32], normal(0.02));
            let t0 = gather(table, tokens);
            let t1 = 0.5 * t0 + 0.5 * shift(t0, 1);
            let t2 = t1 + t1;
            let t3 = param("k3", [1], ones) * t1 + t0;
            let v4 = split_heads(project(t3, "v4", 32), 1);
            let y4 = causal_attention(rms_norm(split_heads(project(t3, "q4", 32), 1)), rms_norm(split_heads(project(t3, "k4", 32), 1)), v4, scale = 0.17677669529663687);
            let t4 = t3 + merge_heads(y4);
            let v5 = split_heads(project(t1, "v5", 32), 1);
            let y5 = causal_attention(rms_norm(split_heads(project(t1, "q5", 32), 1)), rms_norm(split_heads(project(t3, "k5", 32), 1)), v5, scale = 0.17677669529663687);
            let t5 = t1 + merge_heads(y5);
            let t6 = t4 * mean(t4, -1);
            let t7 = project(t4, "w7", 32);
            let v8 = split_heads(project(t5, "v8", 32), 1);
            let y8 = causal_attention(rms_norm(split_heads(project(t5, "q8", 32), 1)), rms_norm(split_heads(project(t6, "k8", 32), 1)), v8, scale = 0.17677669529663687);
            let t8 = t5 + merge_heads(xsa(y8, v8));
            let t9 = t5 - 0.5 * t8;
            let v10 = split_heads(project(t6, "v10", 32), 1);
            let y10 = causal_attention(rms_norm(split_heads(project(t6, "q10", 32), 1)), rms_norm(split_heads(project(t8, "k10", 32), 1)), v10, scale = 0.17677669529663687);
            let t10 = t6 + merge_heads(xsa(y10, v10));
            let t11 = project(t6, "w11", 32);
            let t12 = t11 + merge_heads(split_heads(t9, 1) * reshape(sigmoid(linear(t11, param("h12", [1, 32], zeros))), [dim(t9, 0), dim(t9, 1), head(1), 1]));
            let v13 = split_heads(project(t12, "v13", 32), 1);
            let y13 = causal_attention(rms_norm(split_heads(project(t12, "q13", 32), 1)), rms_norm(split_heads(project(t9, "k13", 32), 1)), v13, scale = 0.17677669529663687);
            let t13 = t12 + merge_heads(y13);
            let v14 = split_heads(project(t11, "v14", 32), 1);
            let y14 = causal_attention(rms_norm(split_heads(project(t11, "q14", 32), 1)), rms_norm(split_heads(project(t4, "k14", 32), 1)), v14, scale = 0.17677669529663687);
            let t14 = t11 + merge_heads(y14);
            let v15 = split_heads(project(t12, "v15", 32), 1);
            let y15 = causal_attention(rms_norm(split_heads(project(t12, "q15", 32), 1)), rms_norm(split_heads(project(t0, "k15", 32), 1)), v15, scale = 0.17677669529663687);
            let t15 = t12 + merge_heads(y15);
            let t16 = gain(t13, "g16") * t13;
            let t17 = t15 * mean(t14, -1);
            let t18 = t16 * mean(t17, -1);
            let t19 = rms_norm(t18);
            let v20 = split_heads(project(t15, "v20", 32), 1);
            let y20 = causal_attention(rms_norm(split_heads(project(t15, "q20", 32), 1)), rms_norm(split_heads(project(t17, "k20", 32), 1)), v20, scale = 0.17677669529663687);
            let t20 = t15 + merge_heads(xsa(y20, v20));
            let t21 = 0.5 * t0 + 0.5 * shift(t15, 1);
            let t22 = t21 + sigmoid(param("s22", [32], zeros)) * t19;
            tied_logits(t22, table, 30.0)
        }

        optim { "*" => adamw(lr = 0.001) }
        train { batch_tokens = 72; seq_len = 24; steps = 1; }
    }
}
