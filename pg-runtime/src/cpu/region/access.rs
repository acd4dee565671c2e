//! Loads, gathers and stores: moving lines between arguments and registers.

use std::ops::Range;

use pg_codegen::region::{Affine, Guard, IndexMap};
use pg_ir::ty::DType;
use smallvec::SmallVec;

use super::super::math;
use super::super::raw::{Arg, Stored};
use super::super::simd::{Isa, Kernel};
use super::compile::{Class, Table};
use super::lines::{Line, View, mask};

/// An index outside an argument. Static maps cannot give it; ids and guarded maps can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outside;

/// A piece of a region's domain: whole rows, or a stretch of the columns of some rows.
#[derive(Clone, Debug)]
pub(super) struct Block<'a> {
    /// Sizes of the row axes.
    pub(super) axes: &'a [usize],
    /// Columns of the whole region.
    pub(super) all_columns: usize,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// Index of the first row.
    first: SmallVec<[i64; 6]>,
}

impl<'a> Block<'a> {
    pub(super) fn new(
        axes: &'a [usize],
        all_columns: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Self {
        let mut first: SmallVec<[i64; 6]> = SmallVec::from_elem(0, axes.len());
        let mut rest = rows.start;
        for (index, &size) in first.iter_mut().zip(axes).rev() {
            *index = (rest % size) as i64;
            rest /= size;
        }
        Block { axes, all_columns, rows, columns, first }
    }

    /// Calls `f` with each row's position in the block and its index, for the first `count` rows.
    fn each_row(&self, count: usize, mut f: impl FnMut(usize, &[i64])) {
        let mut index = self.first.clone();
        for row in 0..count {
            f(row, &index);
            for (i, &size) in index.iter_mut().zip(self.axes).rev() {
                *i += 1;
                if *i < size as i64 {
                    break;
                }
                *i = 0;
            }
        }
    }

    /// Value of an index map at a row and at the block's first column.
    fn eval(&self, at: &Affine, index: &[i64]) -> i64 {
        let (column, rows) = at.strides.split_last().expect("maps have a column stride");
        let rows: i64 = rows.iter().zip(index).map(|(s, i)| s * i).sum();
        at.offset + rows + column * self.columns.start as i64
    }

    /// The columns of the block, counted from its first, on which all guards hold in a row.
    fn inside(&self, guards: &[Guard], index: &[i64], columns: usize) -> Range<usize> {
        let (mut low, mut high) = (0, columns as i64);
        for guard in guards {
            let base = self.eval(&guard.expr, index);
            match *guard.expr.strides.last().expect("maps have a column stride") {
                0 if (0..guard.size).contains(&base) => {}
                0 => return 0..0,
                s if s > 0 => {
                    low = low.max(ceil_div(-base, s));
                    high = high.min(ceil_div(guard.size - base, s));
                }
                // base + s·column ≥ 0 up to base / −s, and < size from there on.
                s => {
                    low = low.max((base - guard.size).div_euclid(-s) + 1);
                    high = high.min(base.div_euclid(-s) + 1);
                }
            }
        }
        let low = low.clamp(0, columns as i64);
        low as usize..high.clamp(low, columns as i64) as usize
    }

    /// Whether a dense map is one stretch of memory over the block.
    fn is_stretch(&self) -> bool {
        self.rows.len() == 1 || self.columns.len() == self.all_columns
    }

    fn columns_of(&self, class: Class) -> usize {
        if class.column { self.columns.len() } else { 1 }
    }

    fn rows_of(&self, class: Class) -> usize {
        if class.row { self.rows.len() } else { 1 }
    }
}

fn ceil_div(a: i64, b: i64) -> i64 {
    -(-a).div_euclid(b)
}

/// The block of a dense map's argument as it lies in memory, where that is one stretch.
pub(super) fn stretch<'a>(arg: Arg, map: &IndexMap, block: &Block<'_>) -> Option<&'a [u32]> {
    if !block.is_stretch() {
        return None;
    }
    let (from, len) = (block.eval(&map.at, &block.first), block.rows.len() * block.columns.len());
    // SAFETY: in bounds. No other task writes it (`check_touches`), and this one not while it is read
    // (`find_direct`).
    arg.holds(from, len).then(|| unsafe { arg.read(from as usize, len) })
}

/// Loads a register.
pub(super) fn load(
    out: &mut [u32],
    class: Class,
    arg: Arg,
    map: &IndexMap,
    dense: bool,
    block: &Block<'_>,
    isa: Isa,
) -> Result<(), Outside> {
    let stride = *map.at.strides.last().expect("maps have a column stride");
    if dense && class.row && class.column && block.is_stretch() {
        let len = block.rows.len() * block.columns.len();
        return read_line(&mut out[..len], arg, block.eval(&map.at, &block.first), 1, isa);
    }
    fill(out, class, map, block, |line, _, _, from| read_line(line, arg, from, stride, isa))
}

