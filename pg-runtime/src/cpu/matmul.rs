//! Contractions: on AMX where the machine has it, otherwise through the `gemm` crate.

use std::sync::atomic::AtomicBool;

use gemm::Parallelism;
use pg_codegen::plan::{Matmul, MatrixView};
use pg_codegen::region::Affine;
use pg_ir::ty::DType;

use super::amx::{self, Amx};
use super::error::Problem;
use super::kernel::{CpuKernel, Positions};
use super::machine::Machine;
use super::parallel::parallel;
use super::raw::Arg;
use super::region::check::{Touch, check_computed_types, check_touches, injective};
use super::workspace::{Workspace, WorkspaceSize};

/// Products below this many operations run side by side, one to a thread; larger ones use all threads
/// each, unless there are enough of them to go round.
const SMALL: usize = 1 << 26;
const MANY: usize = 16;

/// Rows of a strip of a symmetric result. Of the strip's own square both triangles are computed.
const TRIANGLE: usize = 128;
const SQUARE: usize = 16;

impl CpuKernel for Matmul {
    fn written(&self) -> Positions {
        Positions::from_slice(&[2])
    }

    fn suits_amx(&self, dtypes: &[DType]) -> bool {
        let &[a, b, c] = dtypes else { return false };
        Amx::suits([self.m, self.n, self.k], [a, b, c], [self.c.row, self.c.col])
    }

    fn in_words(&self, _: &[DType], amx: Option<Amx>) -> String {
        format!("a product a thread: {}", is_many(self, amx.is_some()))
    }

    fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        check(self, args)
    }

    fn reserve(&self, args: &[(DType, usize)], amx: Option<Amx>, machine: &mut Machine) {
        if let &[a, b, c] = args {
            machine.workspace.reserve(workspace(self, [a.0, b.0, c.0], amx));
        }
    }

    fn run(&self, args: &[Arg], amx: Option<Amx>, machine: &mut Machine, _: &AtomicBool) {
        run(self, args, &mut machine.workspace, amx);
    }
}

/// Products that are added, one for each segment of k.
#[derive(Debug)]
pub(crate) struct Segments(Vec<Matmul>);

impl Segments {
    /// All but the first add to the result.
    pub(crate) fn new(mut products: Vec<Matmul>) -> Self {
        products.iter_mut().skip(1).for_each(|m| m.accumulate = true);
        Segments(products)
    }

    /// Each product with its arguments.
    fn each<'a, T: Copy>(&'a self, args: &'a [T]) -> impl Iterator<Item = (&'a Matmul, [T; 3])> {
        let (c, pairs) = args.split_last().expect("the result is an argument");
        self.0.iter().zip(pairs.chunks_exact(2)).map(|(m, pair)| (m, [pair[0], pair[1], *c]))
    }
}

impl CpuKernel for Segments {
    fn written(&self) -> Positions {
        Positions::from_slice(&[2 * self.0.len()])
    }

    fn check(&self, args: &[Arg]) -> Result<(), Problem> {
        let (want, have) = (2 * self.0.len() + 1, args.len());
        if want != have {
            return Err(Problem::ArgCount { want, have });
        }
        self.each(args).try_for_each(|(m, args)| check(m, &args))
    }

    fn reserve(&self, args: &[(DType, usize)], _: Option<Amx>, machine: &mut Machine) {
        if args.len() == 2 * self.0.len() + 1 {
            for (m, [a, b, c]) in self.each(args) {
                machine.workspace.reserve(workspace(m, [a.0, b.0, c.0], None));
            }
        }
    }

    fn run(&self, args: &[Arg], _: Option<Amx>, machine: &mut Machine, _: &AtomicBool) {
        self.each(args).for_each(|(m, args)| run(m, &args, &mut machine.workspace, None));
    }
}

/// A matrix in memory: the pointer to its first element and its strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix {
    pub(crate) ptr: *mut u8,
    /// float32 or bfloat16.
    pub(crate) dtype: DType,
    pub(crate) row: usize,
    pub(crate) col: usize,
}

// SAFETY: an address and two strides; whoever uses it promises that it may.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// A matrix in an argument, from an element on.
    pub(crate) fn new(arg: Arg, offset: usize, row: usize, col: usize) -> Self {
        Matrix { ptr: arg.at(offset), dtype: arg.dtype(), row, col }
    }

    /// A row-major matrix in a slice that is only read.
    pub(crate) fn of(slice: &[f32], row: usize) -> Self {
        Matrix { ptr: slice.as_ptr().cast_mut().cast(), dtype: DType::F32, row, col: 1 }
    }

    /// A row-major matrix in a slice that is written.
    pub(crate) fn of_mut(slice: &mut [f32], row: usize) -> Self {
        Matrix { ptr: slice.as_mut_ptr().cast(), dtype: DType::F32, row, col: 1 }
    }

    /// The part that begins at an element.
    pub(crate) fn at(self, row: usize, col: usize) -> Self {
        let offset = (row * self.row + col * self.col) * self.dtype.size();
        Matrix { ptr: self.ptr.wrapping_add(offset), ..self }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Matrix { row: self.col, col: self.row, ..self }
    }
}

