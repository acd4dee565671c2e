//! The artifact's container: round trips, damage, forgery, determinism, and size against the estimate.

use half::f16;
use pg_ir::lang::budget::{self, Distribution, Storage, TensorFormat};
use pg_ir::quant::{self, Grid, Method, ScaleRule};
use pg_runtime::artifact::{
    self, Artifact, ArtifactError, FORMAT_VERSION, Manifest, Tensor, TensorData, decode, encode,
};
use pg_runtime::export;
use pg_testing::models::{noisy_weights, session};
use proptest::prelude::*;
use rayon::prelude::*;

/// Standard normal values by Box–Muller from a fixed generator.
fn gaussian(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64 + 1e-18
    };
    (0..n)
        .map(|_| ((-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32)
        .collect()
}

fn coded(name: &str, w: &[f32], rows: usize, cols: usize, grid: Grid, method: Method) -> Tensor {
    let (codes, scales) = quant::quantize(w, rows, cols, grid, method);
    Tensor { name: name.into(), shape: vec![rows, cols], data: TensorData::Codes { grid, codes, scales } }
}

fn halves(name: &str, shape: &[usize], values: &[f32]) -> Tensor {
    let values = values.iter().map(|v| f16::from_f32(*v)).collect();
    Tensor { name: name.into(), shape: shape.to_vec(), data: TensorData::F16(values) }
}

fn manifest() -> Manifest {
    Manifest {
        model: "tiny".into(),
        text: "model! { tiny { const LAYERS = 2; } }".into(),
        settings: serde_json::json!({ "set": { "LAYERS": 2 }, "seed": 1337 }),
        hashes: [("stdlib".to_owned(), "00ff".to_owned())].into(),
    }
}

const INT4: Grid = Grid { clip: 7, rule: ScaleRule::Amax };
const INT6: Grid = Grid { clip: 31, rule: ScaleRule::Floored };

fn small() -> Vec<Tensor> {
    vec![
        coded("blocks.0.fc", &gaussian(6 * 16, 1), 6, 16, INT4, Method::Grid),
        coded("blocks.1.fc", &gaussian(6 * 16, 2), 6, 16, INT4, Method::Grid),
        coded("zeros", &[0.0; 24], 3, 8, INT6, Method::Grid),
        halves("scale", &[], &[0.1]),
        halves("empty", &[0, 5], &[]),
        halves("blocks.0.gain", &[2, 4], &gaussian(8, 3)),
    ]
}

fn bytes_of(tensors: &[Tensor]) -> Vec<u8> {
    encode(&manifest(), tensors).unwrap().0
}

fn error(bytes: &[u8]) -> ArtifactError {
    decode(bytes).expect_err("must be refused")
}

#[test]
fn round_trips_through_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pg");
    let sizes = artifact::write(&path, &manifest(), &small()).unwrap();
    let Artifact { manifest: m, tensors, sizes: read_sizes, hash } = artifact::read(&path).unwrap();
    assert_eq!((m, tensors), (manifest(), small()));
    assert_eq!(sizes, read_sizes);
    assert_eq!(sizes.total_bytes, std::fs::metadata(&path).unwrap().len());
    let parts = sizes.manifest_bytes + sizes.streams.iter().map(|s| s.bytes).sum::<u64>();
    assert_eq!(parts, sizes.total_bytes);
    assert_eq!(hash.len(), 64);
    assert_eq!(bytes_of(&small()), std::fs::read(&path).unwrap(), "the same input gives the same bytes");
}

#[test]
fn dequantises_to_the_training_grid() {
    let w = gaussian(4 * 64, 9);
    let t = coded("w", &w, 4, 64, INT4, Method::Grid);
    let mut trained = vec![0.0; 64];
    for (row, read) in w.chunks(64).zip(t.dequantize().chunks(64)) {
        INT4.fake_quantize_row(row, &mut trained);
        for (a, b) in trained.iter().zip(read) {
            assert!((a - b).abs() <= a.abs() / 2048.0, "{a} {b}");
        }
    }
}

#[test]
fn every_flipped_bit_is_found() {
    let toy = session("tiny.rs", &["LAYERS=1", "DIM=16", "HEADS=1", "KV_HEADS=1", "VOCAB=256"]);
    let toy = export::quantise(&toy.model, &noisy_weights(&toy, 5)).unwrap();
    for good in [bytes_of(&small()), bytes_of(&toy)] {
        (0..8 * good.len()).into_par_iter().for_each_with(good, |bad, bit| {
            let (i, mask) = (bit / 8, 1 << (bit % 8));
            bad[i] ^= mask;
            // The message is the header field's own where the flip hits one, else the hash's.
            let e = error(bad);
            let expected = match i {
                0..8 => matches!(e, ArtifactError::NotAnArtifact),
                8..12 => matches!(e, ArtifactError::Version { .. }),
                16..24 => matches!(e, ArtifactError::Truncated { .. } | ArtifactError::TrailingBytes { .. }),
                _ => matches!(e, ArtifactError::Damaged),
            };
            assert!(expected, "byte {i} bit {}: {e}", bit % 8);
            bad[i] ^= mask;
        });
    }
}

