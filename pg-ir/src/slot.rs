//! Slots: what a program reads from and writes to outside itself.
//!
//! A slot is a space and a name. Parameters and their state are identified by parameter name, or by
//! the name of a [bank](crate::lang::layout) that holds several of them.

use std::fmt;
use std::str::FromStr;

use crate::ty::DType;

/// What kind of thing a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Space {
    /// Token ids that a call supplies: `tokens`, `targets`, int32 [batch, time].
    Data,
    /// Run-time scalars that a call supplies, float32.
    Scalar,
    /// Parameters, float32.
    Param,
    /// Accumulated gradients.
    Grad,
    /// A momentum: Muon's, Lion's.
    Momentum,
    /// A first moment: AdamW's.
    Mean,
    /// A second moment: AdamW's.
    Variance,
    /// Exponential moving average of the parameters.
    Ema,
    /// Test-time training's SGD momentum buffer.
    Velocity,
    /// Parameters as contractions and gathers read them: fake-quantised, rounded, or both; float32 or bf16.
    CachedWeight,
    /// What a program gives back to its caller: `loss`, `nll`, `logits`, `grad_norm`.
    Result,
}

impl Space {
    const NAMES: [(Space, &'static str); 11] = [
        (Space::Data, "data"),
        (Space::Scalar, "scalar"),
        (Space::Param, "param"),
        (Space::Grad, "grad"),
        (Space::Momentum, "momentum"),
        (Space::Mean, "mean"),
        (Space::Variance, "variance"),
        (Space::Ema, "ema"),
        (Space::Velocity, "velocity"),
        (Space::CachedWeight, "cached"),
        (Space::Result, "result"),
    ];

    /// Every space.
    pub fn all() -> impl Iterator<Item = Space> {
        Self::NAMES.iter().map(|(space, _)| *space)
    }

    /// Whether slots of this space live between calls.
    pub fn is_state(self) -> bool {
        !matches!(self, Space::Data | Space::Scalar | Space::Result)
    }

    /// Whether executors keep elements of this type in the space.
    pub fn holds(self, dtype: DType) -> bool {
        match self {
            Space::Data => dtype == DType::I32,
            Space::CachedWeight => matches!(dtype, DType::F32 | DType::BF16),
            _ => dtype == DType::F32,
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::NAMES.iter().find(|(s, _)| s == self).expect("every space has a name").1)
    }
}

/// A named place outside a program. Printed as `@param:blocks.0.attn.c_q.weight`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Slot {
    /// What the slot holds.
    pub space: Space,
    /// Parameter, bank, or data name.
    pub name: String,
}

impl Slot {
    /// A slot from its parts.
    pub fn new(space: Space, name: impl Into<String>) -> Self {
        Slot { space, name: name.into() }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}:{}", self.space, self.name)
    }
}

impl FromStr for Slot {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("`{s}` is not a slot; one looks like `@param:tok_emb.weight`");
        let (space, name) = s.strip_prefix('@').ok_or_else(bad)?.split_once(':').ok_or_else(bad)?;
        let (space, _) = Space::NAMES.iter().find(|(_, n)| *n == space).ok_or_else(bad)?;
        Ok(Slot::new(*space, name))
    }
}
