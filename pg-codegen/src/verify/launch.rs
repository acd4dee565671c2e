//! Kernels, buffers and arguments: that they exist, that there are as many as the kernel takes, and that types and
//! lengths are what the kernel needs and what the values have that they are said to hold.
//!
//! Every other check follows ids without looking; this one must look at all of them.

use pg_ir::slot::Space;
use pg_ir::ty::DType;

use super::access::regions;
use super::{Check, Finding, Subject};
use crate::plan::witness::Roles;
use crate::plan::{Buffer, Kernel, Launch, Param, ParamType, Place};

pub(super) fn check(s: Subject<'_>) -> Result<(), Finding> {
    let fault = |message: String| Finding::new(Check::Shapes, message);
    if s.roles.len() != s.plan.launches.len() {
        let (n, m) = (s.plan.launches.len(), s.roles.len());
        return Err(fault(format!("{n} launches, but it is said of {m} what they hold")));
    }
    for (i, buffer) in s.plan.buffers.iter().enumerate() {
        check_buffer(buffer).map_err(|e| fault(format!("buffer b{i} ({}) {e}", buffer.label)))?;
    }
    let mut slots = s.plan.buffers.iter().filter_map(|b| match &b.place {
        Place::External(slot) => Some(slot),
        _ => None,
    });
    let mut known = std::collections::HashSet::new();
    if let Some(slot) = slots.find(|slot| !known.insert(*slot)) {
        return Err(fault(format!("{slot} has two buffers")));
    }
    for (i, kernel) in s.plan.kernels.iter().enumerate() {
        check_kernel(kernel).map_err(|e| fault(format!("kernel k{i} {e}")))?;
    }
    for (i, launch, roles) in s.launches() {
        check_launch(s, launch, roles).map_err(|e| Finding::at(Check::Shapes, i, e))?;
    }
    Ok(())
}

fn check_buffer(buffer: &Buffer) -> Result<(), String> {
    if buffer.len == 0 || buffer.len.checked_mul(buffer.dtype.size()).is_none() {
        return Err(format!("has {} elements", buffer.len));
    }
    match &buffer.place {
        Place::Constant(bits) if bits.len() != buffer.len => {
            Err(format!("holds {} constants, but has {} elements", bits.len(), buffer.len))
        }
        Place::Constant(_) if !matches!(buffer.dtype, DType::F32 | DType::I32) => {
            Err(format!("holds constants of type {}", buffer.dtype))
        }
        _ => Ok(()),
    }
}

/// What has to hold for [`super::access`] to take a kernel apart.
fn check_kernel(kernel: &Kernel) -> Result<(), String> {
    kernel.check()?;
    regions(kernel).iter().try_for_each(|part| super::region::check_arguments(part.region))
}

fn check_launch(s: Subject<'_>, launch: &Launch, roles: &Roles) -> Result<(), String> {
    let Some(kernel) = s.plan.kernels.get(launch.kernel.0 as usize) else {
        return Err(format!("there is no kernel k{}", launch.kernel.0));
    };
    let params = kernel.params();
    let (want, have) = (params.len(), launch.args.len());
    if want != have {
        return Err(format!("its kernel takes {want} arguments, it has {have}"));
    }
    if let Some(b) = launch.args.iter().find(|b| b.0 as usize >= s.plan.buffers.len()) {
        return Err(format!("there is no buffer b{}", b.0));
    }
    if (roles.reads.len(), roles.writes.len()) != (have, have) {
        return Err("it is not said of each of its arguments what it holds".into());
    }
    for (arg, param) in params.iter().enumerate() {
        let (reads, writes) = (param.is_read, param.is_written);
        let claims = (roles.reads[arg].is_some(), roles.writes[arg].is_some());
        if claims != (reads, writes) {
            let said = |(r, w): (bool, bool)| match (r, w) {
                (true, true) => "reads and writes it",
                (true, false) => "reads it",
                (false, true) => "writes it",
                (false, false) => "does not touch it",
            };
            return Err(format!(
                "argument {arg}: the kernel {}, the plan {}",
                said((reads, writes)),
                said(claims)
            ));
        }
        let buffer = s.buffer(launch, arg);
        for &value in [roles.reads[arg], roles.writes[arg]].iter().flatten() {
            if value.index() >= s.graph.value_count() {
                return Err(format!("argument {arg}: there is no value {value}"));
            }
            let ty = s.graph.ty(value);
            if (ty.dtype, ty.len()) != (buffer.dtype, buffer.len) {
                let what = s.describe(value);
                let (dtype, len) = (buffer.dtype, buffer.len);
                return Err(format!("argument {arg}: {what} does not fit a buffer of {len} {dtype}"));
            }
        }
        let is_given = match &buffer.place {
            Place::External(slot) => matches!(slot.space, Space::Data | Space::Scalar),
            Place::Constant(_) => true,
            Place::Temp { .. } => false,
        };
        if writes && is_given {
            return Err(format!("argument {arg}: it writes what the program is given"));
        }
    }
    if let Some(node) = roles.library.iter().find(|n| n.index() >= s.graph.nodes().len()) {
        return Err(format!("there is no node {}", node.index()));
    }
    check_types(s, launch, &params)
}

/// Types, and lengths where the kernel says them.
fn check_types(s: Subject<'_>, launch: &Launch, params: &[Param]) -> Result<(), String> {
    for (arg, param) in params.iter().enumerate() {
        let Buffer { dtype, len, .. } = *s.buffer(launch, arg);
        let is_right = match param.ty {
            ParamType::Of(want) => dtype == want,
            ParamType::Float => dtype.is_float(),
            ParamType::First => dtype == s.buffer(launch, 0).dtype,
            ParamType::Any => true,
        };
        if !is_right {
            return Err(format!("argument {arg} is {dtype}, the kernel takes {}", param.ty));
        }
        if let Some(want) = param.len.filter(|&want| want != len) {
            return Err(format!("argument {arg} has {len} elements, the kernel takes {want}"));
        }
    }
    Ok(())
}
