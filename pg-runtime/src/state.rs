//! State: everything that lives between programs. Parameters, gradients, optimiser state, averages.
//!
//! Memory is allocated by bank: one zero-initialised float32 vector for each (space, bank). A parameter is
//! an alias for a stretch of its bank, the same stretch in every space, so that
//! `@momentum:blocks.3.mlp.fc.weight` and `@param:blocks.3.mlp.fc.weight` lie at the same offset. Programs
//! may name either level; a bank is simply a name without an alias. Cached weights are banks of
//! their own, in the element type that the program which leaves them gives them.
//!
//! A bank lies where programs use it: on the host, or on the device that last ran one. It moves when it is
//! asked for somewhere else, so what reads and writes parameters by name need not know where they are. Copies
//! in two places are equal; one that could be stale must never be kept.

#[cfg(feature = "cube")]
use std::any::Any;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use pg_codegen::plan::{self, Plan};
use pg_ir::slot::{Slot, Space};
use pg_ir::ty::DType;

use crate::cpu::aligned::Aligned;
use crate::memory::{self, TooLarge};

/// The stretch of a bank that a parameter occupies.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Segment {
    /// The bank.
    pub bank: String,
    /// First element.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
}

/// What can be wrong with a request to a [`State`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StateError {
    /// The space is not one whose slots live between programs.
    #[error(
        "{0} is not state: only parameters, their cached weights, gradients, optimiser state and averages are kept"
    )]
    NotState(Slot),
    /// A bank was asked for twice, with two lengths.
    #[error("{slot} holds {have} elements; it cannot be allocated again with {want}")]
    OtherLength {
        /// The bank's slot.
        slot: Slot,
        /// Its length.
        have: usize,
        /// The length asked for.
        want: usize,
    },
    /// A bank holds elements of another type than was asked for.
    #[error("{slot} holds elements of {have}, not of {want}")]
    OtherType {
        /// The bank's slot.
        slot: Slot,
        /// Its element type.
        have: DType,
        /// The element type asked for.
        want: DType,
    },
    /// A parameter's stretch goes beyond the end of its bank.
    #[error("{slot} is elements {offset}..{end} of bank `{bank}`, which has only {len}")]
    OutsideBank {
        /// The parameter's slot.
        slot: Slot,
        /// Its bank.
        bank: String,
        /// First element.
        offset: usize,
        /// One past the last element.
        end: usize,
        /// Length of the bank.
        len: usize,
    },
    /// Nothing was allocated for the slot.
    #[error("no memory was allocated for {0}")]
    Missing(Slot),
    /// Memory cannot hold what the model keeps between programs.
    #[error("for what the model keeps between programs, {0}")]
    Memory(TooLarge),
    /// The device that holds it could not be read.
    #[error("{0}")]
    Device(String),
}

impl From<TooLarge> for StateError {
    fn from(error: TooLarge) -> StateError {
        StateError::Memory(error)
    }
}

/// A place in a [`State`], found once and used at every launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Position of the bank among [`State::memory`].
    pub(crate) bank: usize,
    /// First element.
    pub(crate) offset: usize,
    /// Number of elements.
    pub(crate) len: usize,
}

/// A bank's elements in the memory of a device other than the host.
pub(crate) trait Remote: fmt::Debug {
    /// Copies their bytes to the host.
    ///
    /// # Errors
    /// If the device failed, in its words.
    fn download(&self, to: &mut [u8]) -> Result<(), String>;

    /// For the device's own executor.
    #[cfg(feature = "cube")]
    fn as_any(&self) -> &dyn Any;
}

/// A bank's elements, on the host, on a device, or equal on both; never nowhere.
#[derive(Debug)]
struct Bank {
    dtype: DType,
    len: usize,
    host: OnceCell<Aligned>,
    remote: Option<Box<dyn Remote>>,
}

