pg_macros::model! {
    unknown_name {
        const VOCAB = 64;

        fn forward(tokens) {
            let table = param("tok_emb.weight", [VOCAB, 16], normal(0.02));
            linear(rms_nrom(gather(tabel, tokens)), table)
        }

        optim { "*" => adamw(lr = 0.01) }
    }
}

fn main() {}
