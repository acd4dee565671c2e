//! Sums of rows by id, and copies.

use pg_codegen::plan::Kernel;

use super::{Arg, close, device, noise, run};

#[test]
fn rows_are_summed_by_id() {
    let Some(device) = device() else { return };
    for (rows, width, count) in
        [(1, 1, 1), (5, 3, 17), (64, 8, 300), (7, 12, 1000), (1000, 4, 5), (3, 4, 5000), (3000, 2, 2100)]
    {
        // Some rows often, some never.
        let ids: Vec<i32> = (0..count as i32).map(|i| (i * i * 31 + i) % rows as i32).collect();
        let values = noise(count * width, 1);
        let mut want = vec![0.0f64; rows * width];
        for (i, &id) in ids.iter().enumerate() {
            for j in 0..width {
                want[id as usize * width + j] += f64::from(values[i * width + j]);
            }
        }
        let args = [Arg::Ints(ids), Arg::Floats(values), Arg::Out(rows * width)];
        let have = run(&device, &Kernel::ScatterAdd { rows, width, count }, &args);
        close(&format!("{rows} × {width} from {count}"), &have[0], &want, 1e-6);
    }
}

#[test]
fn copies_copy() {
    let Some(device) = device() else { return };
    for len in [1, 7, 256, 1003] {
        let x = noise(len, 1);
        let have = run(&device, &Kernel::Copy { len }, &[Arg::Floats(x.clone()), Arg::Out(len)]);
        assert_eq!(have[0], x);
    }
}