impl Bank {
    fn zeroed(dtype: DType, len: usize) -> Result<Bank, TooLarge> {
        let bank = Bank { dtype, len, host: OnceCell::new(), remote: None };
        let _ = bank.host.set(bank.zeros()?);
        Ok(bank)
    }

    fn bytes(&self) -> usize {
        self.len * self.dtype.size()
    }

    fn zeros(&self) -> Result<Aligned, TooLarge> {
        let needed = self.bytes() as u64;
        Aligned::try_zeroed(self.bytes().div_ceil(4)).map_err(|_| TooLarge { needed, total: None })
    }

    fn host(&self) -> Result<&Aligned, StateError> {
        if let Some(host) = self.host.get() {
            return Ok(host);
        }
        let mut copy = self.zeros()?;
        if let Some(remote) = &self.remote {
            let bytes = &mut bytemuck::cast_slice_mut(copy.view_mut::<u32>())[..self.bytes()];
            remote.download(bytes).map_err(StateError::Device)?;
        }
        Ok(self.host.get_or_init(|| copy))
    }

    fn host_mut(&mut self) -> Result<&mut Aligned, StateError> {
        self.host()?;
        self.remote = None;
        self.host.get_mut().ok_or_else(|| StateError::Device("a bank is nowhere".into()))
    }
}

/// Memory of everything that lives between programs.
#[derive(Debug)]
pub struct State {
    id: u64,
    aliases: HashMap<String, Segment>,
    // Two levels, so that a look-up by `&str` allocates nothing.
    banks: HashMap<Space, HashMap<String, usize>>,
    memory: Vec<Bank>,
    /// Phase of the gradients that were begun last, none for those of scores, and whether they go through the quantisers:
    /// until parameters change, a step's other micro-batches find here what its first one left.
    pub(crate) begun: Option<(Option<usize>, bool)>,
}

impl State {
    /// An empty state whose parameters lie in banks as `aliases` says.
    pub fn new(aliases: impl IntoIterator<Item = (String, Segment)>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        State {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            aliases: aliases.into_iter().collect(),
            banks: HashMap::new(),
            memory: Vec::new(),
            begun: None,
        }
    }

    /// Allocates a bank of zeros, or leaves it alone if it is there already with this length.
    pub fn allocate(&mut self, space: Space, bank: &str, len: usize) -> Result<(), StateError> {
        self.allocate_as(DType::F32, space, bank, len)
    }

    /// Allocates the cached weights that a program leaves, unless they are there already.
    pub fn allocate_cached_weights(&mut self, plan: &Plan) -> Result<(), StateError> {
        for buffer in &plan.buffers {
            if let plan::Place::External(slot @ Slot { space: Space::CachedWeight, .. }) = &buffer.place {
                self.allocate_as(buffer.dtype, slot.space, &slot.name, buffer.len)?;
            }
        }
        Ok(())
    }

    fn allocate_as(&mut self, dtype: DType, space: Space, bank: &str, len: usize) -> Result<(), StateError> {
        let slot = || Slot::new(space, bank);
        if !space.is_state() {
            return Err(StateError::NotState(slot()));
        }
        let banks = self.banks.entry(space).or_default();
        if let Some(&at) = banks.get(bank) {
            let found = &self.memory[at];
            return if found.dtype != dtype {
                Err(StateError::OtherType { slot: slot(), have: found.dtype, want: dtype })
            } else if found.len != len {
                Err(StateError::OtherLength { slot: slot(), have: found.len, want: len })
            } else {
                Ok(())
            };
        }
        // Pages are given when they are written to: each bank alone may seem to fit.
        let bytes = (len as u64).saturating_mul(dtype.size() as u64);
        memory::check(bytes.saturating_add(self.memory.iter().map(|b| b.bytes() as u64).sum()))?;
        let allocated = Bank::zeroed(dtype, len)?;
        banks.insert(bank.to_owned(), self.memory.len());
        self.memory.push(allocated);
        Ok(())
    }

