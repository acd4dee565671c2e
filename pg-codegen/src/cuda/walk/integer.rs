//! What integer instructions do to what is known. An instruction that is not here makes what it writes unknown: that can
//! make a walk say less, never something else.
//!
//! Semantics are those of the CUDA Binary Utilities' list of instructions, read together with what `ptxas` makes of known
//! sources; the products that a walk counts are held to those of the plan (`tests/cuda/predicted.rs`).

use half::f16;

use super::Decoded;
use super::operand::{Operand, Sign};
use super::state::{State, Word};

/// Executes one instruction whose guard holds, or may hold.
pub(super) fn execute(i: &Decoded, state: &mut State) {
    if known(i, state).is_none() {
        clobber(i, state);
    }
}

/// Makes unknown what an instruction writes.
pub(super) fn clobber(i: &Decoded, state: &mut State) {
    for &to in i.written() {
        state.set_predicate(to, None);
        (0..i.width).for_each(|after| state.set(to, after, None));
    }
    if i.mnemonic == "R2P" {
        state.set_predicate_bits(u32::MAX, None);
    }
}

/// Executes an instruction that is known; `None` if it is not, or wrote nothing.
fn known(i: &Decoded, state: &mut State) -> Option<()> {
    let (written, sources) = (i.written(), i.sources());
    let has = |modifier: &str| i.has(modifier);
    let word = |n: usize| sources.get(n).and_then(|&o| state.word(o));
    let is_signed = !has("U32");
    let predicate = |n: usize| i.predicate(n).map_or(Some(true), |o| state.predicate(o));
    let register = *written.iter().find(|o| matches!(o, Operand::Register { .. })).unwrap_or(&Operand::Other);
    let flags: Vec<Operand> =
        written.iter().copied().filter(|o| matches!(o, Operand::Predicate { .. })).collect();
    let result = match &*i.mnemonic {
        "MOV" | "UMOV" | "R2UR" | "S2R" | "S2UR" => word(0)?,
        "LDC" | "ULDC" if i.width == 1 => word(0)?,
        "CS2R" => {
            let value = word(0);
            (0..i.width).for_each(|after| state.set(register, after, value));
            return Some(());
        }
        "IMAD" | "UIMAD" if has("WIDE") || has("HI") => {
            let product = if is_signed {
                (i64::from(word(0)? as i32) * i64::from(word(1)? as i32)) as u64
            } else {
                u64::from(word(0)?) * u64::from(word(1)?)
            };
            let total = product.wrapping_add(state.pair(*sources.get(2)?)?);
            if has("HI") {
                (total >> 32) as u32
            } else {
                state.set(register, 0, Some(total as u32));
                state.set(register, 1, Some((total >> 32) as u32));
                flags.iter().for_each(|&f| state.set_predicate(f, Some(total < product)));
                return Some(());
            }
        }
        "IMAD" | "UIMAD" => {
            let carry = if has("X") { u32::from(predicate(0)?) } else { 0 };
            word(0)?.wrapping_mul(word(1)?).wrapping_add(word(2)?).wrapping_add(carry)
        }
        "VIADD" => word(0)?.wrapping_add(word(1)?),
        "IADD3" | "UIADD3" => {
            let carry = if has("X") {
                u64::from(predicate(0)?)
                    + u64::from(i.predicate(1).map_or(Some(false), |o| state.predicate(o))?)
            } else {
                0
            };
            let total = (0..3).map(|n| addend(sources, n, state)).sum::<Option<u64>>()? + carry;
            for (n, &flag) in flags.iter().enumerate() {
                state.set_predicate(flag, Some(total >> 32 > n as u64));
            }
            total as u32
        }
        "LEA" | "ULEA" => return lea(i, state),
        "LOP3" | "ULOP3" => {
            let Some(&Operand::Immediate(table)) = sources.get(3) else { return None };
            let value = partial_lut([0, 1, 2].map(|n| state.partly(sources[n])), table);
            let is_set = match value {
                Word { bits, .. } if bits != 0 => Some(true),
                Word { known, .. } => (known == u32::MAX).then_some(false),
            };
            flags.iter().for_each(|&f| state.set_predicate(f, is_set));
            state.set_word(register, 0, value);
            return Some(());
        }
        "PLOP3" | "UPLOP3" => {
            let numbers: Vec<bool> = (0..3).map(predicate).collect::<Option<_>>()?;
            let bit = |b: bool| if b { u32::MAX } else { 0 };
            for (n, &flag) in flags.iter().enumerate() {
                let Some(&Operand::Immediate(table)) = sources.get(3 + n) else { return None };
                let value = lut(bit(numbers[0]), bit(numbers[1]), bit(numbers[2]), table);
                state.set_predicate(flag, Some(value & 1 == 1));
            }
            return Some(());
        }
        "SHF" | "USHF" => shift(i, word(0)?, word(1)?, word(2)?),
        "SEL" | "USEL" => match predicate(0)? {
            true => word(0)?,
            false => word(1)?,
        },
        "IMNMX" | "UIMNMX" | "VIMNMX" => extreme(word(0)?, word(1)?, predicate(0)?, is_signed),
        "VIADDMNMX" => extreme(word(0)?.wrapping_add(word(1)?), word(2)?, predicate(0)?, is_signed),
        "PRMT" | "UPRMT" => permute(word(0)?, word(1)?, word(2)?),
        "POPC" | "UPOPC" => word(0)?.count_ones(),
        "P2R" => {
            let (mask, rest) = (word(2)?, word(1)?);
            let Word { bits, known } = state.predicate_bits(mask);
            state.set_word(register, 0, Word { bits: rest & !mask | bits, known });
            return Some(());
        }
        "R2P" => {
            let (bits, mask) = (word(1), word(2)?);
            state.set_predicate_bits(mask, bits);
            return Some(());
        }
        // Division of integers begins with a reciprocal in float32, and mends what that is off by.
        "I2F" if has("U32") && !has("F64") => round_up(word(0)?).to_bits(),
        "MUFU" if has("RCP") => f32::from_bits(word(0)?).recip().to_bits(),
        "F2I" if has("U32") && has("TRUNC") => f32::from_bits(word(0)?) as u32,
        // −0 · 0 + (high, low): how constants are moved on the unit of products.
        "HFMA2" => match (word(0)? << 1, word(1)?, sources.get(2)?, sources.get(3)?) {
            (0, 0, &Operand::Float(high), &Operand::Float(low)) => {
                let bits = |x: f64| u32::from(f16::from_f64(x).to_bits());
                bits(high) << 16 | bits(low)
            }
            _ => return None,
        },
        "VOTEU" => {
            let value = predicate(0);
            flags.iter().for_each(|&f| state.set_predicate(f, value));
            return Some(());
        }
        // Whoever waits has waited.
        "SYNCS" => {
            flags.iter().for_each(|&f| state.set_predicate(f, Some(true)));
            return Some(());
        }
        "ISETP" | "UISETP" => {
            let found = compare(i, state);
            let other = predicate(0);
            let join = |a: Option<bool>| match () {
                () if has("OR") => three_valued(a, other, true),
                () if has("XOR") => a.zip(other).map(|(a, b)| a != b),
                () => three_valued(a, other, false),
            };
            let (first, second) = (join(found), join(found.map(|f| !f)));
            flags.iter().zip([first, second]).for_each(|(&f, value)| state.set_predicate(f, value));
            return Some(());
        }
        _ => return None,
    };
    state.set(register, 0, Some(result));
    Some(())
}

