//! Text form of attributes: what [`Op::attrs`] prints, [`Op::from_text`] reads back.

use std::str::FromStr;

use smallvec::SmallVec;

use crate::op::{Binary, Bits, DotDims, Op, Reduction, Unary};
use crate::quant::Grid;
use crate::ty::Type;

const BINARY: [Binary; 9] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Max,
    Binary::Rem,
    Binary::Xor,
    Binary::Gt,
    Binary::Eq,
];

fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    format!("[{}]", items.join(", "))
}

fn parse_list<T: FromStr>(text: &str) -> Result<Vec<T>, String> {
    let bad = || format!("`{text}` is not a list");
    let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).ok_or_else(bad)?;
    let items = inner.split(',').map(str::trim).filter(|t| !t.is_empty());
    items.map(|t| t.parse().map_err(|_| bad())).collect()
}

impl Op {
    /// Attributes as (name, text) pairs, in a fixed order.
    pub fn attrs(&self) -> Vec<(&'static str, String)> {
        match self {
            Op::Input(slot, ty) => vec![("slot", slot.to_string()), ("type", ty.to_string())],
            Op::Const(value, dtype) => {
                vec![("value", format!("{:?}", value.get())), ("dtype", dtype.to_string())]
            }
            Op::Iota(axis) => vec![("axis", axis.to_string())],
            Op::Cast(dtype) => vec![("to", dtype.to_string())],
            Op::FakeQuant(grid) => {
                vec![("clip", grid.clip.to_string()), ("rule", grid.rule.to_string())]
            }
            Op::Reduce(_, axes) => vec![("axes", list(axes))],
            Op::Reshape(axes) | Op::Broadcast(axes) => vec![("to", list(axes))],
            Op::Transpose(perm) => vec![("perm", list(perm))],
            Op::Slice { axis, start, len } => {
                vec![("axis", axis.to_string()), ("start", start.to_string()), ("len", len.to_string())]
            }
            Op::Pad { axis, before, after } => {
                vec![("axis", axis.to_string()), ("before", before.to_string()), ("after", after.to_string())]
            }
            Op::Shift { axis, by } => vec![("axis", axis.to_string()), ("by", by.to_string())],
            Op::Permute(perm) => vec![("perm", list(perm.iter()))],
            Op::Dot(d) => vec![
                ("batch_lhs", list(d.batch.iter().map(|p| p.0))),
                ("batch_rhs", list(d.batch.iter().map(|p| p.1))),
                ("lhs", list(d.contract.iter().map(|p| p.0))),
                ("rhs", list(d.contract.iter().map(|p| p.1))),
            ],
            Op::ScatterAdd { rows } => vec![("rows", rows.to_string())],
            Op::Attention { scale } | Op::AttentionGrad { scale } => {
                vec![("scale", format!("{:?}", scale.get()))]
            }
            Op::Unary(_) | Op::Binary(_) | Op::Select | Op::StopGradient | Op::Gather => vec![],
        }
    }

    /// The op with this name and these attributes.
    pub fn from_text(name: &str, attrs: &[(String, String)]) -> Result<Op, String> {
        let find = |key: &str| attrs.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let get = |key: &str| find(key).ok_or_else(|| format!("`{name}` needs the attribute `{key}`"));
        fn number<T: FromStr>(text: &str) -> Result<T, String> {
            text.parse().map_err(|_| format!("`{text}` is not a number of the right kind"))
        }
        let axes = |key: &str| -> Result<SmallVec<[usize; 4]>, String> {
            Ok(parse_list::<usize>(get(key)?)?.into_iter().collect())
        };
        let pairs = |l: &str, r: &str| -> Result<SmallVec<[(usize, usize); 2]>, String> {
            Ok(parse_list(get(l)?)?.into_iter().zip(parse_list(get(r)?)?).collect())
        };
        if let Some(f) = Unary::ALL.iter().copied().find(|&f| Op::Unary(f).record().name == name) {
            return Ok(Op::Unary(f));
        }
        if let Some(f) = BINARY.into_iter().find(|&f| Op::Binary(f).record().name == name) {
            return Ok(Op::Binary(f));
        }
        Ok(match name {
            "input" => Op::Input(get("slot")?.parse()?, get("type")?.parse::<Type>()?),
            "const" => Op::Const(Bits::new(number(get("value")?)?), get("dtype")?.parse()?),
            "iota" => Op::Iota(get("axis")?.parse()?),
            "cast" => Op::Cast(get("to")?.parse()?),
            "fake_quant" => Op::FakeQuant(Grid {
                clip: number(get("clip")?)?,
                rule: get("rule")?.parse().map_err(|e: crate::quant::GridError| e.to_string())?,
            }),
            "sum" => Op::Reduce(Reduction::Sum, axes("axes")?),
            "reduce_max" => Op::Reduce(Reduction::Max, axes("axes")?),
            "reshape" => Op::Reshape(parse_list(get("to")?)?.into_iter().collect()),
            "broadcast" => Op::Broadcast(parse_list(get("to")?)?.into_iter().collect()),
            "transpose" => Op::Transpose(axes("perm")?),
            "slice" => Op::Slice {
                axis: number(get("axis")?)?,
                start: number(get("start")?)?,
                len: number(get("len")?)?,
            },
            "pad" => Op::Pad {
                axis: number(get("axis")?)?,
                before: number(get("before")?)?,
                after: number(get("after")?)?,
            },
            "shift" => Op::Shift { axis: number(get("axis")?)?, by: number(get("by")?)? },
            "permute_columns" => Op::Permute(parse_list::<u32>(get("perm")?)?.into()),
            "dot" => {
                Op::Dot(DotDims { batch: pairs("batch_lhs", "batch_rhs")?, contract: pairs("lhs", "rhs")? })
            }
            "scatter_add" => Op::ScatterAdd { rows: number(get("rows")?)? },
            "attention" => Op::Attention { scale: Bits::new(number(get("scale")?)?) },
            "attention_grad" => Op::AttentionGrad { scale: Bits::new(number(get("scale")?)?) },
            "select" => Op::Select,
            "stop_gradient" => Op::StopGradient,
            "gather" => Op::Gather,
            _ => return Err(format!("there is no op `{name}`")),
        })
    }
}
