//! A fused region as a kernel.

use std::hash::{DefaultHasher, Hash};

use super::family::{Family, Param, ParamType};
use crate::region::{Affine, IndexMap, Instr, Region};

impl Family for Region {
    fn name(&self) -> &'static str {
        "region"
    }

    fn params(&self) -> Vec<Param> {
        let mut params: Vec<Param> = (self.args.iter())
            .map(|&dtype| Param { is_read: false, ..Param::read(ParamType::Of(dtype)) })
            .collect();
        for instr in &self.body {
            let Some(param) = instr.arg().and_then(|arg| params.get_mut(arg as usize)) else { continue };
            *if instr.is_store() { &mut param.is_written } else { &mut param.is_read } = true;
        }
        params
    }

    fn shape(&self) -> String {
        let (kept, reduced) = self.rows.split_at(self.rows.len() - self.reduced);
        let product = |sizes: &[usize]| sizes.iter().product::<usize>();
        let over = if reduced.is_empty() { String::new() } else { format!(" Σ {}", product(reduced)) };
        format!("{} × {}{over}", product(kept), self.columns)
    }

    fn structure(&self, to: &mut DefaultHasher) {
        let sizes: Vec<bool> = self.rows.iter().map(|&size| size > 1).collect();
        (sizes, self.reduced, self.columns > 1, &self.args).hash(to);
        self.body.iter().for_each(|instr| instruction(instr, to));
    }
}

/// Constants are left out: the mean of a loss divides by the number of tokens.
fn instruction(instr: &Instr, to: &mut DefaultHasher) {
    std::mem::discriminant(instr).hash(to);
    match instr {
        Instr::Load { arg, map } => (arg, walked(map)).hash(to),
        Instr::Gather { arg, row, stride, map, .. } => (arg, row, *stride == 0, walked(map)).hash(to),
        Instr::Const(_) | Instr::ConstInt(_) => {}
        Instr::Index(at) => steps(at).hash(to),
        Instr::Unary(f, a) => (f, a).hash(to),
        Instr::Binary(f, a, b) => (f, a, b).hash(to),
        Instr::Select(c, a, b) => (c, a, b).hash(to),
        Instr::Cast(dtype, a) => (dtype, a).hash(to),
        Instr::RowReduce(kind, a) => (kind, a).hash(to),
        Instr::Permute(perm, a) => (perm, a).hash(to),
        Instr::FakeQuant(grid, a) => (grid, a).hash(to),
        Instr::Store { arg, value, at } => (arg, value, steps(at)).hash(to),
        Instr::Accumulate { arg, value, kind, at } => (arg, value, kind, steps(at)).hash(to),
    }
}

/// For each axis whether the index stands still, goes to the next element, or elsewhere.
fn steps(at: &Affine) -> Vec<i64> {
    at.strides.iter().map(|&s| s.clamp(-2, 2)).collect()
}

fn walked(map: &IndexMap) -> (Vec<i64>, Vec<Vec<i64>>) {
    (steps(&map.at), map.guards.iter().map(|g| steps(&g.expr)).collect())
}
