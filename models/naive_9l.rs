//! The naive baseline of parameter-golf: where every later record started.

pg_macros::model! {
    /// 9 layers of width 512, MLP 2× with relu², full rotary attention, U-Net skips; int8 rows.
    naive_9l {
        const LAYERS = 9;
        const DIM = 512;
        const HEADS = 8;
        const KV_HEADS = 4;
        const MLP_MULT = 2;
        const VOCAB = 1024;
        const SEQ_LEN = 1024;
        const HEAD_DIM = DIM / HEADS;
        const ROPE_BASE = 10000.0;
        const QK_GAIN = 1.5;
        const LOGIT_SOFTCAP = 30.0;
        const TIED_EMBED_STD = 0.005;

        const BATCH_TOKENS = 524_288;
        const MICRO_BATCH_TOKENS = 65_536;
        const MATRIX_LR = 0.04;
        const SCALAR_LR = 0.04;
        const TOKEN_LR = 0.05;

        fn forward(tokens) {
            let table = param("tok_emb.weight", [VOCAB, DIM], normal(TIED_EMBED_STD));
            let x0 = rms_norm(gather(table, tokens));
            let x = unet(x0, 0..LAYERS, |i, x| scope("blocks.{i}") { block(x, x0) });
            tied_logits(x, table, LOGIT_SOFTCAP)
        }

        fn block(x, x0) {
            let x = residual_mix(x, x0);
            let h = rms_norm(x);
            let init = uniform(1.0 / sqrt(DIM));
            let a = scope("attn") { attention(h, HEADS, KV_HEADS, HEAD_DIM, ROPE_BASE, QK_GAIN, init) };
            let x = x + gain(x, "attn_scale") * a;
            let m = scope("mlp") { relu_squared_mlp(rms_norm(x), MLP_MULT * DIM, init) };
            x + gain(x, "mlp_scale") * m
        }

        optim {
            "*" => adamw(lr = SCALAR_LR),
            "tok_emb.weight" => adamw(lr = TOKEN_LR),
            "blocks.*.{attn,mlp}.*.weight" => muon(lr = MATRIX_LR),
        }

        train {
            batch_tokens = BATCH_TOKENS;
            micro_batch_tokens = MICRO_BATCH_TOKENS;
            seq_len = SEQ_LEN;
            steps = 20_000;
            seconds = 600.0;
            warmdown_steps = 1200;
            momentum_start = 0.85;
            momentum_end = 0.95;
            momentum_warmup_steps = 500;
            seed = 1337;
        }

        export {
            rule = "floored";
            "{tok_emb,blocks.*.attn.*,blocks.*.mlp.*}.weight" => quantile_rows(clip = 127),
        }

        // The published artifact of 15.9 MB implies about 7 bits a weight.
        weight_std {
            "{tok_emb,blocks.*.attn.*,blocks.*.mlp.*}.weight" => 0.25,
        }

        eval {
            seq_len = SEQ_LEN;
            stride = 64;
        }

        profile full {}

        profile quick {
            DIM = 128;
            HEADS = 2;
            KV_HEADS = 1;
            SEQ_LEN = 256;
            BATCH_TOKENS = 2048;
            MICRO_BATCH_TOKENS = 2048;
            train.steps = 200;
            train.seconds = 120.0;
            eval.max_targets = 16_384;
        }
    }
}
