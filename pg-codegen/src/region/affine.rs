//! Where an element is: affine functions of a region's index, and the bounds that guard a load.

use smallvec::SmallVec;

/// `offset + Σ strides[i] · index[i]` over the axes of a region's domain, columns last.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Affine {
    /// Value at index 0.
    pub offset: i64,
    /// Increment per step of each domain axis; the last is the column stride.
    pub strides: SmallVec<[i64; 5]>,
}

impl Affine {
    /// The element with the domain's own index in a row-major buffer, from `offset` on.
    pub(crate) fn row_major(rows: &[usize], columns: usize, offset: usize) -> Affine {
        let mut strides: SmallVec<[i64; 5]> = SmallVec::new();
        let mut stride = 1;
        for &size in rows.iter().chain([&columns]).rev() {
            strides.insert(0, stride as i64);
            stride *= size;
        }
        Affine { offset: offset as i64, strides }
    }

    /// The value at an index.
    pub fn at(&self, index: &[usize]) -> i64 {
        self.offset + self.strides.iter().zip(index).map(|(s, &i)| s * i as i64).sum::<i64>()
    }

    /// Least and greatest value over a domain of these sizes, none of which is 0. Exact.
    pub fn interval(&self, sizes: &[usize]) -> (i64, i64) {
        self.strides.iter().zip(sizes).fold((self.offset, self.offset), |(low, high), (&stride, &size)| {
            let reach = stride * (size as i64 - 1);
            (low + reach.min(0), high + reach.max(0))
        })
    }

    /// Whether the value differs between columns of a row.
    pub fn varies_along_columns(&self) -> bool {
        self.strides.last() != Some(&0)
    }
}

/// Elements for which `0 ≤ expr < size` are inside; a load of any other element gives zero.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Guard {
    /// The guarded coordinate.
    pub expr: Affine,
    /// Its bound.
    pub size: i64,
}

/// Which element of an argument a load reads, in elements from the argument's start. Reshapes,
/// transposes, slices, broadcasts, pads and shifts are all index maps.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IndexMap {
    /// Element offset.
    pub at: Affine,
    /// All must hold for the element to be read.
    pub guards: Vec<Guard>,
}

impl IndexMap {
    /// The element at an index; `None` outside the guards.
    pub fn at(&self, index: &[usize]) -> Option<i64> {
        let inside = self.guards.iter().all(|g| (0..g.size).contains(&g.expr.at(index)));
        inside.then(|| self.at.at(index))
    }

    /// Whether what it reads differs between columns of a row.
    pub fn varies_along_columns(&self) -> bool {
        self.at.varies_along_columns() || self.guards.iter().any(|g| g.expr.varies_along_columns())
    }
}