/// `and` or, if `absorbing` holds, `or`: one operand may decide alone.
fn three_valued(a: Option<bool>, b: Option<bool>, absorbing: bool) -> Option<bool> {
    match (a, b) {
        (Some(x), _) | (_, Some(x)) if x == absorbing => Some(absorbing),
        (Some(_), Some(_)) => Some(!absorbing),
        _ => None,
    }
}

/// A term of a sum with its carry: −x is its complement and one.
fn addend(sources: &[Operand], n: usize, state: &State) -> Option<u64> {
    let operand = *sources.get(n)?;
    let bits = state.bits(operand)?;
    Some(match operand {
        Operand::Register { sign: Sign::Negative, .. } => u64::from(!bits) + 1,
        Operand::Register { sign: Sign::Complement, .. } => u64::from(!bits),
        _ => u64::from(bits),
    })
}

/// The least float that is no less.
fn round_up(value: u32) -> f32 {
    let nearest = value as f32;
    if f64::from(nearest) < f64::from(value) { nearest.next_up() } else { nearest }
}

fn lut(a: u32, b: u32, c: u32, table: u32) -> u32 {
    let masks = (0..8).filter(|row| table >> row & 1 == 1).map(|row: u32| {
        let pick = |x: u32, bit: u32| if row >> bit & 1 == 1 { x } else { !x };
        pick(a, 2) & pick(b, 1) & pick(c, 0)
    });
    masks.fold(0, |all, mask| all | mask)
}

