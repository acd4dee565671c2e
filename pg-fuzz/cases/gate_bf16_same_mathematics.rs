//! The same as `gate_bf16.rs` with its gate written as a sum, which was right.
//! expect: agrees

pg_macros::model! { m {
  const DIM = 16; const HEADS = 2; const VOCAB = 1024; const LAYERS = 2;
  fn forward(tokens) {
    let table = param("tok_emb.weight", [VOCAB, DIM], normal(0.02));
    let x0 = rms_norm(gather(table, tokens));
    let mut x = x0;
    for i in 0..LAYERS { scope("blocks.{i}") { x = block(x, x0); } }
    tied_logits(x, table, 30.0)
  }
  fn block(x, x0) {
    let x = residual_mix(x, x0);
    let x = x + gain(x, "attn_scale") * scope("attn") { attn(rms_norm(x)) };
    x + gain(x, "mlp_scale") * scope("mlp") { mlp(rms_norm(x)) }
  }
  fn attn(x) { attention(x, HEADS, 1, rope_dims = 4) }
  fn mlp(x) { let h = project(x, "fc", 24); let h = h * sum(h * reshape(param("g1", [1, 24], normal(0.1)), [24]), -1); project(leaky(h), "proj", DIM, zeros) }
  fn leaky(h) { let a = max(h, h * 0.5); a * a }
  quant { "blocks.*.{attn,mlp}.*.weight" => int(clip = 7), }
  optim { "*" => adamw(lr = 0.02), "blocks.*.{attn,mlp}.*.weight" => muon(lr = 0.02, weight_decay = 0.04), }
  train { batch_tokens = 64; micro_batch_tokens = 32; seq_len = 16; steps = 2; }
  eval { seq_len = 16; stride = 8; max_targets = 64; ttt { chunk = 32; lr = 0.002; epochs = 1; batch_seqs = 1; } }
} }