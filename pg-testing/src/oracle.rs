//! Where the reference implementation keeps parameters: matrices of one shape stacked in banks (its `qo_bank`, `kv_bank`, `mlp_up_bank`, `mlp_down_bank`).

/// The oracle's tensor that holds a parameter, and the parameter's index in it.
pub fn place(name: &str, layers: usize) -> (String, usize) {
    let parts: Vec<&str> = name.split('.').collect();
    let ["blocks", layer, module, matrix, "weight"] = parts[..] else { return (name.into(), 0) };
    let layer: usize = layer.parse().unwrap();
    let (bank, index) = match (module, matrix) {
        ("attn", "c_q") => ("qo_bank", layer),
        ("attn", "proj") => ("qo_bank", layers + layer),
        ("attn", "c_k") => ("kv_bank", layer),
        ("attn", "c_v") => ("kv_bank", layers + layer),
        ("mlp", "fc") => ("mlp_up_bank", layer),
        ("mlp", "proj") => ("mlp_down_bank", layer),
        _ => panic!("the oracle has no {name}"),
    };
    (bank.into(), index)
}
