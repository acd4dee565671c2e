//! The model variants, each checked while this crate compiles and each a file that `pg run` reads.

pub mod int4mlp_12l;
pub mod leaky_11l;
pub mod naive_9l;
pub mod pr910;
pub mod tiny;

/// Ideas from later records, each a few lines away from a model above.
pub mod ideas {
    pub mod causal_conv;
    pub mod depth_recurrence;
    pub mod swiglu;
    pub mod two_lanes;
    pub mod value_residual;
}

// The published parameter counts, held at compile time.
const _: () = assert!(int4mlp_12l::PARAMS == 29_355_620);
const _: () = assert!(pr910::PARAMS == 29_355_620);
const _: () = assert!(leaky_11l::PARAMS == 26_928_220);
const _: () = assert!(naive_9l::PARAMS == 17_059_912);