/// c [m, n] = a [m, k] · b [k, n], plus the old c if `accumulate`.
///
/// # Safety
/// All elements of the three matrices must be valid float32, and no other thread may write a or b or touch c.
pub(crate) unsafe fn product(
    [m, n, k]: [usize; 3],
    a: Matrix,
    b: Matrix,
    c: Matrix,
    accumulate: bool,
    parallelism: Parallelism,
) {
    let s = |stride: usize| stride as isize;
    // SAFETY: by the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.ptr.cast::<f32>(),
            s(c.col),
            s(c.row),
            accumulate,
            a.ptr.cast::<f32>(),
            s(a.col),
            s(a.row),
            b.ptr.cast::<f32>(),
            s(b.col),
            s(b.row),
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Checks the arguments of a launch.
pub(super) fn check(mm: &Matmul, args: &[Arg]) -> Result<(), Problem> {
    check_computed_types(&[DType::F32; 3], args)?;
    if [mm.batch, mm.m, mm.n, mm.k].contains(&0) {
        return Err(Problem::Shape("a matrix is empty"));
    }
    // Over batch, m, n, k.
    let map = |v: &MatrixView, m, n, k| Affine {
        offset: v.offset as i64,
        strides: [v.batch, m, n, k].map(|s: usize| s as i64).as_slice().into(),
    };
    let touch = |arg, write, at| Touch { arg, write, at, anywhere: false, dynamic: false, shared: true };
    let c = map(&mm.c, mm.c.row, mm.c.col, 0);
    let domain = [mm.batch, mm.m, mm.n, mm.k];
    if !injective(&c, &domain[..3]) {
        return Err(Problem::Shape("elements of the result overlap"));
    }
    if mm.symmetric && (mm.m != mm.n || mm.accumulate || mm.c.col != 1) {
        return Err(Problem::Shape("a symmetric result is square, row-major, and replaces the old one"));
    }
    let touches = [
        touch(0, false, map(&mm.a, mm.a.row, 0, mm.a.col)),
        touch(1, false, map(&mm.b, 0, mm.b.col, mm.b.row)),
        touch(2, true, c),
    ];
    check_touches(&touches, &domain, args)
}

/// Scratch memory of a launch, on AMX if they are given.
pub(super) fn workspace(mm: &Matmul, dtypes: [DType; 3], units: Option<Amx>) -> WorkspaceSize {
    match units {
        Some(_) => amx::workspace(mm.batch, [mm.m, mm.n, mm.k], dtypes),
        None => WorkspaceSize::default(),
    }
}

/// Runs on checked arguments: on AMX those that suit them, without them float32 ones. Both ways give
/// the same bits for any number of threads.
pub(super) fn run(mm: &Matmul, args: &[Arg], workspace: &mut Workspace, units: Option<Amx>) {
    let &[a, b, c] = args else { unreachable!("checked") };
    let shape = [mm.m, mm.n, mm.k];
    let matrices = |i: usize| {
        [(a, &mm.a), (b, &mm.b), (c, &mm.c)]
            .map(|(arg, v)| Matrix::new(arg, v.offset + i * v.batch, v.row, v.col))
    };
    if let Some(amx) = units {
        // SAFETY: `check` has found every element inside its argument, those of c distinct and apart from a
        // and b; `workspace` was asked for this shape.
        unsafe { amx::products(amx, shape, (mm.batch, &matrices), mm.accumulate, mm.symmetric, workspace) };
        return;
    }
    let one = |i: usize, parallelism: Parallelism| {
        let [a, b, c] = matrices(i);
        let strip = if mm.symmetric { TRIANGLE } else { mm.m };
        for row in (0..mm.m).step_by(strip) {
            let first = if mm.symmetric { row } else { 0 };
            let shape = [strip.min(mm.m - row), mm.n - first, mm.k];
            // SAFETY: as above; a part of the same product.
            unsafe {
                product(shape, a.at(row, 0), b.at(0, first), c.at(row, first), mm.accumulate, parallelism)
            };
        }
    };
    let work = work(mm);
    if is_many(mm, false) {
        parallel(mm.batch, work, |i| one(i, Parallelism::None));
    } else {
        (0..mm.batch).for_each(|i| one(i, Parallelism::Rayon(0)));
    }
    mirror(mm, |i| matrices(i)[2]);
}

/// Operations of one product of a batch.
fn work(mm: &Matmul) -> usize {
    2 * mm.m * mm.n * mm.k
}

/// Whether threads take whole products of a batch, rather than parts of each.
fn is_many(mm: &Matmul, on_units: bool) -> bool {
    match on_units {
        true => mm.batch >= amx::BATCH,
        false => mm.batch > 1 && (work(mm) < SMALL || mm.batch >= MANY),
    }
}

/// Copies what is above the diagonal of symmetric results below it.
fn mirror(mm: &Matmul, result: impl Fn(usize) -> Matrix + Sync) {
    if !mm.symmetric {
        return;
    }
    let strips = mm.m.div_ceil(TRIANGLE);
    parallel(mm.batch * strips, TRIANGLE * mm.m, |task| {
        let (c, row) = (result(task / strips), task % strips * TRIANGLE);
        let last = (row + TRIANGLE).min(mm.m);
        // Square by square: one side of a transposition jumps from line to line.
        for from in (0..last).step_by(SQUARE) {
            for to in row..last {
                for other in from..(from + SQUARE).min(to) {
                    // SAFETY: inside c by the checked lengths; each task writes its own rows below the diagonal,
                    // and nobody writes above it.
                    unsafe { *c.at(to, other).ptr.cast::<f32>() = *c.at(other, to).ptr.cast::<f32>() };
                }
            }
        }
    });
}
