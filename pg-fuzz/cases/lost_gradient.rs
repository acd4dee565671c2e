//! Trained with a gradient norm of 0: launches of the fused plan waited for each other and were dropped.
//! expect: agrees

pg_macros::model! {
    /// Two residual lanes, the first with gated skips: the fused plan of its gradient loses half of the products.
    lost_gradient {
        const DIM = 64;
        const VOCAB = 1024;

        fn forward(tokens) {
            let table = param("tok_emb.weight", [VOCAB, DIM], normal(0.02));
            let x0 = gather(table, tokens);
            let y = project(x0, "first", DIM);
            let x = y + sigmoid(param("gate", [DIM], zeros)) * y;
            let [x, y] = scope("a") { exchange(x, y) };
            let x = x0 + sigmoid(param("gate2", [DIM], zeros)) * x;
            let [x, y] = scope("b") { exchange(x, y) };
            tied_logits(x + y, table, 30.0)
        }

        fn exchange(x, y) {
            let u = gain(x, "x_scale") * project(rms_norm(x), "x", DIM);
            let v = gain(y, "y_scale") * project(y, "y", DIM);
            [x + u + v, param("keep", [1], constant(1.1)) * y + u + v]
        }

        optim { "*" => adamw(lr = 0.01) }
        train { batch_tokens = 512; seq_len = 64; steps = 60; }
    }
}
