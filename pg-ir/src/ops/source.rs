//! Ops without operands: inputs, constants and indices.

use super::{arity, no_flops, pointwise, unknown};
use crate::causality::known::Known;
use crate::op::{Op, Record};
use crate::slot::Space;
use crate::ty::{DType, Type};

pub(super) static INPUT: Record = Record {
    name: "input",
    signature: "-> x",
    maths: "The value of a slot.",
    infer: |op, operands| {
        let [] = arity(operands)?;
        let Op::Input(slot, ty) = op else { unreachable!("record of another op") };
        match slot.space {
            Space::Result => Err(format!("{slot} is written by programs, not read")),
            Space::Data if ty.dtype != DType::I32 => Err(format!("{slot} holds int32 ids, not {ty}")),
            _ => Ok(vec![ty.clone()]),
        }
    },
    access: pointwise,
    cases: unknown,
    vjp: |_| vec![],
    flops: no_flops,
    eval: |_, _, _, _| unreachable!("the interpreter reads inputs from its environment"),
};

pub(super) static CONST: Record = Record {
    name: "const",
    signature: "-> x []",
    maths: "A constant scalar.",
    infer: |op, operands| {
        let [] = arity(operands)?;
        let Op::Const(bits, dtype) = op else { unreachable!("record of another op") };
        let value = bits.get();
        if *dtype == DType::I32 && f64::from(value as i32) != value {
            return Err(format!("{value} does not fit int32"));
        }
        Ok(vec![Type::scalar(*dtype)])
    },
    access: pointwise,
    cases: |op, at| {
        let Op::Const(bits, _) = op else { unreachable!("record of another op") };
        at.always(Known::number(bits.get(), at.zone.coordinates()).cast(at.dtype))
    },
    vjp: |_| vec![],
    flops: no_flops,
    eval: |op, _, _, _| {
        let Op::Const(bits, _) = op else { unreachable!("record of another op") };
        vec![vec![bits.get()]]
    },
};

pub(super) static IOTA: Record = Record {
    name: "iota",
    signature: "-> i [N] int32",
    maths: "i[n] = n.",
    infer: |op, operands| {
        let [] = arity(operands)?;
        let Op::Iota(axis) = op else { unreachable!("record of another op") };
        Ok(vec![Type::new(DType::I32, [*axis])])
    },
    access: pointwise,
    cases: |_, at| at.always(Known::index(1, at.zone)),
    vjp: |_| vec![],
    flops: no_flops,
    eval: |op, _, _, _| {
        let Op::Iota(axis) = op else { unreachable!("record of another op") };
        vec![(0..axis.size).map(|i| i as f64).collect()]
    },
};
