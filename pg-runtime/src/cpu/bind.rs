//! From a plan's buffers to memory.

use pg_codegen::plan::{Buffer, Launch, Place, Plan};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;

use super::aligned::Aligned;
use super::error::{CallError, CpuError, Problem, check_length, supplied};
use super::kernel::Compiled;
use super::raw::Arg;
use crate::state::{self, State};

/// Where a buffer's memory comes from at each run.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// The call's data.
    Data,
    /// The state, at a place found when the state was first seen.
    State,
    /// Memory of the executor: results, scalars and constants.
    Own(usize),
    /// The arena, at a byte offset.
    Arena(usize),
}

/// Memory of a plan's buffers.
#[derive(Debug)]
pub(crate) struct Buffers {
    sources: Vec<Source>,
    own: Vec<(Option<Slot>, Aligned)>,
    /// The state that `places` belong to.
    state: Option<u64>,
    places: Vec<Option<state::Place>>,
    /// This run's memory, by buffer.
    memory: Vec<Arg>,
    /// The arguments of all launches, one after the other, and where each launch's begin.
    args: Vec<Arg>,
    starts: Vec<usize>,
}

pub(crate) fn launch_error(plan: &Plan, launch: usize, problem: Problem) -> CpuError {
    let note = plan.launches.get(launch).map_or_else(String::new, Launch::note);
    CpuError::Launch { program: plan.program.clone(), launch, note, problem }
}

/// Says what is wrong with where a buffer is to lie; `bytes` are those that it takes of the arena.
pub(crate) fn check_place(plan: &Plan, buffer: &Buffer, bytes: usize) -> Result<(), &'static str> {
    match &buffer.place {
        Place::External(slot) if !slot.space.holds(buffer.dtype) => {
            Err("data is int32, cached weights are float32 or bf16, all other slots float32")
        }
        Place::Temp { offset } if offset % 64 != 0 || offset.saturating_add(bytes) > plan.arena_bytes => {
            Err("its place in the arena is unaligned or beyond the end")
        }
        Place::Constant(bits) if bits.len() != buffer.len => Err("its constant has another length"),
        _ => Ok(()),
    }
}

impl Buffers {
    pub(crate) fn new(plan: &Plan) -> Result<Self, CpuError> {
        let mut own: Vec<(Option<Slot>, Aligned)> = Vec::new();
        let mut sources = Vec::new();
        for buffer in &plan.buffers {
            let bad = |problem| {
                let (program, label) = (plan.program.clone(), buffer.label.clone());
                CpuError::Buffer { program, label, problem }
            };
            let bytes = buffer.len.saturating_mul(buffer.dtype.size());
            check_place(plan, buffer, bytes).map_err(bad)?;
            let source = match &buffer.place {
                Place::External(slot) => match slot.space {
                    Space::Data => Source::Data,
                    // Two buffers of one slot are one memory.
                    Space::Scalar | Space::Result => {
                        match own.iter().position(|(s, _)| s.as_ref() == Some(slot)) {
                            Some(i) if own[i].1.len() == buffer.len => Source::Own(i),
                            Some(_) => return Err(bad("its slot has another buffer of another length")),
                            None => {
                                let memory = Aligned::try_zeroed(buffer.len);
                                let memory =
                                    memory.map_err(|_| bad("this machine has not the memory for it"))?;
                                own.push((Some(slot.clone()), memory));
                                Source::Own(own.len() - 1)
                            }
                        }
                    }
                    _ => Source::State,
                },
                Place::Temp { offset } => Source::Arena(*offset),
                Place::Constant(bits) => {
                    own.push((None, constant(bits, buffer.dtype)));
                    Source::Own(own.len() - 1)
                }
            };
            sources.push(source);
        }
        let mut starts = vec![0];
        for launch in &plan.launches {
            starts.push(starts[starts.len() - 1] + launch.args.len());
        }
        Ok(Buffers {
            places: vec![None; sources.len()],
            memory: Vec::with_capacity(sources.len()),
            args: Vec::with_capacity(starts[starts.len() - 1]),
            state: None,
            sources,
            own,
            starts,
        })
    }

