//! Two residual streams.

pg_macros::model! {
    /// tiny with one stream for attention and one for the MLP. Both layers read at the same time and write to
    /// both streams, with learned routing; the output is the mean of the streams.
    two_lanes from "../tiny.rs" {
        fn layers(x0) {
            let mut lanes = [x0, x0];
            for i in 0..LAYERS {
                lanes = scope("blocks.{i}") { exchange(lanes, x0) };
            }
            (lanes[0] + lanes[1]) * 0.5
        }

        fn exchange(lanes, x0) {
            let [keep, to] = [param("keep", [2], constant(1.1)), param("route", [4], ones)];
            let a = scope("attn") { attn(rms_norm(residual_mix(lanes[0], x0))) };
            let m = scope("mlp") { mlp(rms_norm(lanes[1])) };
            [keep[0] * lanes[0] + to[0] * a + to[1] * m, keep[1] * lanes[1] + to[2] * a + to[3] * m]
        }
    }
}
