//! Causal attention as users write it: any head counts, grouped keys and values, rotary columns or none, query and key
//! norms by the library or by hand, gains, gates and exclusive self attention.

use super::Generator;
use super::context::Context;
use crate::text::{Expr, Node, Shape, Size, Ty};

/// Heads of one layer.
struct Heads {
    heads: Size,
    kv_heads: Size,
    width: Size,
    /// All query heads together, and all key heads.
    all: Size,
    all_kv: Size,
}

impl Generator {
    fn heads(&mut self) -> Heads {
        if !self.rng.once_in(3) {
            let named = Size::named;
            return Heads {
                heads: named("HEADS"),
                kv_heads: named("KV_HEADS"),
                width: named("HEAD_DIM"),
                all: named("DIM"),
                all_kv: named("KV_DIM"),
            };
        }
        let heads: usize = self.rng.pick(&[1, 2, 3, 4, 6]);
        let divisors: Vec<usize> = (1..=heads).filter(|d| heads.is_multiple_of(*d)).collect();
        let (kv, width) = (self.rng.pick(&divisors), self.rng.pick(&[1, 2, 3, 4, 8]));
        let exact = Size::Exact;
        Heads {
            heads: exact(heads),
            kv_heads: exact(kv),
            width: exact(width),
            all: exact(heads * width),
            all_kv: exact(kv * width),
        }
    }

    fn split_shape(heads: &Size, width: &Size) -> Shape {
        vec![Size::Batch, Size::Time, heads.clone(), width.clone()]
    }

    /// A stream projected and split into heads.
    fn split(&mut self, x: Expr, all: &Size, heads: &Size, width: &Size) -> Expr {
        let y = self.projected(x, all);
        let shape = Self::split_shape(heads, width);
        if self.rng.once_in(4) {
            // By hand.
            let sizes = [Expr::call(Ty::Fixed, "head", [Expr::text(heads)]), Expr::text(width)];
            let Node::Call(_, args) = &y.node else { return y };
            let source = args[0].1.clone();
            let lead = self.lead(&source, sizes);
            return Expr::tensor(&shape, "reshape", [y, lead]);
        }
        Expr::tensor(&shape, "split_heads", [y, Expr::text(heads)])
    }

    /// An even number of columns of a head.
    fn rotary(&mut self, width: &Size) -> usize {
        let half = self.value(width) / 2;
        2 * self.rng.below(half + 1)
    }

    /// Attention, with the residual connection or without.
    pub(crate) fn attention(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        let mixed = if self.rng.once_in(7) {
            self.library_attention(x.clone(), width)
        } else {
            self.heads_mixed(cx, width)
        };
        match self.rng.below(4) {
            0 => mixed,
            1 => {
                let gain = self.param("a", std::slice::from_ref(width));
                x.op("+", gain.into_op("*", mixed))
            }
            _ => x.op("+", mixed),
        }
    }

    /// `attention(x, …)` in a scope of its own.
    fn library_attention(&mut self, x: Expr, width: &Size) -> Expr {
        let shape = x.shape().clone();
        let n = self.value(width);
        let is_dim = *width == Size::named("DIM");
        let (heads, kv, head_width): (Size, Size, usize) = match is_dim {
            true => (Size::named("HEADS"), Size::named("KV_HEADS"), self.value(&Size::named("HEAD_DIM"))),
            false => (Size::Exact(1), Size::Exact(1), n),
        };
        let rotary = 2 * self.rng.below(head_width / 2 + 1);
        let h = if self.rng.once_in(2) { x.map("rms_norm") } else { x };
        let mut args = vec![h, Expr::text(heads), Expr::text(kv), Expr::text(rotary)];
        if self.rng.once_in(2) {
            args.push(Expr::text("100.0"));
        }
        let call = Expr::tensor(&shape, "attention", args);
        self.scoped("attn", call)
    }

