//! PR #549 of parameter-golf: the record that #910 started from.

pg_macros::model! {
    /// 11 layers of width 512 with LeakyReLU² and test-time training: no quantiser in training, int6
    /// matrices by clip search with a floored scale.
    leaky_11l from "int4mlp_12l.rs" {
        const LAYERS = 11;
        const BIGRAM_BUCKETS = 1536;
        const MLP_CLIP = 0;
        const ATTN_CLIP = 0;
        const EVAL_STRIDE = 64;

        train {
            steps = 9000;
            seed = 1337;
        }

        export {
            rule = "floored";
            "blocks.*.{attn,mlp}.*.weight" => clip_search(clip = 31, per_matrix = true),
        }

        // With the floored rule the size depends on how large the weights become. The published artifact
        // of 15.9 MB implies about 4.6 bits a weight, so this deviation.
        weight_std {
            "{tok_emb,*.embed,blocks.*}.weight" => 0.18,
        }
    }
}
