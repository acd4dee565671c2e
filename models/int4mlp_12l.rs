//! PR #910 of parameter-golf, with its quantisation gap closed: the export uses the grid that training used.

pg_macros::model! {
    /// 12 layers of width 512 with int4 MLP and int6 attention weights: quantisation-aware training from
    /// step 0, U-Net skips, exclusive attention in the last 4 layers, bigram and value embeddings.
    int4mlp_12l {
        // Shape.
        const LAYERS = 12;
        const DIM = 512;
        const HEADS = 8;
        const KV_HEADS = 4;
        const MLP_MULT = 3.0;
        const VOCAB = 1024;
        const SEQ_LEN = 2048;
        const HEAD_DIM = DIM / HEADS;
        const KV_DIM = KV_HEADS * HEAD_DIM;
        const MLP_DIM = floor(MLP_MULT * DIM);

        // Modules.
        const BIGRAM_BUCKETS = 2048;
        const BIGRAM_DIM = 128;
        const VE_DIM = 128;
        const VE_LAYERS = [9, 10];
        const ROPE_DIMS = 16;
        const ROPE_BASE = 10000.0;
        const ROPE_TRAIN_LEN = 1024;
        const XSA_LAST = 4;
        const LEAKY_SLOPE = 0.5;
        const QK_GAIN = 1.5;
        const LOGIT_SOFTCAP = 30.0;
        const LN_SCALE = true;
        const TIED_EMBED_STD = 0.005;

        // Quantisers: clip 7 is int4, clip 31 is int6, clip 0 is none.
        const MLP_CLIP = 7;
        const ATTN_CLIP = 31;
        const SCALE_RULE = "amax";

        // Optimisation.
        const BATCH_TOKENS = 786_432;
        const MICRO_BATCH_TOKENS = 98_304;
        const WARMDOWN_STEPS = 3500;
        const MATRIX_LR = 0.025;
        const SCALAR_LR = 0.025;
        const TOKEN_LR = 0.035;
        const MUON_MOMENTUM = 0.99;
        const MUON_MOMENTUM_START = 0.92;
        const MUON_MOMENTUM_WARMUP_STEPS = 1500;
        const MUON_WD = 0.04;
        const NS_STEPS = 5;
        const BETA1 = 0.9;
        const BETA2 = 0.95;
        const ADAM_EPS = 1e-8;
        const ADAM_WD = 0.04;
        const GRAD_CLIP = 0.3;
        const EMA_DECAY = 0.997;

        // Evaluation.
        const EVAL_STRIDE = 32;
        const TTT_CHUNK = 32_768;
        const TTT_LR = 0.002;
        const TTT_MOMENTUM = 0.9;
        const TTT_EPOCHS = 3;
        const TTT_BATCH_SEQS = 32;
        const TTT_GRAD_CLIP = 1.0;

        /// tokens [B, T] -> logits [B, T, V]
        fn forward(tokens) {
            let table = param("tok_emb.weight", [VOCAB, DIM], normal(TIED_EMBED_STD));
            let x0 = embed(tokens, table);
            let ve = layer_values(tokens);
            let x = unet(x0, order(), |i, x| layer(i, x, x0, ve[i]));
            tied_logits(x, table, LOGIT_SOFTCAP)
        }

        /// The layers in the order in which they run.
        fn order() {
            0..LAYERS
        }

        /// Tokens and token pairs, normalised and smeared.  [B, T] -> [B, T, D]
        fn embed(tokens, table) {
            let bigram = scope("bigram") { bigram_embedding(tokens, BIGRAM_BUCKETS, BIGRAM_DIM, DIM) };
            scope("smear") { smear_gate(rms_norm(gather(table, tokens) + bigram)) }
        }

        /// What each layer adds to its values: one shared embedding, scaled for each layer that has it.
        fn layer_values(tokens) {
            let mut values = [];
            for i in 0..LAYERS {
                values.push(none);
            }
            for layer in VE_LAYERS {
                assert(layer >= 0 && layer < LAYERS, "VE_LAYERS names layer {layer} of {LAYERS} (0 to {LAYERS - 1})");
            }
            if len(VE_LAYERS) > 0 {
                let ve = scope("ve_shared") { value_embedding(tokens, VOCAB, VE_DIM, KV_DIM) };
                values = [];
                for i in 0..LAYERS {
                    values.push(if contains(VE_LAYERS, i) {
                        ve * param("ve_layer_scales.{index_of(VE_LAYERS, i)}", [1], ones)
                    } else {
                        none
                    });
                }
            }
            values
        }

        /// One block under its name.
        fn layer(i, x, x0, ve) {
            scope("blocks.{i}") { block(i, x, x0, ve) }
        }

        /// Attention and MLP, each on the normalised stream and with a learned gain.
        fn block(i, x, x0, ve) {
            let x = residual_mix(x, x0);
            let x = x + gain(x, "attn_scale") * scope("attn") { attn(norm(x, i), i, x0, ve) };
            x + gain(x, "mlp_scale") * scope("mlp") { mlp(norm(x, i)) }
        }

        /// RMS norm, weaker with depth.
        fn norm(x, i) {
            if LN_SCALE { rms_norm(x) * (1.0 / sqrt(i + 1)) } else { rms_norm(x) }
        }

        /// Attention of block i on its normalised input h.  h [B, T, D] -> [B, T, D]
        fn attn(h, i, x0, ve) {
            let q = split_heads(project(h, "c_q", DIM), HEADS);
            let k = split_heads(project(h, "c_k", KV_DIM), KV_HEADS);
            let v = split_heads(values(h, i, x0, ve), KV_HEADS);
            let base = ntk_base(ROPE_BASE, ROPE_DIMS, seq_len(h), ROPE_TRAIN_LEN);
            let y = qk_norm_attention(q, k, v, ROPE_DIMS, base, QK_GAIN);
            let y = if i >= LAYERS - XSA_LAST { xsa(y, v) } else { y };
            project(merge_heads(y), "proj", DIM, zeros)
        }

        /// Values of block i from its normalised input h. Variants may want x0, the stream's start, too.
        fn values(h, i, x0, ve) {
            let v = project(h, "c_v", KV_DIM);
            if ve == none { v } else { v + ve }
        }

        fn mlp(h) {
            leaky_relu_squared_mlp(h, MLP_DIM, LEAKY_SLOPE)
        }

        quant {
            "blocks.*.mlp.*.weight" => int(clip = MLP_CLIP, rule = SCALE_RULE),
            "blocks.*.attn.*.weight" => int(clip = ATTN_CLIP, rule = SCALE_RULE),
        }

        optim {
            "*" => adamw(lr = SCALAR_LR, beta1 = BETA1, beta2 = BETA2, eps = ADAM_EPS, weight_decay = ADAM_WD),
            "{tok_emb,*.embed}.weight" =>
                adamw(lr = TOKEN_LR, beta1 = BETA1, beta2 = BETA2, eps = ADAM_EPS, weight_decay = ADAM_WD),
            "blocks.*.{attn,mlp}.*.weight" => muon(lr = MATRIX_LR, weight_decay = MUON_WD, ns_steps = NS_STEPS),
        }

        train {
            batch_tokens = BATCH_TOKENS;
            micro_batch_tokens = MICRO_BATCH_TOKENS;
            seq_len = SEQ_LEN;
            steps = 20_000;
            seconds = 600.0;
            warmdown_steps = WARMDOWN_STEPS;
            momentum_start = MUON_MOMENTUM_START;
            momentum_end = MUON_MOMENTUM;
            momentum_warmup_steps = MUON_MOMENTUM_WARMUP_STEPS;
            grad_clip = GRAD_CLIP;
            ema_decay = EMA_DECAY;
            seed = 42;
        }

        // Quantised tensors leave on the grid they were trained on. Matrices without a quantiser go
        // through the clip search, tables get int8 rows, everything small stays float16.
        export {
            cap_bytes = 16_000_000;
            rule = SCALE_RULE;
            "blocks.*.mlp.*.weight" if MLP_CLIP == 0 => clip_search(clip = 31),
            "blocks.*.attn.*.weight" if ATTN_CLIP == 0 => clip_search(clip = 31),
            "{tok_emb,*.embed}.weight" => quantile_rows(clip = 127),
        }

        eval {
            seq_len = SEQ_LEN;
            stride = EVAL_STRIDE;
            ttt {
                chunk = TTT_CHUNK;
                lr = TTT_LR;
                momentum = TTT_MOMENTUM;
                epochs = TTT_EPOCHS;
                batch_seqs = TTT_BATCH_SEQS;
                grad_clip = TTT_GRAD_CLIP;
            }
        }

        // 8×H100 and 600 seconds: the file as it stands.
        profile full {}

        // Two minutes on a laptop: narrow and short, with every layer and every feature.
        profile quick {
            DIM = 128;
            HEADS = 2;
            KV_HEADS = 1;
            SEQ_LEN = 256;
            BATCH_TOKENS = 2048;
            MICRO_BATCH_TOKENS = 2048;
            TTT_CHUNK = 2048;
            train.steps = 200;
            train.seconds = 120.0;
            eval.max_targets = 16_384;
        }

        // Full width on a CPU, for as long as a coffee.
        profile wide {
            SEQ_LEN = 512;
            BATCH_TOKENS = 2048;
            MICRO_BATCH_TOKENS = 2048;
            TTT_CHUNK = 2048;
            train.steps = 90;
            train.seconds = none;
            eval.max_targets = 16_384;
        }
    }
}
