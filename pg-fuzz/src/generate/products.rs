//! Contractions beyond a matrix on the last axis: turned matrices, matrices of matrices, products of streams with
//! streams at each position, heads against heads.

use super::Generator;
use super::context::Context;
use crate::text::{Expr, Node, Size, Ty};

impl Generator {
    fn dot(shape: &[Size], a: Expr, b: Expr, contract: &str, batch: &str) -> Expr {
        let mut e = Expr::tensor(shape, "dot", [a, b]);
        if let Node::Call(_, args) = &mut e.node {
            args.push((Some("contract"), Expr::text(contract)));
            if !batch.is_empty() {
                args.push((Some("batch"), Expr::text(batch)));
            }
        }
        e
    }

    /// A stream through a contraction.
    pub(crate) fn product(&mut self, cx: &mut Context, width: &Size) -> Expr {
        let x = self.stream(cx, width);
        let shape = x.shape().clone();
        let each = "[[0, 0], [1, 1]]";
        self.growth += 0.5;
        match self.rng.below(10) {
            0 => {
                // y = x · w
                let w = self.param("w", &[width.clone(), width.clone()]);
                Self::dot(&shape, x, w, "[[-1, 0]]", "")
            }
            1 => {
                // One matrix down and, turned, up again.
                let narrow = Size::named("NARROW");
                let w = self.param("w", &[narrow.clone(), width.clone()]);
                let w = self.named(cx, w);
                let down = Expr::tensor(&self.stream_shape(&narrow), "linear", [x, w.clone()]);
                let down = if self.rng.once_in(2) { down.map("tanh") } else { down };
                Self::dot(&shape, down, w, "[[-1, 0]]", "")
            }
            2 => {
                // A matrix that is a product.
                let narrow = Size::named("NARROW");
                let (a, b) = (
                    self.param("a", &[width.clone(), narrow.clone()]),
                    self.param("b", &[narrow, width.clone()]),
                );
                let w = Self::dot(&[width.clone(), width.clone()], a, b, "[[1, 0]]", "");
                Expr::tensor(&shape, "linear", [x, w])
            }
            3 => {
                // Like streams, as a number a position.
                let y = self.stream(cx, width);
                let x = self.named(cx, x);
                let alike = Self::dot(&shape[..2], x.clone(), y, "[[2, 2]]", each);
                let column = self.lead(&x, [Expr::text(1)]);
                let alike = Expr::tensor(&self.stream_shape(&Size::Exact(1)), "reshape", [alike, column]);
                self.growth += 1.0;
                x.op("*", alike.map("tanh"))
            }
            4 => {
                // All pairs of features of a few, weighted.
                let narrow = Size::named("NARROW");
                let (y, z) = (self.projected(x.clone(), &narrow), self.stream(cx, width));
                let z = self.projected(z, &narrow);
                let pairs = [Size::Batch, Size::Time, narrow.clone(), narrow.clone()];
                let outer = Self::dot(&pairs, y.map("tanh"), z.map("tanh"), "[]", each);
                let w = self.param("pair", &[width.clone(), narrow.clone(), narrow]);
                Self::dot(&shape, outer, w, "[[2, 1], [3, 2]]", "")
            }
            5 | 6 => self.heads_against_heads(cx, x, width),
            7 => {
                // A matrix for each group of features.
                let (heads, each_width) = self.groups_of(width);
                let split = [Size::Batch, Size::Time, heads.clone(), each_width.clone()];
                let y = Expr::tensor(&split, "split_heads", [x.clone(), Expr::text(&heads)]);
                let w = self.param("per", &[heads.clone(), each_width.clone(), each_width.clone()]);
                // Heads first, then batch and time.
                let by_head = [heads, Size::Batch, Size::Time, each_width];
                let y = Self::dot(&by_head, y, w, "[[3, 2]]", "[[2, 0]]");
                let y = Expr::tensor(&split, "transpose", [y, Expr::list([1, 2, 0, 3].map(Expr::text))]);
                Expr::tensor(&shape, "merge_heads", [y])
            }
            8 => {
                // A sum of squares under a matrix: x (W x).
                let w = self.param("w", &[width.clone(), width.clone()]);
                let x = self.named(cx, x);
                let y = Expr::tensor(&shape, "linear", [x.clone(), w]);
                self.growth += 1.0;
                x.op("*", y.map("tanh"))
            }
            _ => {
                // A table's row against a vector of the table's own width.
                let v = self.param("v", std::slice::from_ref(width));
                let x = self.named(cx, x);
                let along = Self::dot(&shape[..2], x.clone(), v.clone(), "[[2, 0]]", "");
                let column = self.lead(&x, [Expr::text(1)]);
                let along = Expr::call(Ty::Fixed, "reshape", [along, column]);
                let bias = self.param("v", std::slice::from_ref(width));
                x.op("-", along.op("*", bias))
            }
        }
    }

    /// Groups into which a width divides, and their width.
    pub(crate) fn groups_of(&mut self, width: &Size) -> (Size, Size) {
        if *width == Size::named("DIM") && self.rng.once_in(2) {
            return (Size::named("HEADS"), Size::named("HEAD_DIM"));
        }
        let n = self.value(width);
        let divisors: Vec<usize> = (1..=n).filter(|d| n.is_multiple_of(*d)).collect();
        let groups = self.rng.pick(&divisors);
        (Size::Exact(groups), Size::Exact(n / groups))
    }

    /// Groups of features attend to each other, each position for itself.
    fn heads_against_heads(&mut self, cx: &mut Context, x: Expr, width: &Size) -> Expr {
        let (heads, each) = self.groups_of(width);
        let split = [Size::Batch, Size::Time, heads.clone(), each.clone()];
        let other = self.stream(cx, width);
        let cut = |x: Expr| Expr::tensor(&split, "split_heads", [x, Expr::text(&heads)]);
        let (q, k) = (cut(x.clone()), cut(other));
        let k = self.named(cx, k);
        let scores = [Size::Batch, Size::Time, heads.clone(), heads.clone()];
        let at = "[[0, 0], [1, 1]]";
        let s = Self::dot(&scores, q.map("rms_norm"), k.clone().map("rms_norm"), "[[3, 3]]", at);
        let s = if self.rng.once_in(2) { s.map("softmax") } else { s.map("tanh") };
        let y = Self::dot(&split, s, k, "[[3, 2]]", at);
        let merged = Expr::tensor(x.shape(), "merge_heads", [y]);
        if self.rng.once_in(2) { x.op("+", merged) } else { merged }
    }
}
