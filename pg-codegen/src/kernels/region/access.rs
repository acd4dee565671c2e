//! Loads and stores of a region: index maps become integer arithmetic, guards become conditions.

use cubecl::frontend::branch::if_expand;
use cubecl::ir::ManagedVariable;
use cubecl::prelude::*;
use pg_ir::ty::DType;

use super::lowered::Kind;
use super::value::Value;
use crate::kernels::math;
use crate::region::{Affine, IndexMap};

/// A condition under which an access happens; none means always.
pub(crate) type Mask = Option<NativeExpand<bool>>;

#[cube]
fn scaled(x: i32, #[comptime] by: i32) -> i32 {
    x * by
}

#[cube]
fn plus(a: i32, b: i32) -> i32 {
    a + b
}

#[cube]
fn both(a: bool, b: bool) -> bool {
    a && b
}

#[cube]
fn inside(x: i32, #[comptime] size: i32) -> bool {
    x >= 0 && x < size
}

#[cube]
fn read<E: Scalar, N: Size>(from: &Array<Vector<E, N>>, at: i32) -> Vector<E, N> {
    from[at as usize]
}

#[cube]
fn read_if<E: Numeric, N: Size>(from: &Array<Vector<E, N>>, at: i32, inside: bool) -> Vector<E, N> {
    let mut x = Vector::from_int(0);
    if inside {
        x = from[at as usize];
    }
    x
}

#[cube]
fn write<E: Scalar, N: Size>(to: &mut Array<Vector<E, N>>, at: i32, x: Vector<E, N>) {
    to[at as usize] = x;
}

#[cube]
fn set_element<E: Scalar, N: Size>(x: &mut Vector<E, N>, #[comptime] i: usize, value: E) {
    x[i] = value;
}

#[cube]
fn empty<E: Scalar, N: Size>() -> Vector<E, N> {
    Vector::empty()
}

#[cube]
fn element<E: Scalar, N: Size>(x: Vector<E, N>, #[comptime] i: usize) -> E {
    x[i]
}

/// a and b, where either may be absent.
pub(crate) fn and(scope: &mut Scope, a: Mask, b: Mask) -> Mask {
    match (a, b) {
        (Some(a), Some(b)) => Some(both::expand(scope, a, b)),
        (a, b) => a.or(b),
    }
}

/// Where the current row and columns are.
pub(super) struct Location {
    /// Index along each row axis.
    pub(super) axes: Vec<NativeExpand<i32>>,
    /// Elements of a chunk.
    pub(super) vector: usize,
}

/// A vector chunk of a row.
#[derive(Clone)]
pub(super) struct Chunk {
    /// Its number within the row.
    pub(super) index: NativeExpand<i32>,
    /// Whether the row has it.
    pub(super) ok: Mask,
}

impl Location {
    /// An index map at the current row, in units of `unit` elements, columns left out.
    fn row_part(&self, scope: &mut Scope, at: &Affine, unit: usize) -> NativeExpand<i32> {
        let unit = unit as i64;
        let offset = (at.offset / unit) as i32;
        let mut sum: Option<NativeExpand<i32>> = None;
        for (&stride, index) in at.strides.iter().zip(&self.axes) {
            if stride != 0 {
                let term = match stride / unit {
                    1 => index.clone(),
                    s => scaled::expand(scope, index.clone(), s as i32),
                };
                sum = Some(match sum {
                    Some(sum) => plus::expand(scope, sum, term),
                    None => term,
                });
            }
        }
        match (sum, offset) {
            (Some(sum), 0) => sum,
            (Some(sum), offset) => plus::expand(scope, sum, offset.into()),
            (None, offset) => offset.into(),
        }
    }

    /// An index map at one column of a chunk, or at the row if there is none.
    pub(super) fn position(
        &self,
        scope: &mut Scope,
        at: &Affine,
        chunk: Option<(&Chunk, usize)>,
    ) -> NativeExpand<i32> {
        let row = self.row_part(scope, at, 1);
        let stride = at.strides[at.strides.len() - 1];
        let Some((chunk, element)) = chunk else { return row };
        if stride == 0 {
            return row;
        }
        let step = stride as i32 * self.vector as i32;
        let column =
            if step == 1 { chunk.index.clone() } else { scaled::expand(scope, chunk.index.clone(), step) };
        let sum = plus::expand(scope, row, column);
        if element == 0 { sum } else { plus::expand(scope, sum, (stride as i32 * element as i32).into()) }
    }