/// Bits are known that no unknown bit of an operand changes.
fn partial_lut(operands: [Word; 3], table: u32) -> Word {
    let choices = (0..8u32).map(|choice| {
        let fill = |n: usize| operands[n].bits | if choice >> n & 1 == 1 { !operands[n].known } else { 0 };
        lut(fill(0), fill(1), fill(2), table)
    });
    let (all, any) = choices.fold((u32::MAX, 0), |(all, any), value| (all & value, any | value));
    Word { bits: all, known: !(all ^ any) }
}

/// `a << s` plus b; of a pair the upper half.
fn lea(i: &Decoded, state: &mut State) -> Option<()> {
    let sources = i.sources();
    let word = |n: usize| sources.get(n).and_then(|&o| state.word(o));
    let (shifted, carry) = match (i.has("HI"), i.has("SX32")) {
        (true, true) => ((i64::from(word(0)? as i32) << (word(2)? & 31)) as u64 >> 32, 0),
        (true, false) => {
            let wide = u64::from(word(2)?) << 32 | u64::from(word(0)?);
            let carry = if i.has("X") { u64::from(state.predicate(i.predicate(0)?)?) } else { 0 };
            (wide << (word(3)? & 63) >> 32, carry)
        }
        (false, _) => (u64::from(word(0)? << (word(2)? & 31)), 0),
    };
    let total = (shifted & 0xffff_ffff) + addend(sources, 1, state)? + carry;
    for &to in i.written() {
        state.set(to, 0, Some(total as u32));
        state.set_predicate(to, Some(total >> 32 > 0));
    }
    Some(())
}

fn shift(i: &Decoded, low: u32, by: u32, high: u32) -> u32 {
    let has = |modifier: &str| i.has(modifier);
    let wide = u64::from(high) << 32 | u64::from(low);
    let most = if has("U64") || has("S64") { 63 } else { 32 };
    let by = if has("W") { by & 31 } else { by.min(most) };
    match (has("L"), has("HI")) {
        (true, true) => (wide << by >> 32) as u32,
        (true, false) => u64::from(low).wrapping_shl(by) as u32,
        (false, true) if has("S32") || has("S64") => (i64::from(high as i32) >> by) as u32,
        (false, true) => (u64::from(high) >> by) as u32,
        (false, false) => (wide >> by) as u32,
    }
}

fn extreme(a: u32, b: u32, least: bool, is_signed: bool) -> u32 {
    let is_less = if is_signed { (a as i32) < (b as i32) } else { a < b };
    if is_less == least { a } else { b }
}

/// Bytes of two words, chosen by the digits of `selector`; the fourth bit of a digit repeats a byte's sign.
fn permute(a: u32, selector: u32, b: u32) -> u32 {
    let bytes = u64::from(b) << 32 | u64::from(a);
    let byte = |n: u32| {
        let digit = selector >> (4 * n) & 0xf;
        let byte = (bytes >> (8 * (digit & 7))) as u8;
        let value = if digit & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 };
        u32::from(value) << (8 * n)
    };
    (0..4).map(byte).sum()
}

/// The comparison of `ISETP`, before it is joined with another predicate.
fn compare(i: &Decoded, state: &State) -> Option<bool> {
    let word = |n: usize| i.sources().get(n).and_then(|&o| state.word(o));
    let (a, b) = (word(0)?, word(1)?);
    let order = if i.has("U32") { a.cmp(&b) } else { (a as i32).cmp(&(b as i32)) };
    // Upper halves that are equal leave it to the lower ones.
    if i.has("EX") && order.is_eq() {
        return state.predicate(i.predicate(1)?);
    }
    Some(match &*i.modifiers[0] {
        "EQ" => order.is_eq(),
        "NE" => order.is_ne(),
        "LT" => order.is_lt(),
        "LE" => order.is_le(),
        "GT" => order.is_gt(),
        "GE" => order.is_ge(),
        _ => return None,
    })
}
