//! Layers that run several times (as in several records of parameter-golf).

pg_macros::model! {
    /// int4mlp_12l with layers 4 and 5 run three times in a row on shared weights: 16 layers deep at the size
    /// of 12, the U-Net's skips following the executed order.
    depth_recurrence from "../int4mlp_12l.rs" {
        const LOOP_FROM = 4;
        const LOOP_TO = 6;
        const PASSES = 3;

        fn order() {
            let mut order = 0..LOOP_FROM;
            for pass in 0..PASSES {
                order += LOOP_FROM..LOOP_TO;
            }
            order + (LOOP_TO..LAYERS)
        }

        fn layer(i, x, x0, ve) {
            scope("blocks.{i}", shared = true) { block(i, x, x0, ve) }
        }
    }
}
