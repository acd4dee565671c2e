pg_macros::model! {
    two_errors {
        const VOCAB = 64;

        fn forward(tokens) {
            let x = gather(param("a", [VOCAB, 16], normal(0.02)), tokens);
            let y = if x { x } else { x };
            let z = x.squrae();
            linear(x, param("a", [VOCAB, 16], zeros))
        }

        optim { "*" => adam(lr = 0.01) }
    }
}

fn main() {}
