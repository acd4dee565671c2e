pg_macros::model! {
    heads_do_not_divide {
        const VOCAB = 64;
        const DIM = 16;
        const HEADS = 6;
        const HEAD_DIM = DIM / HEADS;

        fn forward(tokens) {
            let table = param("tok_emb.weight", [VOCAB, DIM], normal(0.02));
            let x = attention(gather(table, tokens), HEADS, HEADS, HEAD_DIM);
            linear(x, table)
        }

        optim { "*" => adamw(lr = 0.01) }
    }
}

fn main() {}
