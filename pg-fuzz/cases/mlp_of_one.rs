//! `models/tiny.rs --set MLP_DIM=1`: `fc`, `proj` and `mlp_scale` never trained.
//! expect: agrees

pg_macros::model! {
    mlp_of_one {
        const DIM = 16;

        fn forward(tokens) {
            let table = param("tok_emb.weight", [24, DIM], normal(0.02));
            let x0 = rms_norm(gather(table, tokens));
            let mut x = x0;
            for i in 0..2 {
                scope("blocks.{i}") {
                    x = block(x, x0);
                }
            }
            tied_logits(x, table, 30.0)
        }

        fn block(x, x0) {
            let x = residual_mix(x, x0);
            let x = x + gain(x, "attn_scale") * scope("attn") { attention(rms_norm(x), 2, 1, rope_dims = 8) };
            x + gain(x, "mlp_scale") * scope("mlp") { leaky_relu_squared_mlp(rms_norm(x), 1) }
        }

        quant {
            "blocks.*.{attn,mlp}.*.weight" => int(clip = 31),
        }

        optim {
            "*" => adamw(lr = 0.01),
            "blocks.*.{attn,mlp}.*.weight" => muon(lr = 0.02, weight_decay = 0.04),
        }

        train {
            batch_tokens = 32;
            micro_batch_tokens = 16;
            seq_len = 8;
        }
    }
}
