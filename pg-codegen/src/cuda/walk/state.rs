//! What is known of a thread's registers while a kernel is walked: a number, or nothing.

use super::operand::{File, Operand, Register, Sign, Special};

/// The thread block and thread that are walked, and the launch's shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) grid: [u32; 3],
    pub(super) threads: u32,
    pub(super) block: [u32; 3],
    pub(super) thread: u32,
}

/// A word of which some bits are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word {
    pub(super) bits: u32,
    /// Those of `bits` that are known.
    pub(super) known: u32,
}

impl Word {
    const UNKNOWN: Word = Word { bits: 0, known: 0 };

    fn new(value: Option<u32>) -> Word {
        value.map_or(Word::UNKNOWN, |bits| Word { bits, known: u32::MAX })
    }

    fn whole(self) -> Option<u32> {
        (self.known == u32::MAX).then_some(self.bits)
    }
}

/// Registers and predicates.
pub(super) struct State {
    place: Place,
    general: [Word; 256],
    uniform: [Word; 256],
    predicates: [Option<bool>; 8],
    uniform_predicates: [Option<bool>; 8],
}

impl State {
    pub(super) fn new(place: Place) -> State {
        State {
            place,
            general: [Word::UNKNOWN; 256],
            uniform: [Word::UNKNOWN; 256],
            predicates: [None; 8],
            uniform_predicates: [None; 8],
        }
    }

    fn register(&self, file: File, index: Register) -> Word {
        let Some(index) = index else { return Word::new(Some(0)) };
        match file {
            File::General => self.general[usize::from(index)],
            File::Uniform => self.uniform[usize::from(index)],
        }
    }

    /// Sets a register `after` the operand's own.
    pub(super) fn set(&mut self, to: Operand, after: u8, value: Option<u32>) {
        self.set_word(to, after, Word::new(value));
    }

    pub(super) fn set_word(&mut self, to: Operand, after: u8, value: Word) {
        let Operand::Register { file, index: Some(index), .. } = to else { return };
        let Some(index) = index.checked_add(after) else { return };
        match file {
            File::General => self.general[usize::from(index)] = value,
            File::Uniform => self.uniform[usize::from(index)] = value,
        }
    }

    pub(super) fn set_predicate(&mut self, to: Operand, value: Option<bool>) {
        let Operand::Predicate { file, index: Some(index), .. } = to else { return };
        match file {
            File::General => self.predicates[usize::from(index)] = value,
            File::Uniform => self.uniform_predicates[usize::from(index)] = value,
        }
    }

    /// A predicate as an operand uses it.
    pub(super) fn predicate(&self, operand: Operand) -> Option<bool> {
        let Operand::Predicate { file, index, negated } = operand else { return None };
        let value = match (file, index) {
            (_, None) => Some(true),
            (File::General, Some(index)) => self.predicates[usize::from(index)],
            (File::Uniform, Some(index)) => self.uniform_predicates[usize::from(index)],
        };
        value.map(|value| value != negated)
    }

    /// Predicates but the constant one, as bits; `mask` says which.
    pub(super) fn predicate_bits(&self, mask: u32) -> Word {
        let mut word = Word { bits: 0, known: u32::MAX };
        for (i, predicate) in self.predicates.iter().take(7).enumerate().filter(|(i, _)| mask >> i & 1 == 1) {
            match predicate {
                Some(holds) => word.bits |= u32::from(*holds) << i,
                None => word.known &= !(1 << i),
            }
        }
        word
    }

    pub(super) fn set_predicate_bits(&mut self, mask: u32, bits: Option<u32>) {
        for (i, predicate) in self.predicates.iter_mut().take(7).enumerate() {
            if mask >> i & 1 == 1 {
                *predicate = bits.map(|bits| bits >> i & 1 == 1);
            }
        }
    }

    /// The bits of a source, before any sign.
    pub(super) fn bits(&self, operand: Operand) -> Option<u32> {
        match operand {
            Operand::Register { file, index, .. } => self.register(file, index).whole(),
            Operand::Immediate(value) => Some(value),
            Operand::Constant(at) => self.constant(at),
            Operand::Special(special) => self.special(special),
            Operand::Predicate { .. } | Operand::Float(_) | Operand::Other => None,
        }
    }

    /// What is known of the bits of a source.
    pub(super) fn partly(&self, operand: Operand) -> Word {
        let word = match operand {
            Operand::Register { file, index, .. } => self.register(file, index),
            other => Word::new(self.bits(other)),
        };
        match operand {
            Operand::Register { sign: Sign::Complement, .. } => {
                Word { bits: !word.bits & word.known, ..word }
            }
            Operand::Register { sign: Sign::Negative, .. } => Word::new(self.word(operand)),
            _ => word,
        }
    }

    /// A 32-bit source.
    pub(super) fn word(&self, operand: Operand) -> Option<u32> {
        let bits = self.bits(operand)?;
        Some(match operand {
            Operand::Register { sign: Sign::Negative, .. } => bits.wrapping_neg(),
            Operand::Register { sign: Sign::Complement, .. } => !bits,
            _ => bits,
        })
    }

    /// A 64-bit source: a register and the next.
    pub(super) fn pair(&self, operand: Operand) -> Option<u64> {
        let (low, high) = match operand {
            Operand::Register { file, index, .. } => {
                let next = index.map(|index| index.checked_add(1)).unwrap_or(None);
                (self.register(file, index).whole()?, self.register(file, next).whole()?)
            }
            other => (self.bits(other)?, 0),
        };
        let value = u64::from(high) << 32 | u64::from(low);
        Some(match operand {
            Operand::Register { sign: Sign::Negative, .. } => value.wrapping_neg(),
            Operand::Register { sign: Sign::Complement, .. } => !value,
            _ => value,
        })
    }

    /// The launch's shape, where the driver puts it; arguments are addresses, of which nothing is known.
    fn constant(&self, at: u32) -> Option<u32> {
        Some(match at {
            0x0 => self.place.threads,
            0x4 | 0x8 => 1,
            0xc => self.place.grid[0],
            0x10 => self.place.grid[1],
            0x14 => self.place.grid[2],
            _ => return None,
        })
    }

    fn special(&self, special: Special) -> Option<u32> {
        match special {
            Special::Thread(0) => Some(self.place.thread),
            Special::Thread(_) | Special::Zero => Some(0),
            Special::Block(axis) => Some(self.place.block[axis]),
            Special::Lane => Some(self.place.thread % 32),
            Special::Unknown => None,
        }
    }
}
