pg_macros::model! {
    shape_mismatch {
        const VOCAB = 64;
        const DIM = 16;

        fn forward(tokens) {
            let table = param("tok_emb.weight", [VOCAB, DIM], normal(0.02));
            let x = gather(table, tokens);
            let h = linear(x, param("fc.weight", [3 * DIM, DIM], orthogonal));
            linear(x + h, table)
        }

        optim { "*" => adamw(lr = 0.01) }
    }
}

fn main() {}
