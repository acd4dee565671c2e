//! Values blended with the first layer's (Zhou et al. 2024, arXiv 2410.17897).

pg_macros::model! {
    /// int4mlp_12l where every layer's values are λ₀ · v₀ + λ₁ · v, v₀ being the first layer's, λ learned
    /// from (½, ½).
    value_residual from "../int4mlp_12l.rs" {
        fn values(h, i, x0, ve) {
            let own = project(h, "c_v", KV_DIM);
            let first = if i == 0 { own } else { first_values(x0) };
            let mix = param("v_mix", [2], constant(0.5));
            let v = mix[0] * first + mix[1] * own;
            if ve == none { v } else { v + ve }
        }

        // The same expressions as in layer 0, so the same nodes: nothing is computed twice.
        fn first_values(x0) {
            scope("/blocks.0", shared = true) {
                let h = norm(residual_mix(x0, x0), 0);
                scope("attn") { project(h, "c_v", KV_DIM) }
            }
        }
    }
}
