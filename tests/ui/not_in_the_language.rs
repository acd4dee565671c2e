pg_macros::model! {
    not_in_the_language {
        const VOCAB = 64;

        fn forward(tokens) {
            let i = 0;
            while i < 3 {}
            match VOCAB { _ => 1 };
            return 3;
        }

        optim { "*" => adamw(lr = 0.01) }
    }
}

fn main() {}
