pg_macros::model! {
    glob_matches_nothing {
        const VOCAB = 64;

        fn forward(tokens) {
            let table = param("tok_emb.weight", [VOCAB, 16], normal(0.02));
            scope("blocks.0.mlp") { linear(relu_squared_mlp(gather(table, tokens), 48), table) }
        }

        quant { "blocks.*.mpl.*" => int(clip = 7) }

        optim { "*" => adamw(lr = 0.01) }
    }
}

fn main() {}
