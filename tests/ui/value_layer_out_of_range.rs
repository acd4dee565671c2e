pg_macros::model! {
    value_layer_out_of_range {
        const VOCAB = 64;
        const DIM = 16;
        const LAYERS = 2;
        const VE_LAYERS = [1, 2];

        fn forward(tokens) {
            let table = param("tok_emb.weight", [VOCAB, DIM], normal(0.02));
            for layer in VE_LAYERS {
                assert(layer < LAYERS, "VE_LAYERS names layer {layer} of {LAYERS}");
            }
            linear(gather(table, tokens), table)
        }

        optim { "*" => adamw(lr = 0.01) }
    }
}

fn main() {}
