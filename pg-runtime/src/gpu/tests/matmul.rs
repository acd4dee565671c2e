//! Matrix products: layouts, batches, odd sizes.

use pg_codegen::plan::{Contraction, Kernel, Matmul, MatrixView, Side};

use super::{Arg, close, device, noise, run};

fn view(rows: usize, cols: usize, transposed: bool, offset: usize) -> MatrixView {
    let (row, col) = if transposed { (1, rows) } else { (cols, 1) };
    MatrixView { offset, batch: rows * cols, row, col }
}

#[test]
fn products_in_every_layout() {
    let Some(device) = device() else { return };
    let sizes =
        [(1, 1, 1, 1), (2, 3, 5, 7), (1, 64, 64, 16), (3, 65, 33, 20), (1, 17, 130, 129), (2, 128, 8, 64)];
    for (batch, m, n, k) in sizes {
        for layout in 0..8 {
            let (ta, tb, accumulate) = (layout & 1 != 0, layout & 2 != 0, layout & 4 != 0);
            let offset = if layout == 3 { 1 } else { 0 };
            let (a, b) = (view(m, k, ta, offset), view(k, n, tb, 0));
            let c = view(m, n, false, 0);
            let shape = Matmul { batch, m, n, k, a, b, c, accumulate, symmetric: false };
            let (x, y) = (noise(batch * m * k + offset, 1), noise(batch * k * n, 2));
            let old = noise(batch * m * n, 3);
            let mut want = vec![0.0f64; batch * m * n];
            for i in 0..batch {
                for r in 0..m {
                    for s in 0..n {
                        let term = |d: usize| {
                            let a_at = a.offset + i * a.batch + r * a.row + d * a.col;
                            let b_at = i * b.batch + d * b.row + s * b.col;
                            f64::from(x[a_at]) * f64::from(y[b_at])
                        };
                        let at = (i * m + r) * n + s;
                        want[at] = (0..k).map(term).sum::<f64>();
                        want[at] += if accumulate { f64::from(old[at]) } else { 0.0 };
                    }
                }
            }
            let args = [Arg::Floats(x), Arg::Floats(y), Arg::InOut(old, 0)];
            let have = run(&device, &Kernel::from(shape), &args);
            close(&format!("{batch} × {m} × {n} × {k}, layout {layout}"), &have[0], &want, 2e-6);
        }
    }
}

/// Without tensor cores, products that share an operand are launches of their own.
#[test]
fn products_of_one_operand_are_what_they_are_alone() {
    let Some(device) = device() else { return };
    for shared in [Side::Left, Side::Right] {
        let (same, k) = (33, 20);
        let mut args = vec![Arg::Floats(noise(same * k, 1))];
        let mut members = Vec::new();
        for (seed, own, accumulate) in [(2, 64, false), (3, 5, true)] {
            let (m, n) = if shared == Side::Left { (same, own) } else { (own, same) };
            let (a, b, c) = (view(m, k, false, 0), view(k, n, false, 0), view(m, n, false, 0));
            members.push(Matmul { batch: 1, m, n, k, a, b, c, accumulate, symmetric: false }.into());
            args.extend([Arg::Floats(noise(own * k, seed)), Arg::InOut(noise(m * n, 4), 0)]);
        }
        let all = Contraction { shared: Some(shared), members };
        let have = run(&device, &Kernel::Contraction(all.clone()), &args);
        for (i, m) in all.members.iter().enumerate() {
            let own: Vec<Arg> = all.args(i).into_iter().map(|at| args[at].clone()).collect();
            assert_eq!(
                have[i],
                run(
                    &device,
                    &Kernel::Contraction(Contraction { shared: None, members: vec![m.clone()] }),
                    &own
                )[0]
            );
        }
    }
}
