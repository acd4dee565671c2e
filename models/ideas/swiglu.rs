//! A gated feed-forward layer (Shazeer 2020, arXiv 2002.05202).

pg_macros::model! {
    /// int4mlp_12l with SwiGLU: the up-projection times a gate, at the same number of parameters.
    swiglu from "../int4mlp_12l.rs" {
        const MLP_DIM = floor(MLP_MULT * DIM * 2.0 / 3.0);

        fn mlp(h) {
            let u = project(h, "fc", MLP_DIM) * silu(project(h, "gate", MLP_DIM));
            project(u, "proj", DIM, zeros)
        }
    }
}
