//! The reference, and what rounding does to it: the same interpretation with every computed value a little off.
//!
//! How much a program amplifies rounding is a property of its mathematics. Changing each value of the graph by a random
//! amount of a rounding's size, and running the reference again, shows it without any device, for every op, whatever
//! cancels later (Monte Carlo arithmetic). Values behind a rounding to bfloat16 then round the other way now and then, as
//! they do on a device.

use std::hash::{DefaultHasher, Hash, Hasher};

use pg_ir::graph::{Graph, ValueId};
use pg_ir::interp::{Environment, InterpError, Visit, run_with};
use pg_ir::op::{Binary, Op, Reduction};
use pg_ir::ty::DType;

use super::product::product;

/// Relative change of a value: two units in float32's last place, for exponentials and the like are off by as much.
const ROUNDING: f64 = 4.0 / (1u64 << 24) as f64;

/// Runs the reference in float64.
pub(super) fn exact(graph: &Graph, env: &Environment) -> Result<Environment, InterpError> {
    run_with(graph, env, Some(product), &mut |_, _| {})
}

/// [`exact`], showing each value.
pub(super) fn watched(
    graph: &Graph,
    env: &Environment,
    visit: &mut Visit<'_>,
) -> Result<Environment, InterpError> {
    run_with(graph, env, Some(product), visit)
}

/// Runs the reference with noise of so many roundings in every value that is computed. `visit` sees what is computed on.
pub(super) fn noisy(
    graph: &Graph,
    env: &Environment,
    (seed, roundings): (u64, f64),
    visit: &mut dyn FnMut(ValueId, &[f64]),
) -> Result<Environment, InterpError> {
    let mut noise = Noise(seed);
    run_with(graph, env, Some(product), &mut |value, tensor| {
        if is_rounded(graph, value) {
            for x in tensor.to_mut() {
                *x *= 1.0 + roundings * ROUNDING * noise.next();
            }
        }
        visit(value, tensor);
    })
}

/// Whether a device rounds on the way to a value: what is given, moved, chosen, converted or put on a
/// grid is as it is.
fn is_rounded(graph: &Graph, value: ValueId) -> bool {
    let op = &graph.producer(value).op;
    let is_exact = op.is_view()
        || matches!(
            op,
            Op::Input(..)
                | Op::Const(..)
                | Op::Iota(_)
                | Op::Cast(_)
                | Op::StopGradient
                | Op::FakeQuant(_)
                | Op::Select
                | Op::Binary(Binary::Max)
                | Op::Reduce(Reduction::Max, _)
                | Op::Permute(_)
                | Op::Gather
        );
    !is_exact && graph.ty(value).dtype == DType::F32
}

/// A digest of every decision that a graph makes: of its comparisons and integers. Two runs with the same digest went
/// the same way; where rounding changes it, some element lies on an edge.
pub(super) fn decisions(graph: &Graph, env: &Environment, noise: (u64, f64)) -> Result<u64, InterpError> {
    let mut hasher = DefaultHasher::new();
    noisy(graph, env, noise, &mut |value, tensor| {
        let is_discrete = matches!(graph.ty(value).dtype, DType::Bool | DType::I32);
        if is_discrete && !matches!(graph.producer(value).op, Op::Input(..)) {
            tensor.iter().for_each(|x| x.to_bits().hash(&mut hasher));
        }
    })?;
    Ok(hasher.finish())
}

/// SplitMix64, uniform in −1 … 1: fast, and good enough for noise.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use pg_ir::graph::Builder;
    use pg_ir::slot::{Slot, Space};
    use pg_ir::ty::Type;

    use super::*;

    /// (x + 1) − 1 loses x's last digits, and x > y says which is larger.
    fn graph() -> (Graph, Slot) {
        let mut b = Builder::default();
        let ty = Type::channels(&[64]);
        let x = b.input(Slot::new(Space::Param, "x"), ty.clone());
        let y = b.input(Slot::new(Space::Param, "y"), ty);
        let one = b.constant_like(1.0, x);
        let more = b.add(x, one);
        let back = b.sub(more, one);
        let larger = b.binary(Binary::Gt, back, y);
        let chosen = b.op(Op::Select, &[larger, back, y]);
        let out = Slot::new(Space::Result, "z");
        b.output(out.clone(), chosen);
        (b.finish(), out)
    }

    fn env(x: f64, y: f64) -> Environment {
        let slot = |name| Slot::new(Space::Param, name);
        Environment::from([(slot("x"), vec![x; 64]), (slot("y"), vec![y; 64])])
    }

    #[test]
    fn noise_is_what_rounding_does() {
        let (graph, out) = graph();
        let env = env(1e-3, 0.0);
        let want = exact(&graph, &env).unwrap();
        let moved = noisy(&graph, &env, (1, 1.0), &mut |_, _| {}).unwrap();
        let error = moved[&out].iter().zip(&want[&out]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        // Of 1, not of 1e-3.
        assert!(error > 0.25 * ROUNDING && error < 2.0 * ROUNDING, "{error}");
        assert_eq!(moved, noisy(&graph, &env, (1, 1.0), &mut |_, _| {}).unwrap());
        assert_ne!(moved, noisy(&graph, &env, (2, 1.0), &mut |_, _| {}).unwrap());
    }

    #[test]
    fn decisions_on_an_edge_show() {
        let (graph, _) = graph();
        let digest = |env: &Environment, seed| decisions(&graph, env, (seed, 1.0)).unwrap();
        let clear = env(1e-3, 0.0);
        assert_eq!(digest(&clear, 1), digest(&clear, 2));
        let edge = env(1e-3, 1e-3);
        assert_ne!(digest(&edge, 1), digest(&edge, 2));
    }
}
