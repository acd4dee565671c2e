//! Short causal convolutions in front of attention (Allen-Zhu, Physics of Language Models 4.1: "Canon layers").

pg_macros::model! {
    /// int4mlp_12l where attention sees each channel through a 4-tap causal convolution that starts as the
    /// identity.
    causal_conv from "../int4mlp_12l.rs" {
        fn block(i, x, x0, ve) {
            let x = residual_mix(x, x0);
            let h = scope("conv") { conv(norm(x, i)) };
            let x = x + gain(x, "attn_scale") * scope("attn") { attn(h, i, x0, ve) };
            x + gain(x, "mlp_scale") * scope("mlp") { mlp(norm(x, i)) }
        }

        fn conv(x) {
            let taps = param("taps", [4, DIM], first_row(1.0, 0.0));
            let mut y = taps[0] * x;
            for k in 1..4 {
                y += taps[k] * shift(x, k);
            }
            y
        }
    }
}