    /// Attention from its parts.
    fn heads_mixed(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let h = self.heads();
        let source = self.stream(cx, width);
        let (from, own) = (self.any_stream(cx), self.rng.once_in(2));
        let (k_from, v_from) = match self.rng.below(4) {
            0 => (from.clone(), source.clone()),
            1 => (from.clone(), from.clone()),
            _ => (source.clone(), source.clone()),
        };
        let q = self.split(source.clone(), &h.all, &h.heads, &h.width);
        let k = self.split(k_from, &h.all_kv, &h.kv_heads, &h.width);
        let v = self.split(v_from, &h.all_kv, &h.kv_heads, &h.width);
        let v = self.values(cx, v, &h);
        let v = self.named(cx, v);
        let q_shape = Self::split_shape(&h.heads, &h.width);
        let kv_shape = Self::split_shape(&h.kv_heads, &h.width);
        let rotary = self.rotary(&h.width);
        let y = if self.rng.once_in(4) {
            let name = self.fresh("qk");
            let base = if self.rng.once_in(2) && rotary > 2 {
                let len = Expr::call(Ty::Fixed, "seq_len", [source.clone()]);
                Expr::call(
                    Ty::Fixed,
                    "ntk_base",
                    [Expr::text("10000.0"), Expr::text(rotary), len, Expr::text(4)],
                )
            } else {
                Expr::text("10000.0")
            };
            let args = [q, k, v.clone(), Expr::text(rotary), base, Expr::text("1.5")];
            let call = Expr::tensor(&q_shape, "qk_norm_attention", args);
            self.scoped(&name, call)
        } else {
            let norm = self.rng.below(4);
            let side = |g: &mut Self, x: Expr, shape: &Shape| {
                let x = match norm {
                    0 | 1 => x.map("rms_norm"),
                    2 => x.map("unit"),
                    _ => x.map("tanh"),
                };
                if rotary == 0 && g.rng.once_in(2) {
                    return x;
                }
                let mut args = vec![x, Expr::text(rotary)];
                if own {
                    args.push(Expr::text("100.0"));
                }
                Expr::tensor(shape, "partial_rope", args)
            };
            let (mut q, k) = (side(self, q, &q_shape), side(self, k, &kv_shape));
            if self.rng.once_in(3) {
                let gain = self.param("q_gain", std::slice::from_ref(&h.heads));
                let to = Expr::list([Expr::call(Ty::Fixed, "head", [Expr::text(&h.heads)]), Expr::text(1)]);
                q = q.op("*", Expr::call(Ty::Fixed, "reshape", [gain, to]));
            }
            let mut call = Expr::tensor(&q_shape, "causal_attention", [q, k, v.clone()]);
            let scale = match self.rng.below(3) {
                0 => Expr::text("0.5"),
                1 => Expr::text("1.0").op("/", Expr::call(Ty::Fixed, "sqrt", [Expr::text(&h.width)])),
                _ => Expr::text("1.0"),
            };
            if let Node::Call(_, args) = &mut call.node {
                args.push((Some("scale"), scale));
            }
            call
        };
        let y = match self.rng.below(5) {
            0 | 1 => Expr::tensor(&q_shape, "xsa", [y, v]),
            2 => self.head_gate(source, y, &h),
            _ => y,
        };
        self.growth = 1.0;
        let merged = Expr::tensor(&self.stream_shape(&h.all), "merge_heads", [y]);
        if h.all == *width && self.rng.once_in(2) { merged } else { self.projected(merged, width) }
    }

    /// Values as they are, or with something of the tokens or of the stream's start added.
    fn values(&mut self, cx: &mut Context, v: Expr, h: &Heads) -> Expr {
        let shape = v.shape().clone();
        match self.rng.below(6) {
            0 if cx.tokens => {
                let ve = self.token_values(&h.all_kv);
                let scale = self.param("ve_scale", &[Size::Exact(1)]);
                v.op("+", Expr::tensor(&shape, "split_heads", [ve.op("*", scale), Expr::text(&h.kv_heads)]))
            }
            1 if cx.start.is_some() => {
                let start = Expr::var(
                    cx.start.as_deref().unwrap_or_default(),
                    Ty::Tensor(self.stream_shape(&Size::named("DIM"))),
                );
                let first = self.projected(start, &h.all_kv);
                let mix = self.param("v_mix", &[Size::Exact(2)]);
                let mix = self.named(cx, mix);
                let at = |i: usize| {
                    Expr::new(Ty::Tensor(vec![]), Node::Index(Box::new(mix.clone()), Box::new(Expr::text(i))))
                };
                let first = Expr::tensor(&shape, "split_heads", [first, Expr::text(&h.kv_heads)]);
                at(0).into_op("*", first).op("+", at(1).into_op("*", v))
            }
            _ => v,
        }
    }

    /// Each head times a number that the input computes.
    fn head_gate(&mut self, x: Expr, y: Expr, h: &Heads) -> Expr {
        let x_width = x.shape()[2].clone();
        let rows = self.param("hg", &[h.heads.clone(), x_width]);
        let gate = Expr::tensor(&self.stream_shape(&h.heads), "linear", [x.clone(), rows]);
        let gate = if self.rng.once_in(2) {
            let bias = self.param("hb", std::slice::from_ref(&h.heads));
            gate.op("+", bias).map("sigmoid")
        } else {
            gate.map("sigmoid")
        };
        let sizes = [Expr::call(Ty::Fixed, "head", [Expr::text(&h.heads)]), Expr::text(1)];
        let lead = self.lead(&x, sizes);
        y.op("*", Expr::call(Ty::Fixed, "reshape", [gate, lead]))
    }
}
