//! Operands of an instruction as the disassembler prints them. What has no meaning for control flow is [`Operand::Other`].

/// General or uniform registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum File {
    General,
    Uniform,
}

/// A register that always holds zero, or a predicate that always holds.
const ZERO: u8 = u8::MAX;

/// How a source is changed before it is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sign {
    Plain,
    Negative,
    Complement,
}

/// An operand.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Operand {
    Register {
        file: File,
        index: Register,
        sign: Sign,
    },
    Predicate {
        file: File,
        index: Register,
        negated: bool,
    },
    Immediate(u32),
    /// A floating-point number.
    Float(f64),
    /// A 32-bit word of the constant bank with a launch's shape and arguments, at this byte.
    Constant(u32),
    Special(Special),
    /// An address in brackets, all predicates, a barrier, or a label, among others.
    Other,
}

/// A register or predicate of a file; `None` is the one that is constant.
pub(super) type Register = Option<u8>;

/// What a thread can ask of its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Special {
    Thread(usize),
    Block(usize),
    Lane,
    Zero,
    Unknown,
}

impl Operand {
    pub(super) fn parse(text: &str) -> Operand {
        let text = text.trim().trim_end_matches(".reuse");
        let (negated, predicate) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        if let Some((file, index)) = predicate_of(predicate) {
            return Operand::Predicate { file, index, negated };
        }
        let (sign, plain) = match text.as_bytes() {
            [b'-', rest @ ..] if !rest.is_empty() => (Sign::Negative, &text[1..]),
            [b'~', ..] => (Sign::Complement, &text[1..]),
            _ => (Sign::Plain, text),
        };
        if let Some((file, index)) = register(plain) {
            return Operand::Register { file, index, sign };
        }
        if let Some(hex) = plain.strip_prefix("0x") {
            return match u32::from_str_radix(hex, 16) {
                Ok(value) if sign == Sign::Negative => Operand::Immediate(value.wrapping_neg()),
                Ok(value) => Operand::Immediate(value),
                Err(_) => Operand::Other,
            };
        }
        if let Some(at) = plain.strip_prefix("c[0x0][0x").and_then(|rest| rest.strip_suffix(']')) {
            return u32::from_str_radix(at, 16).map_or(Operand::Other, Operand::Constant);
        }
        if plain.starts_with("SR") {
            return Operand::Special(special(plain));
        }
        text.parse().map_or(Operand::Other, Operand::Float)
    }
}

fn register(text: &str) -> Option<(File, Register)> {
    // The half that an instruction uses changes nothing that is followed here.
    let name = text.split('.').next()?;
    let (file, number) = match name.strip_prefix("UR") {
        Some(number) => (File::Uniform, number),
        None => (File::General, name.strip_prefix('R')?),
    };
    let index = if number == "Z" { None } else { Some(number.parse().ok().filter(|&n| n != ZERO)?) };
    Some((file, index))
}

fn predicate_of(text: &str) -> Option<(File, Register)> {
    let (file, number) = match text.strip_prefix("UP") {
        Some(number) => (File::Uniform, number),
        None => (File::General, text.strip_prefix('P')?),
    };
    let index = if number == "T" { None } else { Some(number.parse().ok().filter(|&n| n < 8)?) };
    Some((file, index))
}

fn special(name: &str) -> Special {
    match name {
        "SR_TID.X" => Special::Thread(0),
        "SR_TID.Y" => Special::Thread(1),
        "SR_TID.Z" => Special::Thread(2),
        "SR_CTAID.X" => Special::Block(0),
        "SR_CTAID.Y" => Special::Block(1),
        "SR_CTAID.Z" => Special::Block(2),
        "SR_LANEID" => Special::Lane,
        // The only block of its cluster.
        "SRZ" | "SR_CgaCtaId" => Special::Zero,
        _ => Special::Unknown,
    }
}

/// Operands, separated by commas outside brackets.
pub(super) fn operands(text: &str) -> Vec<Operand> {
    let mut all = Vec::new();
    let (mut depth, mut start) = (0usize, 0);
    for (at, c) in text.char_indices() {
        match c {
            '[' | '(' => depth += 1,
            ']' | ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                all.push(Operand::parse(&text[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        all.push(Operand::parse(&text[start..]));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_of_every_kind() {
        let found =
            operands("R4.reuse, !P0, -UR5, ~R7, -0x2, c[0x0][0x10], [R2+0x4,R3], RZ, PT, SR_CTAID.Y, 1.5");
        let register = |file, index, sign| Operand::Register { file, index, sign };
        assert_eq!(
            found,
            [
                register(File::General, Some(4), Sign::Plain),
                Operand::Predicate { file: File::General, index: Some(0), negated: true },
                register(File::Uniform, Some(5), Sign::Negative),
                register(File::General, Some(7), Sign::Complement),
                Operand::Immediate(2u32.wrapping_neg()),
                Operand::Constant(0x10),
                Operand::Other,
                register(File::General, None, Sign::Plain),
                Operand::Predicate { file: File::General, index: None, negated: false },
                Operand::Special(Special::Block(1)),
                Operand::Float(1.5),
            ]
        );
    }
}
