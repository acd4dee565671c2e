//! From a plan's buffers to device memory.

use cubecl::prelude::*;
use cubecl::server::Handle;
use pg_codegen::kernels::{Extent, element_bytes};
use pg_codegen::plan::{Buffer, Place, Plan};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;

use super::device::{Device, Memory, Resident};
use super::error::CubeExecError;
use crate::cpu::{CallError, check_length, check_place, supplied};
use crate::executor::Inputs;
use crate::state::State;

/// Where a buffer's memory comes from at each run.
#[derive(Clone, Debug)]
enum Source {
    /// The call's data or scalars.
    Call,
    /// The state, at a place found when the state was first seen.
    State,
    /// Memory of the executor: results, constants, and temporaries that do not lie as in the plan.
    Own(Memory),
    /// The arena, at a byte offset.
    Arena(usize),
}

/// A buffer's memory in this run.
#[derive(Clone, Debug)]
pub(super) struct Range {
    memory: Memory,
    pub(super) extent: Extent,
}

/// Memory of a plan's buffers.
#[derive(Debug)]
pub(super) struct Buffers {
    sources: Vec<Source>,
    arena: Memory,
    results: Vec<(Slot, Memory, usize)>,
}

impl Buffers {
    pub(super) fn new<R: Runtime>(plan: &Plan, device: &Device<R>) -> Result<Self, CubeExecError> {
        let machine = device.machine();
        let check = |bytes: usize| {
            if bytes as u64 <= machine.limits.allocation_bytes {
                return Ok(());
            }
            let (program, device) = (plan.program.clone(), machine.name.to_string());
            let (need, have) = (bytes as u64, machine.limits.allocation_bytes);
            Err(CubeExecError::Memory { program, device, need, have })
        };
        check(plan.arena_bytes)?;
        let mut results: Vec<(Slot, Memory, usize)> = Vec::new();
        let mut sources = Vec::new();
        for buffer in &plan.buffers {
            let bytes = buffer.len.saturating_mul(element_bytes(buffer.dtype));
            check(bytes)?;
            let bad = |problem: &str| {
                let (program, label) = (plan.program.clone(), buffer.label.clone());
                CubeExecError::Buffer { program, label, problem: problem.into() }
            };
            if buffer.dtype == DType::BF16 && !machine.has_bf16() {
                return Err(bad("the device has no bfloat16 buffers; use --precision f32"));
            }
            // The plan counts a byte for a boolean: those lie elsewhere.
            let in_arena = buffer.dtype != DType::Bool;
            check_place(plan, buffer, if in_arena { bytes } else { 0 }).map_err(bad)?;
            sources.push(match &buffer.place {
                Place::External(slot) => match slot.space {
                    Space::Data | Space::Scalar => Source::Call,
                    Space::Result => match results.iter().find(|(s, ..)| s == slot) {
                        Some((_, memory, len)) if *len == buffer.len => Source::Own(memory.clone()),
                        Some(_) => return Err(bad("its slot has another buffer of another length")),
                        None => {
                            let memory = device.allocate(bytes)?;
                            results.push((slot.clone(), memory.clone(), buffer.len));
                            Source::Own(memory)
                        }
                    },
                    _ => Source::State,
                },
                Place::Temp { .. } if !in_arena => Source::Own(device.allocate(bytes)?),
                Place::Temp { offset } => Source::Arena(*offset),
                Place::Constant(bits) => Source::Own(device.allocate_with(&constant(bits, buffer.dtype))?),
            });
        }
        Ok(Buffers { sources, arena: device.allocate(plan.arena_bytes)?, results })
    }

