//! What literals stand for. Words are Rust's; of its literals the language has integers, floats and strings.

use ra_ap_rustc_lexer::{Base, FrontmatterAllowed, LiteralKind, TokenKind, tokenize};
use rustc_literal_escaper::unescape_str;

use super::limits::MAX_NUMBER_CHARS;
use super::token::Kind;

/// The token of a literal as it is written.
pub(crate) fn literal(written: &str) -> Kind {
    let mut tokens = tokenize(written, FrontmatterAllowed::No);
    match (tokens.next().map(|t| t.kind), tokens.next()) {
        (Some(TokenKind::Literal { kind, suffix_start }), None) => {
            literal_of(written, kind, suffix_start as usize)
        }
        _ => Kind::Odd(UNKNOWN.into()),
    }
}

const UNKNOWN: &str = "literals are integers, floats, booleans and strings in double quotes";

/// [`literal`], where the lexer has seen of what kind it is and at which byte its suffix starts.
pub(super) fn literal_of(written: &str, kind: LiteralKind, suffix_start: usize) -> Kind {
    let is_string = matches!(kind, LiteralKind::Str { .. });
    if is_string && written.replace("\\\n", "").contains('\n') {
        return Kind::OpenString;
    }
    value(written, kind, suffix_start).unwrap_or_else(|why| Kind::Odd(why.into()))
}

/// The value of a literal; the error says what is wrong with it.
fn value(written: &str, kind: LiteralKind, suffix_start: usize) -> Result<Kind, String> {
    let (body, suffix) = written.split_at(suffix_start);
    let is_number = matches!(kind, LiteralKind::Int { .. } | LiteralKind::Float { .. });
    // Longer ones are not read at all: that takes time quadratic in their digits.
    if is_number && written.len() > MAX_NUMBER_CHARS {
        let length = written.len();
        return Err(format!("a number has at most {MAX_NUMBER_CHARS} characters, and this one has {length}"));
    }
    let is_supported = is_number || matches!(kind, LiteralKind::Str { .. } | LiteralKind::RawStr { .. });
    if !suffix.is_empty() && is_supported {
        return Err(format!("a literal has no suffix such as `{suffix}`: integers have 64 bits, floats too"));
    }
    match kind {
        LiteralKind::Int { empty_int: true, .. } => Err(format!("no digits behind `{body}`")),
        LiteralKind::Int { base, .. } => integer(body, base),
        LiteralKind::Float { empty_exponent: true, .. } => Err("this exponent has no digits".into()),
        LiteralKind::Float { base: Base::Decimal, .. } => match body.replace('_', "").parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Kind::Float(value)),
            _ => Err("this number is larger than a float can be: at most 1.797e308".into()),
        },
        LiteralKind::Float { .. } => Err("a number in another base has no fraction".into()),
        LiteralKind::Str { terminated: true } => string(&body[1..body.len() - 1]),
        LiteralKind::RawStr { n_hashes: Some(hashes) } => {
            let quotes = usize::from(hashes) + 1;
            Ok(Kind::Text(body[1 + quotes..body.len() - quotes].into()))
        }
        _ => Err(UNKNOWN.into()),
    }
}

fn integer(body: &str, base: Base) -> Result<Kind, String> {
    let digits = body.replace('_', "");
    let digits = if base == Base::Decimal { &digits } else { &digits[2..] };
    let too_large = || format!("this integer is too large: at most {}", i64::MAX);
    if let Some(odd) = digits.chars().find(|c| !c.is_digit(base as u32)) {
        return Err(format!("`{odd}` is no digit in base {}", base as u32));
    }
    i64::from_str_radix(digits, base as u32).map(Kind::Int).map_err(|_| too_large())
}

/// The value of a string, between its quotes.
fn string(inside: &str) -> Result<Kind, String> {
    let mut value = String::with_capacity(inside.len());
    let mut wrong = None;
    unescape_str(inside, |range, part| match part {
        Ok(c) => value.push(c),
        Err(e) if e.is_fatal() && wrong.is_none() => wrong = Some(range),
        Err(_) => {}
    });
    match wrong {
        None => Ok(Kind::Text(value.into())),
        Some(range) => {
            let written = &inside[range];
            Err(format!(
                r#"`{written}` in a string is no escape; those are `\n`, `\t`, `\\`, `\"`, `\u{{e9}}`"#
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_have_values() {
        let text = |s: &str| Kind::Text(s.into());
        assert_eq!(
            ["1_000", "0x10", "0b11", "1.5e3", r#""a\n\u{e9}""#, r##"r#"b"c"#"##].map(literal),
            [Kind::Int(1000), Kind::Int(16), Kind::Int(3), Kind::Float(1500.0), text("a\né"), text("b\"c")]
        );
    }

    #[test]
    fn what_is_no_value_says_why() {
        let says = |written: &str| match literal(written) {
            Kind::Odd(why) => why.to_string(),
            kind => panic!("{written} is {kind:?}"),
        };
        assert!(says("99999999999999999999").contains("too large"));
        assert!(says("1e999").contains("larger than a float"));
        assert!(says("'c'").contains("literals are"));
        assert!(says("b\"c\"").contains("literals are"));
        assert!(says("1u8").contains("suffix such as `u8`"));
        assert_eq!(says("0x"), "no digits behind `0x`");
        assert_eq!(says("0b12"), "`2` is no digit in base 2");
        assert!(says(r#""a\q""#).starts_with(r"`\q` in a string"));
        assert!(says(&"9".repeat(100_000)).contains("100000"));
    }

    #[test]
    fn numbers_have_a_length() {
        let zeros = |n: usize| literal(&format!("0.{}", "0".repeat(n)));
        assert!(matches!(zeros(MAX_NUMBER_CHARS - 2), Kind::Float(_)));
        assert!(matches!(zeros(MAX_NUMBER_CHARS - 1), Kind::Odd(m) if m.contains("at most 64")));
    }
}