/// Fills a register row by row. `read` is given what of a row lies inside the guards, the row, those columns, and the
/// element that the map gives the first of them; the rest is zero.
fn fill(
    out: &mut [u32],
    class: Class,
    map: &IndexMap,
    block: &Block<'_>,
    read: impl Fn(&mut [u32], usize, Range<usize>, i64) -> Result<(), Outside>,
) -> Result<(), Outside> {
    let (rows, columns) = (block.rows_of(class), block.columns_of(class));
    let stride = *map.at.strides.last().expect("maps have a column stride");
    let mut result = Ok(());
    block.each_row(rows, |row, index| {
        let line = &mut out[row * columns..][..columns];
        let inside = block.inside(&map.guards, index, columns);
        line[..inside.start].fill(0);
        line[inside.end..].fill(0);
        let from = block.eval(&map.at, index) + stride * inside.start as i64;
        result = result.and(read(&mut line[inside.clone()], row, inside, from));
    });
    result
}

/// Loads a register from rows of a table, by the ids in another register.
#[allow(clippy::too_many_arguments, reason = "the parts of one instruction")]
pub(super) fn gather(
    out: &mut [u32],
    class: Class,
    arg: Arg,
    ids: View<'_>,
    table: Table,
    map: &IndexMap,
    block: &Block<'_>,
    isa: Isa,
) -> Result<(), Outside> {
    let (columns, stride) = (block.columns_of(class), *map.at.strides.last().expect("a column stride"));
    let read = |line: &mut [u32], id: i32, from: i64| match table.start(id) {
        Some(start) => read_line(line, arg, from + start, stride, isa),
        None if line.is_empty() => Ok(()),
        None => {
            line.fill(0);
            Err(Outside)
        }
    };
    fill(out, class, map, block, |line, row, inside, from| match ids.line::<i32>(row, columns) {
        Line::One(id) => read(line, id, from),
        Line::Many(ids) => {
            let mut all = Ok(());
            for ((&id, x), k) in ids[inside].iter().zip(line.chunks_exact_mut(1)).zip(0i64..) {
                all = all.and(read(x, id, from + stride * k));
            }
            all
        }
    })
}

/// The index map itself, as int32.
pub(super) fn index(out: &mut [u32], class: Class, at: &Affine, block: &Block<'_>) {
    let (rows, columns) = (block.rows_of(class), block.columns_of(class));
    let stride = *at.strides.last().expect("maps have a column stride");
    let out = &mut out[..rows * columns];
    block.each_row(rows, |row, index| {
        let base = block.eval(at, index);
        for (column, out) in out[row * columns..][..columns].iter_mut().enumerate() {
            *out = (base + stride * column as i64) as u32;
        }
    });
}

/// out[i] = arg[from + i · stride], widened to 32 bits.
fn read_line(out: &mut [u32], arg: Arg, from: i64, stride: i64, isa: Isa) -> Result<(), Outside> {
    if arg.dtype() == DType::BF16 && stride == 1 && arg.holds(from, out.len()) {
        // SAFETY: in bounds, and no task writes an element that another reads (`check_touches`).
        let from = unsafe { arg.read::<u16>(from as usize, out.len()) };
        isa.run(Widen { out, from });
        return Ok(());
    }
    match arg.dtype() {
        DType::F32 | DType::I32 => read_as::<u32>(out, arg, from, stride, |x| x),
        DType::BF16 => read_as::<u16>(out, arg, from, stride, |x| math::from_bf16(x).to_bits()),
        DType::Bool => read_as::<u8>(out, arg, from, stride, |x| mask(x != 0)),
    }
}

/// bfloat16 to registers.
struct Widen<'a> {
    out: &'a mut [u32],
    from: &'a [u16],
}

impl Kernel for Widen<'_> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        for (o, &x) in self.out.iter_mut().zip(self.from) {
            *o = math::from_bf16(x).to_bits();
        }
    }
}

/// Registers to bfloat16.
struct Narrow<'a> {
    to: &'a mut [u16],
    x: &'a [u32],
}

impl Kernel for Narrow<'_> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        for (t, &x) in self.to.iter_mut().zip(self.x) {
            *t = math::to_bf16(f32::from_bits(x));
        }
    }
}

