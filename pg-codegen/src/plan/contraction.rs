//! Contractions: products of matrices, alone or several that share an operand, each with what becomes of its result.

use std::hash::{DefaultHasher, Hash};

use pg_ir::ty::DType;

use super::family::{Family, Param, ParamType};
use crate::region::Region;

/// A matrix operand: strides in elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MatrixView {
    /// Element offset of the first matrix.
    pub offset: usize,
    /// Between matrices of a batch.
    pub batch: usize,
    /// Between rows.
    pub row: usize,
    /// Between columns.
    pub col: usize,
}

/// c[m, n] = Σ_k a[m, k] · b[k, n] for each matrix of a batch, plus c's old value if `accumulate`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Matmul {
    /// Matrices.
    pub batch: usize,
    /// Rows of a and c.
    pub m: usize,
    /// Columns of b and c.
    pub n: usize,
    /// Columns of a, rows of b.
    pub k: usize,
    /// Left operand.
    pub a: MatrixView,
    /// Right operand.
    pub b: MatrixView,
    /// Result; of no meaning where an epilogue takes it.
    pub c: MatrixView,
    /// Add to the result's old value.
    pub accumulate: bool,
    /// Each c equals its transpose, because b is aᵀ: one triangle of it need be computed.
    pub symmetric: bool,
}

impl Matmul {
    /// cᵀ = bᵀ · aᵀ: the same numbers at the same places, with b for the left operand and a for the right one.
    pub fn transposed(&self) -> Matmul {
        let turned = |x: MatrixView| MatrixView { row: x.col, col: x.row, ..x };
        let (a, b, c) = (turned(self.b), turned(self.a), turned(self.c));
        Matmul { m: self.n, n: self.m, a, b, c, ..self.clone() }
    }

    /// The same product, not added to anything, into memory of its own without gaps.
    pub fn densely(&self) -> Matmul {
        let c = MatrixView { offset: 0, batch: self.m * self.n, row: self.n, col: 1 };
        Matmul { c, accumulate: false, ..self.clone() }
    }
}

/// Which operand of a product.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Side {
    /// a.
    Left,
    /// b.
    Right,
}

/// A stretch of k with operands of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Segment {
    /// Columns of a, rows of b.
    pub k: usize,
    /// Left operand.
    pub a: MatrixView,
    /// Right operand.
    pub b: MatrixView,
}

/// One result of a contraction: the sum of a product for each segment of k. Its own arguments: a, b, those of each further segment, then c, or the epilogue's from 1
/// on.
#[derive(Clone, PartialEq, Debug)]
pub struct Member {
    /// The product, of the first segment of k.
    pub matmul: Matmul,
    /// Further segments of k, whose products are added in order. A member that has some is alone, adds to no old value, and
    /// is not symmetric; its `c` is without gaps.
    pub segments: Vec<Segment>,
    /// A region that takes the result where it is computed. The result, rounded to the type of the region's argument 0,
    /// is that argument, which is in no buffer. The region's rows are the result's rows in order, or equal parts of
    /// them, and its columns are their columns. It loads argument 0 only at its own place, and its rows do not meet.
    pub epilogue: Option<Region>,
}

impl Member {
    /// Number of its operands: the first of its own arguments.
    pub fn operand_count(&self) -> usize {
        2 * (1 + self.segments.len())
    }

    /// Its products, one for each segment of k; all but the first are added.
    pub fn products(&self) -> impl Iterator<Item = Matmul> + '_ {
        let further =
            self.segments.iter().map(|&Segment { k, a, b }| Matmul { k, a, b, ..self.matmul.clone() });
        std::iter::once(self.matmul.clone()).chain(further)
    }

    /// Number of its own arguments.
    pub fn arg_count(&self) -> usize {
        self.operand_count() + self.epilogue.as_ref().map_or(1, |region| region.args.len().saturating_sub(1))
    }
}

impl From<Matmul> for Member {
    fn from(matmul: Matmul) -> Member {
        Member { matmul, segments: Vec::new(), epilogue: None }
    }
}

/// One product; or several, none of which waits for another, that have `batch`, `k` and the view of one operand in
/// common, so that their results lie side by side: with the left one shared along columns, with the right one along
/// rows. Arguments: of each member in turn its own, but the shared operand once, before all others.
#[derive(Clone, PartialEq, Debug)]
pub struct Contraction {
    /// The operand that the members share; `None` of a single one.
    pub shared: Option<Side>,
    /// The products.
    pub members: Vec<Member>,
}

