//! Every index map inside its buffer for all its domain: loads where their guards hold, stores everywhere, gathers for
//! every row of their table, matrices of products from the first element to the last.
//!
//! Executors do not look where they read and write. That a gather's table has as many rows as the graph says is found by
//! [`super::meaning`]. Lengths of attention, scatters and copies are compared with their shapes in [`super::launch`].

use super::access::{products, regions};
use super::range::range;
use super::{Check, Finding, Subject};
use crate::plan::{Launch, Matmul, MatrixView};
use crate::region::{Affine, Guard, IndexMap, Instr};

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    s.each(Check::Bounds, check_launch)
}

fn check_launch(s: Subject<'_>, launch: &Launch) -> Result<(), String> {
    let kernel = s.kernel(launch);
    let products = products(kernel);
    for product in &products {
        let m = product.matmul;
        let len = |at: usize| s.buffer(launch, at).len;
        for (m, [a, b]) in product.segments.iter().zip(product.operands()) {
            matrix("a", m.a, [m.batch, m.m, m.k], len(a))?;
            matrix("b", m.b, [m.batch, m.k, m.n], len(b))?;
        }
        if product.region.is_none() {
            matrix("c", m.c, [m.batch, m.m, m.n], len(product.rest()[0]))?;
        }
    }
    for part in regions(kernel) {
        let sizes = part.region.sizes();
        // A product's result is in no buffer; it is as large as the product.
        let elements = |m: &Matmul| m.batch * m.m * m.n;
        let len = |arg: u32| match (part.args[arg as usize], part.product) {
            (Some(at), _) => s.buffer(launch, at).len,
            (None, Some(product)) => elements(products[product].matmul),
            (None, None) => 0,
        };
        for (i, instr) in part.region.body.iter().enumerate() {
            let (arg, at, guards): (u32, &Affine, &[Guard]) = match instr {
                Instr::Load { arg, map } => (*arg, &map.at, &map.guards),
                Instr::Gather { arg, rows, stride, map, .. } => {
                    let (map, sizes) = (of_each_row(map, *stride), [&sizes[..], &[*rows]].concat());
                    within(&map.at, &map.guards, &sizes, len(*arg)).map_err(|e| described(i, instr, e))?;
                    continue;
                }
                Instr::Store { arg, at, .. } | Instr::Accumulate { arg, at, .. } => (*arg, at, &[]),
                _ => continue,
            };
            within(at, guards, &sizes, len(arg)).map_err(|e| described(i, instr, e))?;
        }
    }
    Ok(())
}

fn within(at: &Affine, guards: &[Guard], sizes: &[usize], len: usize) -> Result<(), String> {
    match range(at, guards, sizes) {
        Some((low, high)) if low < 0 || high >= len as i128 => {
            Err(format!("touches elements {low} to {high} of {len}"))
        }
        _ => Ok(()),
    }
}

/// A gather's map over the region's domain and, as the last axis, the rows of its table.
fn of_each_row(map: &IndexMap, stride: i64) -> IndexMap {
    let with_row = |a: &Affine, stride: i64| {
        let mut a = a.clone();
        a.strides.push(stride);
        a
    };
    let guards = map.guards.iter().map(|g| Guard { expr: with_row(&g.expr, 0), size: g.size });
    IndexMap { at: with_row(&map.at, stride), guards: guards.collect() }
}

fn described(at: usize, instr: &Instr, message: String) -> String {
    format!("instruction {at}, {instr}, {message}")
}

fn matrix(name: &str, view: MatrixView, sizes: [usize; 3], len: usize) -> Result<(), String> {
    let reach = |stride: usize, size: usize| stride as u128 * (size as u128 - 1);
    let [batch, rows, cols] = sizes;
    let last = view.offset as u128 + reach(view.batch, batch) + reach(view.row, rows) + reach(view.col, cols);
    if last >= len as u128 {
        return Err(format!("matrix {name} of {batch} × {rows} × {cols} reaches element {last} of {len}"));
    }
    Ok(())
}
