//! Regions for people.

use std::fmt;

use super::{Affine, IndexMap, Instr, Region};

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kept, reduced) = self.rows.split_at(self.rows.len() - self.reduced);
        write!(f, "region rows {kept:?}")?;
        if self.reduced > 0 {
            write!(f, " accumulating {reduced:?}")?;
        }
        let args: Vec<String> = self.args.iter().map(ToString::to_string).collect();
        writeln!(f, " columns {} args {}", self.columns, args.join(", "))?;
        for (i, instr) in self.body.iter().enumerate() {
            match instr {
                Instr::Store { arg, value, at } => writeln!(f, "    a{arg}[{at}] = r{value}")?,
                Instr::Accumulate { arg, value, kind, at } => {
                    writeln!(f, "    a{arg}[{at}] = {kind:?} of r{value}")?
                }
                _ => writeln!(f, "    r{i} = {instr}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Instr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Instr::Load { arg, map } => write!(f, "a{arg}[{map}]"),
            Instr::Gather { arg, row, rows, stride, map } => {
                write!(f, "a{arg}[{stride}·r{row} + {map}] of {rows} rows")
            }
            Instr::Const(v) => write!(f, "{v:?}"),
            Instr::ConstInt(v) => write!(f, "{v}"),
            Instr::Index(at) => write!(f, "{at}"),
            Instr::Unary(g, a) => write!(f, "{g:?} r{a}"),
            Instr::Binary(g, a, b) => write!(f, "{g:?} r{a} r{b}"),
            Instr::Select(c, a, b) => write!(f, "r{c} ? r{a} : r{b}"),
            Instr::Cast(dtype, a) => write!(f, "{dtype} r{a}"),
            Instr::RowReduce(kind, a) => write!(f, "{kind:?} of columns of r{a}"),
            Instr::Permute(perm, a) => write!(f, "r{a} in columns {perm:?}"),
            Instr::FakeQuant(grid, a) => write!(f, "r{a} on the grid ±{} {}", grid.clip, grid.rule),
            Instr::Store { arg, value, at } => write!(f, "a{arg}[{at}] = r{value}"),
            Instr::Accumulate { arg, value, kind, at } => write!(f, "a{arg}[{at}] = {kind:?} of r{value}"),
        }
    }
}

impl fmt::Display for IndexMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.at)?;
        self.guards.iter().try_for_each(|g| write!(f, " if 0 ≤ {} < {}", g.expr, g.size))
    }
}

/// Row axes are i0, i1, …; the columns are j.
impl fmt::Display for Affine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut terms = Vec::new();
        let column = self.strides.len() - 1;
        for (axis, &stride) in self.strides.iter().enumerate().filter(|(_, s)| **s != 0) {
            let name = if axis == column { "j".into() } else { format!("i{axis}") };
            terms.push(if stride == 1 { name } else { format!("{stride}{name}") });
        }
        if self.offset != 0 || terms.is_empty() {
            terms.push(self.offset.to_string());
        }
        f.write_str(&terms.join(" + "))
    }
}
