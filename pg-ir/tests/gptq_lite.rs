//! The clip search against the reference implementation's fixture.

use std::path::Path;

use half::f16;
use pg_ir::quant::{self, Granularity, Grid, gptq_lite};
use safetensors::SafeTensors;
use serde_json::Value;

fn values<T: bytemuck::Pod>(file: &SafeTensors<'_>, name: &str) -> Vec<T> {
    bytemuck::pod_collect_to_vec(file.tensor(name).expect(name).data())
}

#[test]
fn matches_the_oracle() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/gptq_lite");
    let case: Value = serde_json::from_slice(&std::fs::read(dir.join("case.json")).unwrap()).unwrap();
    let bytes = std::fs::read(dir.join("tensors.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tolerance = case["tolerance"]["mse"].as_f64().unwrap();

    let entries = case["entries"].as_array().unwrap();
    assert!(!entries.is_empty());
    for entry in entries {
        let key = entry["key"].as_str().unwrap();
        let name = format!("w.{}", entry["matrix"]);
        let shape = file.tensor(&name).unwrap().shape().to_vec();
        let (rows, cols) = (shape[0], shape[1]);
        let w: Vec<f32> = values(&file, &name);
        let rule = entry["rule"].as_str().unwrap().parse().unwrap();
        let grid = Grid::new(entry["clip"].as_u64().unwrap() as u32, rule).unwrap();
        let granularity =
            if entry["per_row"].as_bool().unwrap() { Granularity::Row } else { Granularity::Matrix };

        let (codes, scales) = gptq_lite(&w, rows, cols, grid, granularity);
        let scale_bits: Vec<u16> = values(&file, &format!("scale.{key}"));
        let want_scales: Vec<f16> = scale_bits.into_iter().map(f16::from_bits).collect();
        assert_eq!(scales, want_scales, "{key}: scales");
        let want_codes: Vec<i8> = values(&file, &format!("q.{key}"));
        assert_eq!(codes, want_codes, "{key}: codes");

        let read = quant::dequantize(&codes, &scales, cols);
        let mse =
            w.iter().zip(&read).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / (rows * cols) as f64;
        let want = entry["mse"].as_f64().unwrap();
        assert!((mse - want).abs() <= tolerance * want, "{key}: mse {mse}, expected {want}");
    }
}