#[test]
fn truncated_and_extended_files_are_found() {
    let good = bytes_of(&small());
    for n in 1..good.len() {
        assert!(matches!(error(&good[..n]), ArtifactError::Truncated { .. }), "{n}");
    }
    assert!(matches!(error(&[]), ArtifactError::NotAnArtifact));
    let long = [&good[..], b"x"].concat();
    assert!(matches!(error(&long), ArtifactError::TrailingBytes { .. }));
}

#[test]
fn messages_name_the_file_and_the_cure() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pg");
    let mut bytes = bytes_of(&small());
    bytes[8..12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let message = artifact::read(&path).unwrap_err().to_string();
    assert!(
        message.contains("model.pg") && message.contains("version 2") && message.contains("export it again")
    );
    assert!(artifact::read(&folder.path().join("none.pg")).unwrap_err().to_string().contains("none.pg"));
}

/// Rewrites the hash, so that what lies behind it is reached.
fn forge(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bytes[..28]).update(&bytes[60..]);
    let hash = hasher.finalize();
    bytes[28..60].copy_from_slice(hash.as_bytes());
    bytes
}

/// An artifact with the given manifest JSON and streams, its lengths and hash right.
fn forge_manifest(json: &serde_json::Value, streams: &[u8]) -> Vec<u8> {
    let json = json.to_string();
    let mut packed = Vec::new();
    brotli::BrotliCompress(&mut json.as_bytes(), &mut packed, &Default::default()).unwrap();
    let mut bytes = bytes_of(&[])[..60].to_vec();
    bytes[12..16].copy_from_slice(&(packed.len() as u32).to_le_bytes());
    bytes[16..24].copy_from_slice(&((60 + packed.len() + streams.len()) as u64).to_le_bytes());
    bytes[24..28].copy_from_slice(&(json.len() as u32).to_le_bytes());
    bytes.extend(packed);
    bytes.extend(streams);
    forge(bytes)
}

#[test]
fn forged_bytes_do_not_panic() {
    let good = bytes_of(&small());
    for i in (8..28).chain(60..good.len()) {
        for value in [0x00, 0x7f, 0xff, good[i] ^ 1] {
            let mut bad = good.clone();
            bad[i] = value;
            // Some forgeries are artifacts (a changed low bit of a value); none may panic or allocate wildly.
            if let Ok(read) = decode(&forge(bad)) {
                read.tensors.iter().for_each(|t| t.check().unwrap());
            }
        }
    }
}

#[test]
fn hostile_tables_are_refused_before_allocating() {
    let table = |tensors: serde_json::Value, streams: serde_json::Value| {
        let empty = serde_json::json!({ "model": "", "text": "", "settings": null, "hashes": {} });
        serde_json::json!({ "manifest": empty, "tensors": tensors, "streams": streams })
    };
    use serde_json::json;
    let huge = u64::MAX;
    let int8 = "int(clip=127, rule=amax)";
    let cases = [
        table(json!([["a", [huge, huge], null]]), json!([])),
        table(json!([["a", [0, huge], null]]), json!([["packed", 0], ["packed", 0]])),
        table(json!([["a", [huge, 0], int8]]), json!([["packed", 0], ["packed", 0], ["packed", 0]])),
        table(json!([["a", [1 << 28], null], ["b", [1 << 28], null]]), json!([])),
        table(json!([["a", [4], "int(clip=200, rule=amax)"]]), json!([])),
        table(json!([["a", [4], "float"]]), json!([])),
        table(json!([["a", [4], null], ["a", [4], null]]), json!([["packed", 8], ["packed", 8]])),
        table(json!([["a", [4], null]]), json!([["packed", 4]])),
        table(json!([["a", [4], null]]), json!([["packed", 4], ["packed", huge]])),
        table(json!([["a", [4], null]]), json!([["packed", 4], ["packed", 3]])),
        table(json!([["a", [4], null]]), json!([["zip", 4], ["packed", 4]])),
        table(json!([["a", [1], null]]), json!([["constant", 1], ["constant", 1]])),
        table(json!([["a", [2], int8]]), json!([["ans-columns", 4], ["packed", 1], ["packed", 1]])),
        json!({ "tensors": [] }),
        json!([1]),
    ];
    for (i, case) in cases.iter().enumerate() {
        let e = error(&forge_manifest(case, &[0x7c; 8]));
        assert!(matches!(e, ArtifactError::Malformed(_) | ArtifactError::Tensor { .. }), "{i}: {e}");
    }
    // The forger itself is right: the same with honest lengths is read.
    let honest = table(json!([["a", [4], null]]), json!([["packed", 4], ["packed", 4]]));
    assert!(matches!(error(&forge_manifest(&honest, &[0x7c; 8])), ArtifactError::Tensor { .. }), "NaN");
    assert_eq!(decode(&forge_manifest(&honest, &[0x3c; 8])).unwrap().tensors.len(), 1);
}