fn read_as<T: Stored>(
    out: &mut [u32],
    arg: Arg,
    from: i64,
    stride: i64,
    widen: impl Fn(T) -> u32,
) -> Result<(), Outside> {
    let Some(reach) = out.len().checked_sub(1) else { return Ok(()) };
    let reach = stride * reach as i64;
    let (low, span) = (from + reach.min(0), reach.unsigned_abs() as usize + 1);
    if !arg.holds(low, span) {
        out.fill(0);
        return Err(Outside);
    }
    // Each slice covers exactly the elements that are read: what lies between strided elements may be another
    // task's to write.
    // SAFETY: in bounds, and no task writes an element that another reads (`check_touches`); this one stores later.
    let read = |at: i64, len: usize| unsafe { arg.read::<T>(at as usize, len) };
    match stride {
        0 => out.fill(widen(read(low, 1)[0])),
        1 => out.iter_mut().zip(read(low, span)).for_each(|(o, &x)| *o = widen(x)),
        -1 => out.iter_mut().zip(read(low, span).iter().rev()).for_each(|(o, &x)| *o = widen(x)),
        _ => (out.iter_mut().enumerate()).for_each(|(i, o)| *o = widen(read(from + i as i64 * stride, 1)[0])),
    }
    Ok(())
}

/// Stores a register. One element a row if the map has no column stride; then only the block with the
/// row's first column does it.
pub(super) fn store(value: View<'_>, arg: Arg, at: &Affine, dense: bool, block: &Block<'_>, isa: Isa) {
    let (rows, columns) = (block.rows.len(), block.columns.len());
    let stride = *at.strides.last().expect("maps have a column stride");
    if stride == 0 && block.columns.start > 0 {
        return;
    }
    let count = if stride == 0 { 1 } else { columns };
    if dense && value.class == (Class { row: true, column: true }) && block.is_stretch() {
        let line = Line::Many(&value.bits[..rows * columns]);
        return write_line(line, rows * columns, arg, block.eval(at, &block.first), 1, isa);
    }
    block.each_row(rows, |row, index| {
        write_line(value.line(row, columns), count, arg, block.eval(at, index), stride, isa);
    });
}

/// arg[to + i · stride] = line[i], narrowed to the argument's type.
fn write_line(line: Line<'_, u32>, count: usize, arg: Arg, to: i64, stride: i64, isa: Isa) {
    if let (Line::Many(x), DType::BF16, 1) = (line, arg.dtype(), stride) {
        // SAFETY: in bounds and touched by no other task (`check_touches`).
        return isa.run(Narrow { to: unsafe { arg.write::<u16>(to as usize, count) }, x });
    }
    match arg.dtype() {
        DType::F32 | DType::I32 => write_as::<u32>(line, count, arg, to, stride, |x| x),
        DType::BF16 => write_as::<u16>(line, count, arg, to, stride, |x| math::to_bf16(f32::from_bits(x))),
        DType::Bool => write_as::<u8>(line, count, arg, to, stride, |x| (x & 1) as u8),
    }
}

fn write_as<T: Stored>(
    line: Line<'_, u32>,
    count: usize,
    arg: Arg,
    to: i64,
    stride: i64,
    narrow: impl Fn(u32) -> T,
) {
    let reach = stride * (count as i64 - 1);
    let (low, span) = (to + reach.min(0), reach.unsigned_abs() as usize + 1);
    // SAFETY: in bounds and touched by no other task (`check_touches`). A strided line of one task may
    // lie between those of others, so only the elements of the line itself may be borrowed.
    let element = |i: usize| unsafe { &mut arg.write::<T>((to + i as i64 * stride) as usize, 1)[0] };
    match (line, stride) {
        (Line::Many(x), 1) => {
            // SAFETY: as above; the line is all of the span.
            let out = unsafe { arg.write::<T>(low as usize, span) };
            out.iter_mut().zip(x).for_each(|(o, &x)| *o = narrow(x));
        }
        (Line::One(x), 1) => {
            // SAFETY: as above.
            unsafe { arg.write::<T>(low as usize, span) }.fill(narrow(x));
        }
        (Line::Many(x), _) => x[..count].iter().enumerate().for_each(|(i, &x)| *element(i) = narrow(x)),
        (Line::One(x), _) => (0..count).for_each(|i| *element(i) = narrow(x)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_give_the_columns_that_satisfy_them() {
        let axes = [3];
        let block = Block::new(&axes, 20, 0..3, 2..15);
        for column_stride in [-3, -2, -1, 0, 1, 2, 5] {
            for offset in -12..30 {
                for size in [1, 4, 9] {
                    let expr = Affine { offset, strides: [2, column_stride].as_slice().into() };
                    let guard = Guard { expr, size };
                    block.each_row(3, |row, index| {
                        let holds = |l: usize| {
                            let e = offset + 2 * row as i64 + column_stride * (l as i64 + 2);
                            (0..size).contains(&e)
                        };
                        let want: Vec<usize> = (0..13).filter(|&l| holds(l)).collect();
                        let got: Vec<usize> = block.inside(std::slice::from_ref(&guard), index, 13).collect();
                        assert_eq!(got, want, "{guard:?} row {row}");
                    });
                }
            }
        }
    }
}
