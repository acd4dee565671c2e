//! The layout pass: which parameters lie side by side.
//!
//! What lies under one optimiser lies as its [`Packing`] says: matrices of one shape are one bank [count, rows, cols], so
//! that Newton–Schulz runs batched; anything else is one flat bank, so that the update is one stream. Gradients,
//! optimiser state and averages have the same layout. A parameter's identity is its name: banks exist
//! for the `update` program, names appear at input and output.

use std::collections::HashMap;

use indexmap::IndexMap;

use crate::lang::model::{Model, Param};
use crate::optim::{self, Optimiser, Packing};
use crate::slot::Space;
use crate::ty::Type;

/// How the members of a bank lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BankKind {
    /// `count` matrices of one shape.
    Matrices {
        /// Number of matrices.
        count: usize,
        /// Rows of each.
        rows: usize,
        /// Columns of each.
        cols: usize,
    },
    /// Parameters of any shape end to end.
    Flat {
        /// Number of elements.
        len: usize,
    },
}

/// Several parameters in one allocation.
#[derive(Clone, PartialEq, Debug)]
pub struct Bank {
    /// Name of its slots, as in `muon.0.512x512`.
    pub name: String,
    /// How its members lie.
    pub kind: BankKind,
    /// What updates them.
    pub optimiser: Optimiser,
    /// Parameter names in order.
    pub members: Vec<String>,
}

impl Bank {
    /// Type of the bank as one value.
    pub fn ty(&self) -> Type {
        match self.kind {
            BankKind::Matrices { count, rows, cols, .. } => Type::channels(&[count, rows, cols]),
            BankKind::Flat { len } => Type::channels(&[len]),
        }
    }

    /// Rows and columns of its matrices, if they have one shape.
    pub fn matrix(&self) -> Option<(usize, usize)> {
        match self.kind {
            BankKind::Matrices { rows, cols, .. } => Some((rows, cols)),
            BankKind::Flat { .. } => None,
        }
    }

    /// Whether training keeps a space for it: an optimiser's state only if it is its own optimiser's.
    pub fn keeps(&self, space: Space) -> bool {
        !optim::is_state(space) || self.optimiser.state().contains(&space)
    }
}

/// Where a parameter lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Index of its bank in [`Layout::banks`].
    pub bank: usize,
    /// First element in the bank.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

/// Where every parameter lies.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Layout {
    /// Banks in order of their first member.
    pub banks: Vec<Bank>,
    positions: HashMap<String, Position>,
}

impl Layout {
    /// Lays out the parameters of a model in the order of their first use.
    pub fn new(model: &Model) -> Layout {
        Layout::of(&model.params)
    }

    /// Lays out parameters.
    pub fn of(params: &IndexMap<String, Param>) -> Layout {
        let mut layout = Layout::default();
        for param in params.values() {
            let bank = layout.bank_for(param);
            let offset = layout.banks[bank].ty().len();
            let len = param.len();
            match &mut layout.banks[bank].kind {
                BankKind::Matrices { count, .. } => *count += 1,
                BankKind::Flat { len: total } => *total += len,
            }
            layout.banks[bank].members.push(param.name.clone());
            layout.positions.insert(param.name.clone(), Position { bank, offset, len });
        }
        layout
    }

    /// The bank that `param` belongs to, made if it is the first; without counting the parameter in.
    fn bank_for(&mut self, param: &Param) -> usize {
        let optimiser = param.optimiser;
        let (rows, cols) = param.matrix();
        let packing = optimiser.packing();
        let (shape, kind) = match packing {
            Packing::Matrices => (format!("{rows}x{cols}"), BankKind::Matrices { count: 0, rows, cols }),
            Packing::Flat => ("flat".into(), BankKind::Flat { len: 0 }),
        };
        let holds = |bank: &Bank| packing == Packing::Flat || bank.matrix() == Some((rows, cols));
        if let Some(found) = self.banks.iter().position(|bank| bank.optimiser == optimiser && holds(bank)) {
            return found;
        }
        let name = format!("{}.{}.{shape}", optimiser.name(), self.banks.len());
        self.banks.push(Bank { name, kind, optimiser, members: vec![] });
        self.banks.len() - 1
    }

    /// Where a parameter lies.
    pub fn position(&self, param: &str) -> Option<Position> {
        self.positions.get(param).copied()
    }

    /// (bank name, first element, number of elements) of a parameter or of a whole bank.
    pub fn resolve(&self, name: &str) -> Option<(&str, usize, usize)> {
        if let Some(p) = self.positions.get(name) {
            return Some((&self.banks[p.bank].name, p.offset, p.len));
        }
        let bank = self.banks.iter().find(|b| b.name == name)?;
        Some((&bank.name, 0, bank.ty().len()))
    }
}
