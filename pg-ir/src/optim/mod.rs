//! The optimisers that an `optim` block can name, a file each: settings, state, and the step as a graph.
//!
//! A new one is a file with its [`Definition`], and its line in the list below. Layout, the `update` program, the
//! language, state and run-time scalars follow from the definition; nothing else may know an optimiser by name.

mod adamw;
mod lion;
mod muon;
mod step;

pub use self::adamw::AdamW;
pub use self::lion::Lion;
pub use self::muon::Muon;
pub(crate) use self::step::Step;
use crate::graph::ValueId;
use crate::slot::Space;

/// How the parameters of one optimiser lie in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    /// Matrices of one shape as one batch [count, rows, cols]; it takes nothing but matrices.
    Matrices,
    /// Parameters of any shape end to end.
    Flat,
}

/// A setting, as a model file writes it.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// What it is if it is left out; `None` if it must be given.
    pub(crate) default: Option<f64>,
    pub(crate) range: Range,
}

/// Which numbers a setting can be.
#[derive(Clone, Copy)]
pub(crate) enum Range {
    /// Finite, from 0.
    Magnitude,
    /// From 0 and below 1.
    Fraction,
    /// An integer from 1.
    Count,
}

/// What pg knows of an optimiser.
pub(crate) trait Definition: Sized {
    /// Its name in model files, and of its banks.
    const NAME: &'static str;
    /// One line: what it does.
    const DOC: &'static str;
    const SETTINGS: &'static [Setting];
    const PACKING: Packing;
    /// What it keeps of every parameter beside the gradient.
    const STATE: &'static [Space];

    /// With settings in the order of [`Self::SETTINGS`].
    fn new(settings: &[f64]) -> Self;

    /// Base learning rate.
    fn lr(&self) -> f64;

    /// Decays β of which the step reads the scalar 1 − βᵗ.
    fn bias_corrected(&self) -> Vec<f64> {
        Vec::new()
    }

    /// The new weights of a bank from its gradient; state is read and written on the way.
    fn step(&self, step: &mut Step<'_>, grad: ValueId) -> ValueId;
}

/// An optimiser as the language has it: name, what it does, settings, and how it is made of them.
pub(crate) type Entry = (&'static str, &'static str, &'static [Setting], fn(&[f64]) -> Optimiser);

macro_rules! optimisers {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// An optimiser with its settings. Learning rates are multiplied by the run-time `lr_scale`.
        #[derive(Clone, Copy, PartialEq, Debug)]
        pub enum Optimiser {
            $($(#[$doc])* $name($name),)*
        }

        /// Every optimiser, in the order of the reference.
        pub(crate) const ALL: &[Entry] =
            &[$(($name::NAME, $name::DOC, $name::SETTINGS, |s| Optimiser::$name($name::new(s))),)*];

        /// What some optimiser keeps of a parameter.
        pub fn is_state(space: Space) -> bool {
            [$($name::STATE),*].iter().any(|state| state.contains(&space))
        }

        impl Optimiser {
            /// Its name in model files, and of its banks.
            pub fn name(&self) -> &'static str {
                match self { $(Optimiser::$name(_) => $name::NAME,)* }
            }

            /// How its parameters lie.
            pub fn packing(&self) -> Packing {
                match self { $(Optimiser::$name(_) => $name::PACKING,)* }
            }

            /// What it keeps of every parameter beside the gradient.
            pub fn state(&self) -> &'static [Space] {
                match self { $(Optimiser::$name(_) => $name::STATE,)* }
            }

            /// Base learning rate.
            pub fn lr(&self) -> f64 {
                match self { $(Optimiser::$name(o) => o.lr(),)* }
            }

            /// Decays β of which its step reads the scalar 1 − βᵗ.
            pub fn bias_corrected(&self) -> Vec<f64> {
                match self { $(Optimiser::$name(o) => o.bias_corrected(),)* }
            }

            pub(crate) fn step(&self, step: &mut Step<'_>, grad: ValueId) -> ValueId {
                match self { $(Optimiser::$name(o) => o.step(step, grad),)* }
            }
        }
    };
}

optimisers! {
    /// Momentum, Nesterov, Newton–Schulz; decoupled decay; update scaled by sqrt(max(1, rows/cols)).
    Muon,
    /// AdamW with bias correction and decoupled decay.
    AdamW,
    /// The sign of a momentum; decoupled decay.
    Lion,
}

impl Setting {
    const fn required(name: &'static str, range: Range) -> Setting {
        Setting { name, default: None, range }
    }

    const fn optional(name: &'static str, range: Range, default: f64) -> Setting {
        Setting { name, default: Some(default), range }
    }
}

/// What stands for "every optimiser" in messages: `muon(…), adamw(…) or lion(…)`.
pub(crate) fn names() -> String {
    let names: Vec<String> = ALL.iter().map(|(name, ..)| format!("{name}(…)")).collect();
    let (last, others) = names.split_last().expect("there are optimisers");
    format!("{} or {last}", others.join(", "))
}
