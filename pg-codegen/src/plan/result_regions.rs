//! The regions that take a product's results: that of a product by itself, and those of one whose k is split, before
//! and after its parts are summed in order.

use pg_ir::op::Binary;
use pg_ir::ty::DType;

use super::Matmul;
use crate::region::{Affine, IndexMap, Instr, Region};

fn load(arg: u32, at: Affine) -> Instr {
    Instr::Load { arg, map: IndexMap { at, guards: vec![] } }
}

/// The region of a product by itself: c = result, after c's old value if it is kept. Arguments: result, c.
pub fn result(m: &Matmul, dtype: DType) -> Region {
    let rows = vec![m.batch, m.m];
    let strides = [m.c.batch, m.c.row, m.c.col].map(|s| s as i64);
    let c = Affine { offset: m.c.offset as i64, strides: strides.into_iter().collect() };
    let mut body = vec![load(0, Affine::row_major(&rows, m.n, 0))];
    if m.accumulate {
        body.extend([load(1, c.clone()), Instr::Binary(Binary::Add, 1, 0)]);
    }
    body.push(Instr::Store { arg: 1, value: body.len() as u32 - 1, at: c });
    // What is added to is not rounded before.
    let tile = if m.accumulate { DType::F32 } else { dtype };
    Region { rows, reduced: 0, columns: m.n, body, args: vec![tile, dtype] }
}

/// The region of one part of a split product: parts of all matrices lie one after the other.
pub fn partial(m: &Matmul, parts: usize) -> Region {
    let rows = vec![parts * m.batch, m.m];
    let at = Affine::row_major(&rows, m.n, 0);
    let body = vec![load(0, at.clone()), Instr::Store { arg: 1, value: 0, at }];
    Region { rows, reduced: 0, columns: m.n, body, args: vec![DType::F32; 2] }
}

/// A region whose argument 0 is the sum, in order, of parts that lie one after the other in a workspace.
pub fn on_sum_of_parts(region: &Region, parts: usize) -> Region {
    let part = |i: usize| {
        load(0, Affine::row_major(&region.rows, region.columns, i * region.row_count() * region.columns))
    };
    let mut body = vec![part(0)];
    for i in 1..parts {
        let sum = body.len() as u32 - 1;
        body.extend([part(i), Instr::Binary(Binary::Add, sum, sum + 1)]);
    }
    if region.args[0] == DType::BF16 {
        body.push(Instr::Cast(DType::BF16, body.len() as u32 - 1));
    }
    let sum = body.len() as u32 - 1;
    let mut renamed = Vec::new();
    for instr in &region.body {
        if matches!(instr, Instr::Load { arg: 0, .. }) {
            renamed.push(sum);
            continue;
        }
        let mut instr = instr.clone();
        instr.for_each_operand(|r| *r = renamed[*r as usize]);
        renamed.push(body.len() as u32);
        body.push(instr);
    }
    let args = [DType::F32].into_iter().chain(region.args[1..].iter().copied()).collect();
    Region { body, args, ..region.clone() }
}
