pg_macros::model! {
    kv_heads_do_not_divide {
        const VOCAB = 64;
        const DIM = 24;
        const HEADS = 4;
        const KV_HEADS = 3;

        fn forward(tokens) {
            let table = param("tok_emb.weight", [VOCAB, DIM], normal(0.02));
            let x = attention(gather(table, tokens), HEADS, KV_HEADS, DIM / HEADS);
            linear(x, table)
        }

        optim { "*" => adamw(lr = 0.01) }
    }
}

fn main() {}
