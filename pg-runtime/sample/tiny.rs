//! The smallest model that shows the whole thing: it learns while you watch.

pg_macros::model! {
    /// 4 layers of width 128 on 1,024 tokens: 0.7 million parameters, int6 matrices, and a loss that
    /// falls visibly within two minutes on two cores.
    tiny {
        const LAYERS = 4;
        const DIM = 128;
        const HEADS = 4;
        const KV_HEADS = 2;
        const MLP_DIM = 3 * DIM;
        const VOCAB = 1024;
        const SEQ_LEN = 128;
        const HEAD_DIM = DIM / HEADS;
        const CLIP = 31;
        const MATRIX_LR = 0.025;
        const SCALAR_LR = 0.025;
        const TOKEN_LR = 0.035;

        fn forward(tokens) {
            let table = param("tok_emb.weight", [VOCAB, DIM], normal(0.02));
            let x0 = rms_norm(gather(table, tokens));
            tied_logits(layers(x0), table, 30.0)
        }

        /// All layers, one after the other.
        fn layers(x0) {
            let mut x = x0;
            for i in 0..LAYERS {
                scope("blocks.{i}") {
                    x = block(x, x0);
                }
            }
            x
        }

        fn block(x, x0) {
            let x = residual_mix(x, x0);
            let x = x + gain(x, "attn_scale") * scope("attn") { attn(rms_norm(x)) };
            x + gain(x, "mlp_scale") * scope("mlp") { mlp(rms_norm(x)) }
        }

        fn attn(x) {
            attention(x, HEADS, KV_HEADS, rope_dims = HEAD_DIM)
        }

        fn mlp(x) {
            leaky_relu_squared_mlp(x, MLP_DIM)
        }

        quant {
            "blocks.*.{attn,mlp}.*.weight" => int(clip = CLIP),
        }

        optim {
            "*" => adamw(lr = SCALAR_LR),
            "tok_emb.weight" => adamw(lr = TOKEN_LR),
            "blocks.*.{attn,mlp}.*.weight" => muon(lr = MATRIX_LR, weight_decay = 0.04),
        }

        train {
            batch_tokens = 2048;
            seq_len = SEQ_LEN;
            steps = 300;
            seconds = 60.0;
            warmdown_steps = 180;
            momentum_start = 0.85;
            momentum_end = 0.95;
            momentum_warmup_steps = 150;
            grad_clip = 0.3;
            ema_decay = 0.98;
        }

        eval {
            seq_len = SEQ_LEN;
            stride = 32;
            max_targets = 16_384;
            ttt {
                chunk = 2048;
                lr = 0.002;
                epochs = 2;
                batch_seqs = 16;
            }
        }
    }
}
