//! From a seed to a model text: what users write, in every combination. The same seed gives the same text for ever;
//! a text that pg refuses is a fault of this generator.

mod attention;
mod context;
mod elementwise;
mod embedding;
mod head;
mod idioms;
mod layouts;
mod mixing;
mod modules;
mod products;
mod settings;
mod skeleton;

use std::collections::BTreeMap;

use self::context::Context;
use crate::rng::Rng;
use crate::text::{Expr, Function, Shape, Size, Text, Ty};

/// Builds one text.
pub(crate) struct Generator {
    pub(crate) rng: Rng,
    pub(crate) text: Text,
    /// Values of the constants that are sizes.
    sizes: BTreeMap<String, usize>,
    /// Names given so far.
    names: usize,
    /// Roughly, the logarithm of what the expression being built can grow to.
    growth: f64,
    /// Whether sizes are those of small models that people train, not the least.
    is_wide: bool,
    /// Calls within calls of helpers that are being written.
    depth: usize,
}

/// The text of a seed.
pub fn model(seed: u64) -> Text {
    let mut g = Generator {
        rng: Rng::of(seed, "text"),
        text: Text { name: format!("random_{seed}"), ..Text::default() },
        sizes: BTreeMap::new(),
        names: 0,
        growth: 0.0,
        is_wide: false,
        depth: 0,
    };
    g.choose_sizes();
    g.forward();
    g.settings();
    g.text
}

impl Generator {
    /// A name that nothing else has.
    fn fresh(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    /// Declares a constant that is a size.
    fn size(&mut self, name: &str, value: usize, text: impl ToString) {
        self.sizes.insert(name.into(), value);
        self.text.set(name, text);
    }

    /// The number that a size is; of batch and time nothing is known.
    ///
    /// # Panics
    /// Of those: a bug of the generator.
    fn value(&self, size: &Size) -> usize {
        match size {
            Size::Exact(n) => *n,
            Size::Named(name) => self.sizes[name],
            Size::Batch | Size::Time => panic!("internal error: {size:?} is not known"),
        }
    }

    fn choose_sizes(&mut self) {
        let heads: usize = self.rng.pick(&[1, 1, 2, 2, 3, 4]);
        let divisors: Vec<usize> = (1..=heads).filter(|d| heads.is_multiple_of(*d)).collect();
        let kv_heads = self.rng.pick(&divisors);
        // Now and then as wide as executors begin to cut and to vectorise.
        self.is_wide = self.rng.once_in(50);
        let (most, all): (usize, &[usize]) = match self.is_wide {
            true => (96, &[16, 24, 32, 48]),
            false => (24, &[1, 2, 3, 4, 4, 5, 6, 8, 8, 12]),
        };
        let widths: Vec<usize> = all.iter().copied().filter(|w| *w <= most / heads).collect();
        let head_dim = self.rng.pick(&widths);
        self.size("HEADS", heads, heads);
        self.size("KV_HEADS", kv_heads, kv_heads);
        self.size("HEAD_DIM", head_dim, head_dim);
        self.size("DIM", heads * head_dim, "HEADS * HEAD_DIM");
        self.size("KV_DIM", kv_heads * head_dim, "KV_HEADS * HEAD_DIM");
        let (mlp, text) = match self.rng.below(6) {
            0 => (1, "1".to_string()),
            1 => (heads * head_dim, "DIM".into()),
            2 => (2 * heads * head_dim, "2 * DIM".into()),
            _ => {
                let n = self.rng.pick(&[2, 3, 5, 7, 8, 13, 16]);
                (n, n.to_string())
            }
        };
        self.size("MLP_DIM", mlp, text);
        let narrow = self.rng.pick(&[1, 2, 3, 4, 5, 7]);
        self.size("NARROW", narrow, narrow);
        let vocab = if self.is_wide { 130 } else { self.rng.pick(&[8, 9, 11, 16, 17, 23, 32, 40]) };
        self.size("VOCAB", vocab, vocab);
        let layers = self.rng.pick(&[1, 2, 2, 3, 3, 4]);
        self.size("LAYERS", layers, layers);
    }

    /// [batch, time, width]
    fn stream_shape(&self, width: &Size) -> Shape {
        vec![Size::Batch, Size::Time, width.clone()]
    }

    /// A number as text, with few digits.
    fn number(&mut self, low: f64, high: f64) -> Expr {
        let x = low + (high - low) * (self.rng.float() * 0.5 + 0.5);
        let rounded = (x * 16.0).round() / 16.0;
        Expr::text(format!("{:?}", if rounded == 0.0 { 0.25 } else { rounded }))
    }

    /// An initialiser. The search draws its own weights; what a text says is for its readers.
    fn init(&mut self, shape: &[Size]) -> Expr {
        let all: &[&str] = match shape.len() {
            2 => &["orthogonal", "normal(0.02)", "zeros", "uniform(0.1)", "first_row(1.0, 0.0)"],
            _ => &["ones", "zeros", "constant(0.5)", "normal(0.1)"],
        };
        Expr::text(self.rng.pick(all))
    }

    /// A parameter with a name of its own.
    fn param(&mut self, prefix: &str, shape: &[Size]) -> Expr {
        let name = self.fresh(prefix);
        let sizes = Expr::list(shape.iter().map(Expr::text));
        let init = self.init(shape);
        Expr::tensor(shape, "param", [Expr::text(format!("\"{name}\"")), sizes, init])
    }

    /// Adds a function.
    fn function(&mut self, name: &str, params: Vec<(String, Ty)>, cx: Context, value: Expr) {
        let body = cx.into_block(value);
        self.text.functions.push(Function { name: name.into(), params, body });
    }
}