    /// Checks all launches with stand-in addresses: external buffers far apart, temporaries where they
    /// will lie in the arena. What depends on where state lies is checked when a state is first bound.
    pub(crate) fn check_launches(&self, plan: &Plan, kernels: &[Compiled]) -> Result<(), CpuError> {
        const APART: usize = 1 << 44;
        let stand_in = |i: usize| {
            let address = match self.sources[i] {
                Source::Arena(offset) => APART + offset,
                _ => (i + 2) * APART,
            };
            let buffer = &plan.buffers[i];
            Arg::new(std::ptr::without_provenance_mut(address), buffer.len, buffer.dtype)
        };
        let memory: Vec<Arg> = (0..plan.buffers.len()).map(stand_in).collect();
        for (i, launch) in plan.launches.iter().enumerate() {
            let error = |problem| launch_error(plan, i, problem);
            let kernel = kernels.get(launch.kernel.0 as usize);
            let kernel = kernel.ok_or_else(|| error(Problem::NoKernel(launch.kernel.0)))?;
            if let Some(b) = launch.args.iter().find(|b| b.0 as usize >= memory.len()) {
                return Err(error(Problem::NoBuffer(b.0)));
            }
            let args: Vec<Arg> = launch.args.iter().map(|b| memory[b.0 as usize]).collect();
            kernel.check(&args).map_err(error)?;
            let read_only = |&arg: &usize| match &plan.buffers[launch.args[arg].0 as usize].place {
                Place::External(slot) => matches!(slot.space, Space::Data | Space::Scalar),
                Place::Constant(_) => true,
                Place::Temp { .. } => false,
            };
            if let Some(arg) = kernel.written().into_iter().find(read_only) {
                return Err(error(Problem::ReadOnly { arg }));
            }
        }
        Ok(())
    }

    /// Finds this run's memory; temporaries are in the arena. Looks up state by name, and checks it, only if it is another state than
    /// the last time.
    pub(crate) fn bind(
        &mut self,
        plan: &Plan,
        kernels: &[Compiled],
        arena: *mut u8,
        state: &mut State,
        data: &[(&str, &[i32])],
        scalars: &[(&str, f32)],
    ) -> Result<(), CpuError> {
        let program = &plan.program;
        let fresh = self.state != Some(state.id());
        self.state = None;
        self.memory.clear();
        for (i, buffer) in plan.buffers.iter().enumerate() {
            let (pointer, len): (*mut u8, usize) = match (self.sources[i], &buffer.place) {
                (Source::Data, Place::External(slot)) => {
                    let ids = supplied(program, slot, data)?;
                    // Never written: `check_launches` has seen to it.
                    (ids.as_ptr().cast_mut().cast(), ids.len())
                }
                (Source::State, Place::External(slot)) => {
                    let failed = |error| CallError::State { program: program.clone(), error };
                    let place = match self.places[i] {
                        Some(place) if !fresh => place,
                        _ => state.locate(slot, buffer.dtype).map_err(failed)?,
                    };
                    self.places[i] = Some(place);
                    (state.pointer(place).map_err(failed)?, place.len)
                }
                (Source::Own(own), place) => {
                    let (_, memory) = &mut self.own[own];
                    if let Place::External(slot @ Slot { space: Space::Scalar, .. }) = place {
                        memory.view_mut().fill(supplied(program, slot, scalars)?);
                    }
                    (memory.as_mut_ptr().cast(), buffer.len)
                }
                (Source::Arena(offset), _) => (arena.wrapping_add(offset), buffer.len),
                (Source::Data | Source::State, _) => unreachable!("only external buffers have these sources"),
            };
            if let Place::External(slot) = &buffer.place {
                check_length(program, slot, buffer.len, len)?;
            }
            self.memory.push(Arg::new(pointer, buffer.len, buffer.dtype));
        }
        self.args.clear();
        self.args.extend(plan.launches.iter().flat_map(|l| &l.args).map(|b| self.memory[b.0 as usize]));
        if fresh {
            // Two slots may be stretches of one bank: now it shows whether what is written overlaps.
            for (i, launch) in plan.launches.iter().enumerate() {
                let kernel = &kernels[launch.kernel.0 as usize];
                kernel.check(self.args(i)).map_err(|problem| launch_error(plan, i, problem))?;
            }
        }
        self.state = Some(state.id());
        Ok(())
    }

    /// Arguments of a launch, once bound.
    pub(crate) fn args(&self, launch: usize) -> &[Arg] {
        &self.args[self.starts[launch]..self.starts[launch + 1]]
    }

    pub(crate) fn result(&self, name: &str) -> Option<&[f32]> {
        let is_it = |slot: &Slot| slot.space == Space::Result && slot.name == name;
        self.own.iter().find(|(slot, _)| slot.as_ref().is_some_and(is_it)).map(|(_, memory)| memory.view())
    }

    pub(crate) fn bytes(&self) -> usize {
        4 * self.own.iter().map(|(_, m)| m.len()).sum::<usize>()
    }
}

/// A constant in its stored form. Plans give float and integer bits, one word an element.
fn constant(bits: &[u32], dtype: DType) -> Aligned {
    let mut memory = Aligned::zeroed((bits.len() * dtype.size()).div_ceil(4));
    match dtype {
        DType::F32 | DType::I32 => memory.view_mut().copy_from_slice(bits),
        DType::BF16 => {
            let out: &mut [u16] = bytemuck::cast_slice_mut(memory.view_mut::<u32>());
            out.iter_mut().zip(bits).for_each(|(o, b)| {
                *o = super::math::to_bf16(f32::from_bits(*b));
            });
        }
        DType::Bool => {
            let out: &mut [u8] = bytemuck::cast_slice_mut(memory.view_mut::<u32>());
            out.iter_mut().zip(bits).for_each(|(o, b)| *o = u8::from(*b != 0));
        }
    }
    memory
}