    /// The elements of a parameter or bank.
    pub fn get(&self, slot: &Slot) -> Result<&[f32], StateError> {
        let at = self.locate(slot, DType::F32)?;
        Ok(&self.memory[at.bank].host()?.view()[at.offset..at.offset + at.len])
    }

    /// The elements of a parameter or bank.
    pub fn get_mut(&mut self, slot: &Slot) -> Result<&mut [f32], StateError> {
        if slot.space == Space::Param {
            self.begun = None;
        }
        let at = self.locate(slot, DType::F32)?;
        Ok(&mut self.memory[at.bank].host_mut()?.view_mut()[at.offset..at.offset + at.len])
    }

    /// Allocated banks with their lengths, in order of allocation within a space.
    pub fn banks(&self) -> impl Iterator<Item = (Slot, usize)> {
        let mut all: Vec<_> = (self.banks.iter())
            .flat_map(|(&space, banks)| banks.iter().map(move |(name, &at)| (space, at, name)))
            .collect();
        all.sort_unstable();
        all.into_iter().map(|(space, at, name)| (Slot::new(space, name.as_str()), self.memory[at].len))
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.memory.iter().map(Bank::bytes).sum()
    }

    /// A number that no other state of this process has: places found in one are of no use in another.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Where a slot lies that is to hold elements of this type.
    pub(crate) fn locate(&self, slot: &Slot, dtype: DType) -> Result<Place, StateError> {
        let place = self.find(slot)?;
        let have = self.memory[place.bank].dtype;
        if have == dtype {
            Ok(place)
        } else {
            Err(StateError::OtherType { slot: slot.clone(), have, want: dtype })
        }
    }

    fn find(&self, slot: &Slot) -> Result<Place, StateError> {
        let bank_of = |name: &str| self.banks.get(&slot.space).and_then(|banks| banks.get(name)).copied();
        // A bank wins over an alias of the same name: banks resolve to themselves.
        if let Some(bank) = bank_of(&slot.name) {
            return Ok(Place { bank, offset: 0, len: self.memory[bank].len });
        }
        let missing = || StateError::Missing(slot.clone());
        let segment = self.aliases.get(&slot.name).ok_or_else(missing)?;
        let bank = bank_of(&segment.bank).ok_or_else(missing)?;
        let len = self.memory[bank].len;
        let end = segment.offset.saturating_add(segment.len);
        if end > len {
            let (slot, bank, offset) = (slot.clone(), segment.bank.clone(), segment.offset);
            return Err(StateError::OutsideBank { slot, bank, offset, end, len });
        }
        Ok(Place { bank, offset: segment.offset, len: segment.len })
    }