    /// This run's memory, by buffer.
    pub(super) fn bind<R: Runtime>(
        &self,
        plan: &Plan,
        device: &Device<R>,
        state: &mut State,
        inputs: Inputs<'_>,
    ) -> Result<Vec<Range>, CubeExecError> {
        let program = &plan.program;
        let mut uploaded: Vec<(&Slot, Memory)> = Vec::new();
        let mut ranges = Vec::with_capacity(self.sources.len());
        for (source, buffer) in self.sources.iter().zip(&plan.buffers) {
            let bytes = buffer.len * element_bytes(buffer.dtype);
            let (memory, start) = match (source, &buffer.place) {
                (Source::Own(memory), _) => (memory.clone(), 0),
                (Source::Arena(offset), _) => (self.arena.clone(), *offset),
                (Source::State, Place::External(slot)) => {
                    let failed = |error| CallError::State { program: program.clone(), error };
                    let place = state.locate(slot, buffer.dtype).map_err(failed)?;
                    check_length(program, slot, buffer.len, place.len)?;
                    let is_there = |bank: &Resident<R>| bank.is_on(device);
                    let upload = |bank: &[u8]| Resident::upload(device, bank).map_err(|e| e.to_string());
                    let bank = state.remote(place.bank, is_there, upload).map_err(failed)?;
                    (bank.memory.clone(), place.offset * element_bytes(buffer.dtype))
                }
                (Source::Call, Place::External(slot)) => match uploaded.iter().find(|(s, _)| *s == slot) {
                    Some((_, memory)) => (memory.clone(), 0),
                    None => {
                        let memory = supply(plan, device, slot, buffer, inputs)?;
                        uploaded.push((slot, memory.clone()));
                        (memory, 0)
                    }
                },
                (Source::State | Source::Call, _) => unreachable!("only external buffers have these sources"),
            };
            let extent = Extent { allocation: memory.allocation, start, end: start + bytes };
            ranges.push(Range { memory, extent });
        }
        Ok(ranges)
    }

    /// Position of a result.
    pub(super) fn result(&self, name: &str) -> Option<usize> {
        self.results.iter().position(|(slot, ..)| slot.name == name)
    }

    /// Memory and length of every result.
    pub(super) fn results(&self) -> impl Iterator<Item = (&Memory, usize)> {
        self.results.iter().map(|(_, memory, len)| (memory, *len))
    }

    pub(super) fn result_count(&self) -> usize {
        self.results.len()
    }

    /// Bytes of temporaries, results and constants.
    pub(super) fn bytes(&self) -> usize {
        let own = |s: &Source| if let Source::Own(memory) = s { memory.capacity } else { 0 };
        self.arena.capacity + self.sources.iter().map(own).sum::<usize>()
    }
}

fn supply<R: Runtime>(
    plan: &Plan,
    device: &Device<R>,
    slot: &Slot,
    buffer: &Buffer,
    inputs: Inputs<'_>,
) -> Result<Memory, CubeExecError> {
    if slot.space == Space::Data {
        let ids = supplied(&plan.program, slot, inputs.data)?;
        check_length(&plan.program, slot, buffer.len, ids.len())?;
        return device.upload(bytemuck::cast_slice(ids));
    }
    let value = supplied(&plan.program, slot, inputs.scalars)?;
    device.upload(bytemuck::cast_slice(&vec![value; buffer.len]))
}

/// A constant in its stored form. Plans give float and integer bits, one word an element.
fn constant(bits: &[u32], dtype: DType) -> Vec<u8> {
    match dtype {
        DType::BF16 => {
            let short = |&b: &u32| half::bf16::from_f32(f32::from_bits(b)).to_bits().to_le_bytes();
            bits.iter().flat_map(short).collect()
        }
        _ => bytemuck::cast_slice(bits).to_vec(),
    }
}

impl Range {
    /// What is bound.
    pub(super) fn handle(&self, align: u64) -> Handle {
        let Extent { start, end, .. } = self.extent;
        let start = start - self.extent.shift(align);
        // A vector access may end beyond the last element, but not beyond the allocation.
        let end = end.next_multiple_of(16).min(self.memory.capacity);
        let after = self.memory.capacity - end;
        self.memory.handle.clone().offset_start(start as u64).offset_end(after as u64)
    }
}