#[test]
fn inconsistent_tensors_are_not_written() {
    let name_twice = vec![halves("a", &[1], &[1.0]), halves("a", &[1], &[1.0])];
    let short = vec![halves("a", &[3], &[1.0])];
    let infinite = vec![halves("a", &[1], &[1e6])];
    let off_grid = vec![Tensor {
        name: "a".into(),
        shape: vec![1, 1],
        data: TensorData::Codes { grid: INT4, codes: vec![8], scales: vec![f16::ONE] },
    }];
    for bad in [name_twice, short, infinite, off_grid] {
        let e = encode(&manifest(), &bad).unwrap_err();
        assert!(matches!(e, ArtifactError::Tensor { .. }), "{e}");
        assert!(e.to_string().contains("`a`"));
    }
}

#[test]
fn weights_that_cannot_be_stored_are_refused() {
    let grid = |clip| Grid { clip, rule: ScaleRule::Amax };
    for bad in [
        Tensor::quantized("a", &[1, 2], &[1.0, f32::NAN], INT4, Method::Grid),
        Tensor::quantized("a", &[1, 3], &[1.0, 2.0], INT4, Method::Grid),
        Tensor::quantized("a", &[1, 1], &[1.0], grid(0), Method::Grid),
        Tensor::quantized("a", &[1, 1], &[1.0], grid(128), Method::Grid),
        Tensor::quantized("a", &[usize::MAX, 2], &[], INT4, Method::Grid),
        Tensor::half("a", &[1], &[1e6]),
        Tensor::half("a", &[], &[]),
    ] {
        assert!(bad.unwrap_err().to_string().contains("`a`"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn any_tensors_round_trip(
        shapes in prop::collection::vec((0usize..9, 0usize..40, 0u16..128, any::<u64>()), 0..6),
    ) {
        let tensors: Vec<Tensor> = shapes
            .iter()
            .enumerate()
            .map(|(i, &(rows, cols, clip, seed))| {
                let w = gaussian(rows * cols, seed);
                let name = format!("t{i}.w");
                match Grid::new(clip.into(), ScaleRule::Amax) {
                    Ok(grid) => coded(&name, &w, rows, cols, grid, Method::ALL[i % Method::ALL.len()]),
                    Err(_) => halves(&name, &[rows, cols], &w),
                }
            })
            .collect();
        prop_assert_eq!(decode(&bytes_of(&tensors)).unwrap().tensors, tensors);
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&bytes).is_err());
        let mut behind_a_header = bytes_of(&[])[..60].to_vec();
        behind_a_header.extend(&bytes);
        let length = behind_a_header.len() as u64;
        behind_a_header[16..24].copy_from_slice(&length.to_le_bytes());
        behind_a_header[12..16].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        prop_assert!(decode(&forge(behind_a_header)).is_err());
    }
}

/// One tensor list in both forms: what is written, and what the estimate is told.
struct Sized {
    tensors: Vec<Tensor>,
    formats: Vec<TensorFormat>,
    seed: u64,
}

impl Sized {
    fn add(&mut self, name: String, rows: usize, cols: usize, store: Option<(Grid, Method)>, std: f32) {
        self.seed += 1;
        let mut w = gaussian(rows * cols, self.seed);
        w.iter_mut().for_each(|x| *x *= std);
        let shape = [rows, cols];
        let (tensor, storage) = match store {
            Some((grid, method)) => {
                (Tensor::quantized(&name, &shape, &w, grid, method), Storage::Int { grid, method })
            }
            None => (Tensor::half(&name, &shape, &w), Storage::F16),
        };
        let tensor = tensor.unwrap();
        let distribution = match std {
            0.0 => Distribution::Constant,
            std => Distribution::Gaussian { std: Some(std.into()) },
        };
        self.tensors.push(tensor);
        self.formats.push(TensorFormat { name, rows, cols, storage, distribution });
    }

    fn check(&self, what: &str) {
        let text = include_str!("artifact.rs");
        let manifest = Manifest { text: text.into(), ..manifest() };
        let (bytes, sizes) = encode(&manifest, &self.tensors).unwrap();
        let p = budget::predict(&self.formats, text.len()).unwrap();
        assert_eq!(p.raw_bytes, sizes.raw_bytes, "{what}");
        let error = p.estimate_bytes as f64 / bytes.len() as f64 - 1.0;
        println!("{what}: {} bytes, estimate {} ({:+.2} %)", bytes.len(), p.estimate_bytes, 100.0 * error);
        println!("  manifest {} of {:.0}", sizes.manifest_bytes, p.overhead_bytes);
        println!("  codes {:.0}, scales {:.0}, f16 {:.0}", p.code_bytes, p.scale_bytes, p.f16_bytes);
        for s in &sizes.streams {
            println!("  {:32} {:12} {:14} {:9} {:9}", s.role, s.part, s.codec.name(), s.values, s.bytes);
        }
        assert!(error.abs() < 0.03, "{what}: {:+.2} %", 100.0 * error);
        assert_eq!(decode(&bytes).unwrap().tensors, self.tensors, "{what}");
    }
}

/// int4mlp_12l's tensors at another width, initialised or trained.
fn int4mlp(dim: usize, layers: usize, trained: bool, rule: ScaleRule, method: Method) -> Sized {
    let mut all = Sized { tensors: Vec::new(), formats: Vec::new(), seed: 0 };
    let grid = |clip| Some((Grid { clip, rule }, method));
    let table = Some((Grid { clip: 127, rule: ScaleRule::Amax }, Method::Table));
    let later = |std: f32| if trained { std } else { 0.0 };
    let (kv, hidden, small) = (dim / 2, 3 * dim, 128.min(dim));
    all.add("tok_emb.weight".into(), 1024, dim, table, 0.005);
    all.add("bigram.embed.weight".into(), 2048, small, table, later(0.02));
    all.add("ve_shared.embed.weight".into(), 1024, small, table, 0.01);
    all.add("bigram.proj.weight".into(), dim, small, None, 0.05);
    all.add("ve_shared.proj.weight".into(), kv, small, None, 0.05);
    all.add("skip_weights".into(), layers / 2, dim, None, later(0.2));
    all.add("smear.gate".into(), 1, dim, None, later(0.2));
    for i in 0..layers {
        let name = |n: &str| format!("blocks.{i}.{n}");
        let std = 1.0 / (dim as f32).sqrt();
        all.add(name("attn.c_q.weight"), dim, dim, grid(31), std);
        all.add(name("attn.c_k.weight"), kv, dim, grid(31), std);
        all.add(name("attn.c_v.weight"), kv, dim, grid(31), std);
        all.add(name("attn.proj.weight"), dim, dim, grid(31), later(std));
        all.add(name("mlp.fc.weight"), hidden, dim, grid(7), std);
        all.add(name("mlp.proj.weight"), dim, hidden, grid(7), later(0.03));
        all.add(name("attn.q_gain"), 1, dim / 64, None, later(0.2));
        all.add(name("attn_scale"), 1, dim, None, later(0.2));
        all.add(name("mlp_scale"), 1, dim, None, later(0.2));
        all.add(name("resid_mix"), 2, dim, None, later(0.2));
    }
    all
}

// One test each, so that they run side by side.

#[test]
fn estimate_holds_at_initialisation() {
    int4mlp(128, 12, false, ScaleRule::Amax, Method::Grid).check("width 128, initial");
}

#[test]
fn estimate_holds_after_training() {
    int4mlp(128, 12, true, ScaleRule::Amax, Method::Grid).check("width 128, trained");
}

#[test]
fn estimate_holds_at_another_width() {
    int4mlp(256, 2, true, ScaleRule::Amax, Method::Grid).check("width 256, trained");
}

#[test]
fn estimate_holds_on_a_floored_grid() {
    let method = Method::GptqLite(quant::Granularity::Matrix);
    int4mlp(128, 4, true, ScaleRule::Floored, method).check("floored, searched");
}

#[test]
fn estimate_holds_with_a_clip_search() {
    let method = Method::GptqLite(quant::Granularity::Row);
    int4mlp(128, 4, true, ScaleRule::Amax, method).check("amax, searched");
}

/// The whole of int4mlp_12l: half a minute, so by request (`cargo test --release -- --ignored`).
#[test]
#[ignore = "codes 29 million values"]
fn full_size_estimate_is_within_three_percent() {
    for trained in [false, true] {
        int4mlp(512, 12, trained, ScaleRule::Amax, Method::Grid).check(&format!("int4mlp_12l {trained}"));
    }
}