    /// The elements of a bank on a device. `is_there` says whether the device copy, if there is one, is the
    /// caller's; otherwise `upload` makes it from the host's. The host's copy is given up: the caller is about
    /// to run a program, which may write.
    #[cfg(feature = "cube")]
    pub(crate) fn remote<T: Remote + 'static>(
        &mut self,
        bank: usize,
        is_there: impl Fn(&T) -> bool,
        upload: impl FnOnce(&[u8]) -> Result<T, String>,
    ) -> Result<&T, StateError> {
        fn as_own<T: 'static>(bank: &Bank) -> Option<&T> {
            bank.remote.as_ref()?.as_any().downcast_ref()
        }
        let bank = &mut self.memory[bank];
        if !as_own(bank).is_some_and(is_there) {
            let bytes = &bytemuck::cast_slice(bank.host()?.view::<u32>())[..bank.bytes()];
            let uploaded = upload(bytes).map_err(StateError::Device)?;
            bank.remote = Some(Box::new(uploaded));
        }
        bank.host = OnceCell::new();
        as_own(bank).ok_or_else(|| StateError::Device("a bank is not where it was put".into()))
    }

    /// Pointer to a place's first element on the host. Pointers to several places of one bank are good
    /// together.
    pub(crate) fn pointer(&mut self, at: Place) -> Result<*mut u8, StateError> {
        let bank = &mut self.memory[at.bank];
        let bytes = at.offset * bank.dtype.size();
        Ok(bank.host_mut()?.as_mut_ptr().cast::<u8>().wrapping_add(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let at = |offset, len| Segment { bank: "mlp".into(), offset, len };
        let aliases = [("a".to_owned(), at(0, 3)), ("b".to_owned(), at(3, 5)), ("c".to_owned(), at(6, 5))];
        let mut state = State::new(aliases);
        state.allocate(Space::Param, "mlp", 8).unwrap();
        state
    }

    #[test]
    fn parameters_are_stretches_of_their_bank() {
        let mut state = state();
        state.get_mut(&Slot::new(Space::Param, "b")).unwrap().fill(2.0);
        let bank = state.get(&Slot::new(Space::Param, "mlp")).unwrap();
        assert_eq!(bank, [0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(bank.as_ptr() as usize % 64, 0);
        assert_eq!(state.get(&Slot::new(Space::Param, "a")).unwrap(), [0.0; 3]);
    }

    /// A plan that leaves one cached weight.
    fn leaving(dtype: DType, len: usize) -> Plan {
        let place = plan::Place::External(Slot::new(Space::CachedWeight, "a"));
        let buffer = plan::Buffer { dtype, len, place, label: String::new(), why: "" };
        Plan { buffers: vec![buffer], ..Plan::default() }
    }

    #[test]
    fn cached_weights_are_banks_of_their_own_type() {
        let mut state = state();
        let slot = Slot::new(Space::CachedWeight, "a");
        assert_eq!(state.locate(&slot, DType::BF16), Err(StateError::Missing(slot.clone())));
        let before = state.bytes();
        state.allocate_cached_weights(&leaving(DType::BF16, 3)).unwrap();
        state.allocate_cached_weights(&leaving(DType::BF16, 3)).unwrap();
        assert_eq!(state.bytes(), before + 6);
        let place = state.locate(&slot, DType::BF16).unwrap();
        assert_eq!((place.offset, place.len), (0, 3));
        assert!(matches!(state.get(&slot), Err(StateError::OtherType { .. })));
        let error = state.allocate_cached_weights(&leaving(DType::F32, 3)).unwrap_err();
        assert_eq!(error.to_string(), "@cached:a holds elements of bf16, not of f32");
    }

    #[test]
    fn bad_requests_are_errors() {
        let mut state = state();
        assert!(matches!(state.get(&Slot::new(Space::Grad, "a")), Err(StateError::Missing(_))));
        assert!(matches!(state.get(&Slot::new(Space::Param, "z")), Err(StateError::Missing(_))));
        assert!(matches!(state.get(&Slot::new(Space::Param, "c")), Err(StateError::OutsideBank { .. })));
        assert!(matches!(state.allocate(Space::Data, "tokens", 1), Err(StateError::NotState(_))));
        assert!(matches!(state.allocate(Space::Param, "mlp", 9), Err(StateError::OtherLength { .. })));
        assert_eq!(state.allocate(Space::Param, "mlp", 8), Ok(()));
    }

    #[test]
    fn state_that_memory_cannot_hold_is_an_error() {
        let mut state = state();
        for len in [usize::MAX, usize::MAX / 4, 1 << 50] {
            let error = state.allocate(Space::Param, "huge", len).unwrap_err();
            assert!(matches!(error, StateError::Memory(_)), "{error}");
        }
        // Each fits, all together do not. Nothing is written to, so nothing is taken.
        let Some(total) = memory::total() else { return };
        let each = total as usize / 4 / 3 - 16;
        let all: Result<Vec<_>, _> =
            (0..4).map(|i| state.allocate(Space::Param, &i.to_string(), each)).collect();
        assert!(matches!(all, Err(StateError::Memory(_))), "{all:?}");
        assert!(state.banks().count() <= 4, "three of them and `mlp`");
    }
}
