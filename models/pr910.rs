//! PR #910 as it was exported: weights trained on one grid, quantised on another.

pg_macros::model! {
    /// int4mlp_12l, exported by clip search per matrix with scale = max(rowmax, 1) / clip, which is not the
    /// grid it trained on. Shows the original's quantisation gap beside int4mlp_12l's.
    pr910 from "int4mlp_12l.rs" {
        export {
            rule = "floored";
            "blocks.*.mlp.*.weight" => clip_search(clip = 7, per_matrix = true),
            "blocks.*.attn.*.weight" => clip_search(clip = 31, per_matrix = true),
        }

        // What the original's artifact size implies.
        weight_std {
            "{tok_emb,*.embed,blocks.*}.weight" => 0.2,
        }
    }
}
