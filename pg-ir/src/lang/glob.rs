//! Patterns over parameter paths: `*` stands for anything, `{a,b}` for either. A pattern compiles to a program as long
//! as itself, and matching runs all alternatives at once, so that no pattern takes more than its length times the
//! name's.

use super::limits::MAX_PATTERN_CHARS;

/// A step of a compiled pattern; the next one follows it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Step {
    Byte(u8),
    /// Any bytes.
    Star,
    /// Goes on at either.
    Fork(Box<[usize]>),
    Jump(usize),
}

/// A compiled pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Glob {
    /// Bytes that every match begins with.
    prefix: String,
    /// What follows them.
    steps: Vec<Step>,
}

impl Glob {
    /// Parses a pattern; the error says what is wrong with it.
    pub(crate) fn new(pattern: &str) -> Result<Glob, String> {
        let length = pattern.chars().count();
        if length > MAX_PATTERN_CHARS {
            return Err(format!(
                "a pattern has at most {MAX_PATTERN_CHARS} characters, and this one has {length}"
            ));
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let (prefix, rest) = pattern.split_at(pattern.find(|c| !is_plain(c)).unwrap_or(pattern.len()));
        let mut steps = Vec::new();
        let mut rest = rest;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            match c {
                '{' => {
                    let Some((inside, after)) = rest.split_once('}') else {
                        return Err("unmatched `{` in a pattern".into());
                    };
                    alternatives(inside, &mut steps)?;
                    rest = after;
                }
                '}' => return Err("unmatched `}` in a pattern".into()),
                c => steps.push(simple(c)?),
            }
        }
        if pattern.is_empty() { Err(malformed()) } else { Ok(Glob { prefix: prefix.into(), steps }) }
    }

    /// Whether a parameter's name fits.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let Some(rest) = name.strip_prefix(&self.prefix) else { return false };
        let mut now = Places::new(self.steps.len());
        self.reach(0, &mut now);
        for byte in rest.bytes() {
            let mut next = Places::new(self.steps.len());
            for &at in &now.list {
                match self.steps.get(at) {
                    Some(Step::Byte(b)) if *b == byte => self.reach(at + 1, &mut next),
                    Some(Step::Star) => self.reach(at, &mut next),
                    _ => {}
                }
            }
            if next.list.is_empty() {
                return false;
            }
            now = next;
        }
        now.seen[self.steps.len()]
    }

    /// How much work it is to match a name, in steps of the evaluator.
    pub(crate) fn cost(&self, name: &str) -> usize {
        1 + self.steps.len() * name.len() / 256
    }

    /// Adds a place and those that it leads to without a byte.
    fn reach(&self, at: usize, places: &mut Places) {
        let mut open = vec![at];
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut places.seen[at], true) {
                continue;
            }
            places.list.push(at);
            match self.steps.get(at) {
                Some(Step::Star) => open.push(at + 1),
                Some(Step::Fork(to)) => open.extend_from_slice(to),
                Some(Step::Jump(to)) => open.push(*to),
                Some(Step::Byte(_)) | None => {}
            }
        }
    }
}

/// Where matching may be.
struct Places {
    seen: Vec<bool>,
    list: Vec<usize>,
}

impl Places {
    fn new(steps: usize) -> Self {
        Places { seen: vec![false; steps + 1], list: Vec::new() }
    }
}

/// `{a,b}`: a fork, then each alternative with a jump behind the last.
fn alternatives(inside: &str, steps: &mut Vec<Step>) -> Result<(), String> {
    if inside.contains('{') {
        return Err("braces do not nest in a pattern".into());
    }
    let fork = steps.len();
    steps.push(Step::Fork([].into()));
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for part in inside.split(',') {
        starts.push(steps.len());
        for c in part.trim().chars() {
            steps.push(simple(c)?);
        }
        ends.push(steps.len());
        steps.push(Step::Jump(0));
    }
    steps[fork] = Step::Fork(starts.into());
    let behind = steps.len();
    ends.into_iter().for_each(|end| steps[end] = Step::Jump(behind));
    Ok(())
}

fn simple(c: char) -> Result<Step, String> {
    match u8::try_from(c) {
        Ok(b'*') => Ok(Step::Star),
        Ok(b) if b.is_ascii_alphanumeric() || b"_-.".contains(&b) => Ok(Step::Byte(b)),
        _ => Err(malformed()),
    }
}

fn malformed() -> String {
    "a pattern is parameter names with `*` and `{a,b}`, as in \"blocks.*.mlp.*\"".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_alternatives() {
        let fits = |p: &str, n: &str| Glob::new(p).unwrap().matches(n);
        assert!(fits("blocks.*.mlp.*", "blocks.11.mlp.fc.weight"));
        assert!(fits("blocks.*.attn.{c_q,proj}.weight", "blocks.0.attn.proj.weight"));
        assert!(!fits("blocks.*.attn.{c_q,proj}.weight", "blocks.0.attn.c_k.weight"));
        assert!(fits("*", "smear.gate"));
        assert!(!fits("smear", "smear.gate") && !fits("smear.gate", "smear"));
        assert!(fits("*.scale", "bigram.scale") && !fits("*.scale", "blocks.0.attn_scale"));
        assert!(
            fits("{a*, b}c{d,*e}", "axcxe") && fits("{a*, b}c{d,*e}", "bcd") && !fits("{a*, b}c{d,*e}", "cd")
        );
        assert!(Glob::new("a{b").is_err() && Glob::new("").is_err() && Glob::new("a b").is_err());
        assert!(Glob::new("a}").is_err() && Glob::new("{a,{b,c}}").is_err() && Glob::new("é").is_err());
    }

    #[test]
    fn alternatives_and_stars_do_not_multiply() {
        let many = Glob::new(&"{a,b}".repeat(MAX_PATTERN_CHARS / 5)).unwrap();
        assert!(many.matches(&"b".repeat(MAX_PATTERN_CHARS / 5)) && !many.matches("ab"));
        let stars = Glob::new(&"*a".repeat(MAX_PATTERN_CHARS / 2)).unwrap();
        assert!(stars.matches(&"a".repeat(500)) && !stars.matches(&"b".repeat(500)));
    }

    #[test]
    fn patterns_have_a_length() {
        assert!(Glob::new(&"a".repeat(MAX_PATTERN_CHARS)).is_ok());
        let e = Glob::new(&"a".repeat(MAX_PATTERN_CHARS + 1)).unwrap_err();
        assert_eq!(e, "a pattern has at most 256 characters, and this one has 257");
    }
}