impl Contraction {
    /// A single product.
    pub fn of(matmul: Matmul) -> Contraction {
        Contraction { shared: None, members: vec![matmul.into()] }
    }

    /// A single product, whose result a region takes.
    pub fn with_epilogue(matmul: Matmul, epilogue: Region) -> Contraction {
        Contraction { shared: None, members: vec![Member { epilogue: Some(epilogue), ..matmul.into() }] }
    }

    /// The products, one for each segment of k, without what becomes of them.
    pub fn products(&self) -> impl Iterator<Item = Matmul> + '_ {
        self.members.iter().flat_map(Member::products)
    }

    /// The only member; `None` if there are several.
    pub fn single(&self) -> Option<&Member> {
        if let [member] = &self.members[..] { Some(member) } else { None }
    }

    /// Number of arguments.
    pub fn arg_count(&self) -> usize {
        let again = self.members.len().saturating_sub(1);
        self.members.iter().map(Member::arg_count).sum::<usize>() - again
    }

    /// Positions of a member's own arguments among those of all.
    pub fn args(&self, member: usize) -> Vec<usize> {
        let Some(shared) = self.shared else { return (0..self.members[member].arg_count()).collect() };
        let own = |m: &Member| m.arg_count() - 1;
        let first = 1 + self.members[..member].iter().map(own).sum::<usize>();
        let mut args: Vec<usize> = (first..first + own(&self.members[member])).collect();
        args.insert(usize::from(shared == Side::Right), 0);
        args
    }
}

impl Family for Contraction {
    fn name(&self) -> &'static str {
        "contraction"
    }

    fn params(&self) -> Vec<Param> {
        let mut params = vec![Param::read(ParamType::Float); self.arg_count()];
        for (i, member) in self.members.iter().enumerate() {
            let own = member.params();
            self.args(i).into_iter().zip(own).for_each(|(at, param)| params[at] = param);
        }
        params
    }

    fn shape(&self) -> String {
        self.members.iter().map(Member::shape).collect::<Vec<_>>().join(", ")
    }

    fn structure(&self, to: &mut DefaultHasher) {
        (self.shared, self.members.len()).hash(to);
        self.members.iter().for_each(|member| member.structure(to));
    }

    fn multiplies_matrices(&self) -> bool {
        true
    }

    fn check(&self) -> Result<(), String> {
        let is_shared = self.shared.is_some();
        if self.members.is_empty() || is_shared != (self.members.len() > 1) {
            return Err("is of one product, or of several that share an operand, and nothing else".into());
        }
        if is_shared && self.members.iter().any(|m| !m.segments.is_empty()) {
            return Err("shares an operand, and has segments of k".into());
        }
        if self.members.iter().filter_map(|m| m.epilogue.as_ref()).any(|r| r.args.is_empty()) {
            return Err("has a region on a product that does not take its result".into());
        }
        Ok(())
    }
}

impl Member {
    fn params(&self) -> Vec<Param> {
        let mut params = vec![Param::read(ParamType::Float); self.operand_count()];
        match &self.epilogue {
            Some(region) => params.extend(region.params().into_iter().skip(1)),
            None if self.matmul.accumulate => {
                params.push(Param { is_read: true, ..Param::written(ParamType::Of(DType::F32)) });
            }
            None => params.push(Param::written(ParamType::Float)),
        }
        params
    }

    fn shape(&self) -> String {
        let Matmul { batch, m, n, accumulate, .. } = self.matmul;
        let k = self.products().map(|product| product.k.to_string()).collect::<Vec<_>>().join(" + ");
        let batch = if batch > 1 { format!("{batch} of ") } else { String::new() };
        let plus = if accumulate { " added" } else { "" };
        format!("{batch}{m} × {n} × {k}{plus}")
    }

    fn structure(&self, to: &mut DefaultHasher) {
        let m = &self.matmul;
        [m.batch, m.m, m.n, m.k].map(|size| size > 1).hash(to);
        [&m.a, &m.b, &m.c].map(MatrixView::walks).hash(to);
        (m.accumulate, m.symmetric).hash(to);
        for s in &self.segments {
            (s.k > 1, s.a.walks(), s.b.walks()).hash(to);
        }
        self.epilogue.is_some().hash(to);
        self.epilogue.iter().for_each(|region| region.structure(to));
    }
}

impl MatrixView {
    /// Along which axes it stands still, goes to the next element, or elsewhere.
    fn walks(&self) -> (bool, usize, usize, bool) {
        (self.batch == 0, self.row.min(2), self.col.min(2), self.offset > 0)
    }
}
