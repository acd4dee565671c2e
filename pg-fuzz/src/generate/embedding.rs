//! From tokens to the stream's start: tables, hashes of token pairs, tokens before, value embeddings.

use super::Generator;
use super::context::Context;
use crate::text::{Expr, Size, Ty};

impl Generator {
    fn tokens() -> Expr {
        Expr::var("tokens", Ty::Ints(vec![Size::Batch, Size::Time]))
    }

    /// The stream's start from the table that the head may share.
    pub(crate) fn embedded(&mut self, cx: &mut Context, table: &Expr) -> Expr {
        let dim = Size::named("DIM");
        let shape = self.stream_shape(&dim);
        let mut x = Expr::tensor(&shape, "gather", [table.clone(), Self::tokens()]);
        if self.rng.once_in(10) {
            // A narrow table, brought to width.
            let narrow = Size::named("NARROW");
            let rows = self.param("thin", &[Size::named("VOCAB"), narrow.clone()]);
            let thin = Expr::tensor(&self.stream_shape(&narrow), "gather", [rows, Self::tokens()]);
            x = self.projected(thin, &dim).op("+", x);
        }
        if self.rng.once_in(4) {
            let more = self.bigrams(cx);
            x = x.op("+", more);
        }
        if self.rng.once_in(8) {
            // The token before, by a table of its own.
            let rows = self.param("prev", &[Size::named("VOCAB"), dim.clone()]);
            let before = Expr::call(Ty::Ints(vec![]), "shift", [Self::tokens(), Expr::text(1)]);
            x = x.op("+", Expr::tensor(&shape, "gather", [rows, before]));
        }
        if self.rng.once_in(8) {
            // Learned positions, as the first rows of a table.
            let rows = self.param("pos", &[Size::Exact(64), dim.clone()]);
            let len = Expr::call(Ty::Fixed, "seq_len", [Self::tokens()]);
            let args = [rows, Expr::text(0), Expr::text(0), len];
            x = x.op("+", Expr::tensor(&[Size::Time, dim.clone()], "slice", args));
        }
        if self.rng.once_in(8) {
            // Or by number.
            let rows = self.param("pos", &[Size::Exact(64), dim.clone()]);
            let positions = Expr::call(Ty::Ints(vec![Size::Time]), "positions", [Self::tokens()]);
            let rows = Expr::tensor(&[Size::Time, dim.clone()], "gather", [rows, positions]);
            let before = |rows| Expr::tensor(&[Size::Time, dim.clone()], "shift", [rows, Expr::text(1)]);
            let rows = if self.rng.once_in(2) { before(rows) } else { rows };
            x = x.op("+", rows);
        }
        match self.rng.below(4) {
            0 | 1 => x.map("rms_norm"),
            2 => {
                let smeared = x.map("rms_norm").map("smear_gate");
                self.scoped("smear", smeared)
            }
            _ => x,
        }
    }

    /// An embedding of token pairs.
    fn bigrams(&mut self, cx: &mut Context) -> Expr {
        let dim = Size::named("DIM");
        let shape = self.stream_shape(&dim);
        let buckets = self.rng.pick(&[2, 5, 16, 31]);
        if self.rng.once_in(2) {
            let width = self.rng.pick(&[1, 3, 4]);
            let args = [Self::tokens(), Expr::text(buckets), Expr::text(width), Expr::text(&dim)];
            let call = Expr::tensor(&shape, "bigram_embedding", args);
            return self.scoped("bigram", call);
        }
        let ids = Expr::call(
            Ty::Ints(vec![Size::Batch, Size::Time]),
            "bigram_hash",
            [Self::tokens(), Expr::text(buckets)],
        );
        let ids = self.named(cx, ids);
        let rows = self.param("bigram", &[Size::Exact(buckets), dim]);
        Expr::tensor(&shape, "gather", [rows, ids])
    }

    /// Something of the token itself, to be added to attention's values.
    pub(crate) fn token_values(&mut self, width: &Size) -> Expr {
        let shape = self.stream_shape(width);
        let vocab = Size::named("VOCAB");
        match self.rng.below(3) {
            0 => {
                let rows = self.param("ve", &[vocab, width.clone()]);
                Expr::tensor(&shape, "gather", [rows, Self::tokens()])
            }
            _ => {
                let inner = self.rng.pick(&[1, 2, 5]);
                let args = [Self::tokens(), Expr::text(&vocab), Expr::text(inner), Expr::text(width)];
                let call = Expr::tensor(&shape, "value_embedding", args);
                self.scoped("ve", call)
            }
        }
    }
}