    fn guards(&self, scope: &mut Scope, map: &IndexMap, chunk: Option<(&Chunk, usize)>) -> Mask {
        map.guards.iter().fold(None, |mask, guard| {
            let at = self.position(scope, &guard.expr, chunk);
            let ok = inside::expand(scope, at, guard.size.min(i64::from(i32::MAX)) as i32);
            and(scope, mask, Some(ok))
        })
    }

    /// Where access `part` of a chunk lies, counted in accesses; or the row's, if there is no chunk.
    fn access(
        &self,
        scope: &mut Scope,
        at: &Affine,
        width: usize,
        chunk: Option<(&Chunk, usize)>,
    ) -> NativeExpand<i32> {
        if width == 1 {
            return self.position(scope, at, chunk);
        }
        let row = self.row_part(scope, at, width);
        let Some((chunk, part)) = chunk else { return row };
        let index = match (self.vector / width) as i32 {
            1 => chunk.index.clone(),
            parts => scaled::expand(scope, chunk.index.clone(), parts),
        };
        let sum = plus::expand(scope, row, index);
        if part == 0 { sum } else { plus::expand(scope, sum, (part as i32).into()) }
    }

    /// Loads one chunk, or one element of the row if there is none. With `gather`, its rows are added to the
    /// position, element by element of the chunk if they are wide.
    pub(super) fn load(
        &self,
        scope: &mut Scope,
        buffer: &Source<'_>,
        map: &IndexMap,
        gather: Option<&Gathered>,
        chunk: Option<&Chunk>,
        mask: Mask,
    ) -> ManagedVariable {
        let mask = and(scope, mask, chunk.and_then(|p| p.ok.clone()));
        let width = if chunk.is_some() { buffer.width } else { 1 };
        let parts = chunk.map_or(1, |_| self.vector / width);
        let loaded = (0..parts).map(|part| {
            let at = self.access(scope, &map.at, width, chunk.map(|p| (p, part)));
            let guards = self.guards(scope, map, chunk.map(|p| (p, part * width)));
            let mask = and(scope, mask.clone(), guards);
            let (at, mask) = match gather {
                Some(g) => g.locate(scope, at, mask, part * width, width),
                None => (at, mask),
            };
            buffer.fetch(scope, at, mask)
        });
        let loaded: Vec<ManagedVariable> = loaded.collect();
        if let [one] = &loaded[..] {
            return one.clone();
        }
        let kind = Kind::of(buffer.dtype);
        let places = loaded.iter().flat_map(|x| (0..width).map(move |i| (x, i)));
        let elements: Vec<ManagedVariable> = places.map(|(x, i)| element_of(scope, kind, x, i)).collect();
        vector_of(scope, kind, &elements)
    }

    /// Stores one chunk, or one element of the row if there is none.
    pub(super) fn store(
        &self,
        scope: &mut Scope,
        buffer: &Source<'_>,
        at: &Affine,
        value: &Value,
        chunk: Option<&Chunk>,
        mask: Mask,
    ) {
        let mask = and(scope, mask, chunk.and_then(|p| p.ok.clone()));
        let width = if chunk.is_some() { buffer.width } else { 1 };
        let parts = chunk.map_or(1, |_| self.vector / width);
        let body = |scope: &mut Scope| {
            for part in 0..parts {
                let to = self.access(scope, at, width, chunk.map(|p| (p, part)));
                let value = value.part(scope, part * width, width);
                buffer.put(scope, to, value);
            }
        };
        match mask {
            Some(mask) => if_expand(scope, mask, body),
            None => body(scope),
        }
    }
}

/// The row ids of a gather.
pub(super) struct Gathered {
    pub(super) row: Value,
    pub(super) stride: i64,
    pub(super) rows: i32,
}

impl Gathered {
    fn locate(
        &self,
        scope: &mut Scope,
        at: NativeExpand<i32>,
        mask: Mask,
        element: usize,
        unit: usize,
    ) -> (NativeExpand<i32>, Mask) {
        let row: NativeExpand<i32> = self.row.element(scope, element).var.into();
        let ok = inside::expand(scope, row.clone(), self.rows);
        let offset = scaled::expand(scope, row, (self.stride / unit as i64) as i32);
        (plus::expand(scope, offset, at), and(scope, mask, Some(ok)))
    }
}

/// A buffer as a region uses it.
pub(super) struct Source<'a> {
    pub(super) var: &'a ManagedVariable,
    pub(super) dtype: DType,
    pub(super) width: usize,
}

