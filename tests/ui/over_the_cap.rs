pg_macros::model! {
    over_the_cap {
        const VOCAB = 65_536;

        fn forward(tokens) {
            let table = param("tok_emb.weight", [VOCAB, 512], normal(0.02));
            linear(gather(table, tokens), table)
        }

        optim { "*" => adamw(lr = 0.01) }

        export { cap_bytes = 16_000_000; }
    }
}

fn main() {}