impl Source<'_> {
    /// One access: `width` elements as float, int or boolean.
    fn fetch(&self, scope: &mut Scope, at: NativeExpand<i32>, mask: Mask) -> ManagedVariable {
        match self.width {
            1 => self.fetch_as::<Const<1>>(scope, at, mask),
            2 => self.fetch_as::<Const<2>>(scope, at, mask),
            4 => self.fetch_as::<Const<4>>(scope, at, mask),
            _ => self.fetch_as::<Const<8>>(scope, at, mask),
        }
    }

    fn fetch_as<N: Size>(&self, scope: &mut Scope, at: NativeExpand<i32>, mask: Mask) -> ManagedVariable {
        fn get<E: Numeric, N: Size>(
            scope: &mut Scope,
            from: &ManagedVariable,
            at: NativeExpand<i32>,
            mask: Mask,
        ) -> NativeExpand<Vector<E, N>> {
            match mask {
                Some(mask) => read_if::expand::<E, N>(scope, from.clone().into(), at, mask),
                None => read::expand::<E, N>(scope, from.clone().into(), at),
            }
        }
        match self.dtype {
            DType::F32 => get::<f32, N>(scope, self.var, at, mask).into(),
            DType::I32 => get::<i32, N>(scope, self.var, at, mask).into(),
            DType::BF16 => {
                let x = get::<half::bf16, N>(scope, self.var, at, mask);
                math::convert::expand::<half::bf16, f32, N>(scope, x).into()
            }
            DType::Bool => {
                let x = get::<u32, N>(scope, self.var, at, mask);
                math::is_not_zero::expand::<u32, N>(scope, x).into()
            }
        }
    }

    /// Stores `width` elements.
    fn put(&self, scope: &mut Scope, at: NativeExpand<i32>, value: ManagedVariable) {
        match self.width {
            1 => self.put_as::<Const<1>>(scope, at, value),
            2 => self.put_as::<Const<2>>(scope, at, value),
            4 => self.put_as::<Const<4>>(scope, at, value),
            _ => self.put_as::<Const<8>>(scope, at, value),
        }
    }

    fn put_as<N: Size>(&self, scope: &mut Scope, at: NativeExpand<i32>, value: ManagedVariable) {
        let to = self.var.clone();
        match self.dtype {
            DType::F32 => write::expand::<f32, N>(scope, to.into(), at, value.into()),
            DType::I32 => write::expand::<i32, N>(scope, to.into(), at, value.into()),
            DType::BF16 => {
                let x = math::convert::expand::<f32, half::bf16, N>(scope, value.into());
                write::expand::<half::bf16, N>(scope, to.into(), at, x);
            }
            DType::Bool => {
                let x = math::convert::expand::<bool, u32, N>(scope, value.into());
                write::expand::<u32, N>(scope, to.into(), at, x);
            }
        }
    }
}

/// One vector from its elements.
pub(super) fn vector_of(scope: &mut Scope, kind: Kind, elements: &[ManagedVariable]) -> ManagedVariable {
    fn fill<E: Scalar, N: Size>(scope: &mut Scope, elements: &[ManagedVariable]) -> ManagedVariable {
        let vector = empty::expand::<E, N>(scope);
        for (i, x) in elements.iter().enumerate() {
            set_element::expand::<E, N>(scope, vector.clone(), i, x.clone().into());
        }
        vector.into()
    }
    fn of<E: Scalar>(scope: &mut Scope, elements: &[ManagedVariable]) -> ManagedVariable {
        match elements.len() {
            2 => fill::<E, Const<2>>(scope, elements),
            4 => fill::<E, Const<4>>(scope, elements),
            _ => fill::<E, Const<8>>(scope, elements),
        }
    }
    match (elements, kind) {
        ([one], _) => one.clone(),
        (_, Kind::Float) => of::<f32>(scope, elements),
        (_, Kind::Int) => of::<i32>(scope, elements),
        (_, Kind::Bool) => of::<bool>(scope, elements),
    }
}

/// One element of a vector, or the value itself.
pub(super) fn element_of(scope: &mut Scope, kind: Kind, x: &ManagedVariable, i: usize) -> ManagedVariable {
    fn of<E: Scalar>(scope: &mut Scope, x: &ManagedVariable, i: usize) -> ManagedVariable {
        let vector = x.clone();
        match x.ty.vector_size() {
            2 => element::expand::<E, Const<2>>(scope, vector.into(), i).into(),
            4 => element::expand::<E, Const<4>>(scope, vector.into(), i).into(),
            8 => element::expand::<E, Const<8>>(scope, vector.into(), i).into(),
            _ => vector,
        }
    }
    match kind {
        Kind::Float => of::<f32>(scope, x, i),
        Kind::Int => of::<i32>(scope, x, i),
        Kind::Bool => of::<bool>(scope, x, i),
    }
}
