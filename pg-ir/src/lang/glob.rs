//! Patterns over parameter paths: `*` stands for anything, `{a,b}` for either.

/// Most alternatives of a pattern: braces multiply.
const MAX_ALTERNATIVES: usize = 4096;

/// A pattern, as the list of its alternatives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Glob(Vec<String>);

impl Glob {
    /// Parses a pattern; the error says what is wrong with it.
    pub(crate) fn new(pattern: &str) -> Result<Glob, String> {
        let mut done = Vec::new();
        let mut open = vec![pattern.to_string()];
        while let Some(p) = open.pop() {
            if done.len() + open.len() >= MAX_ALTERNATIVES {
                return Err(format!("a pattern has at most {MAX_ALTERNATIVES} alternatives"));
            }
            let Some(start) = p.find('{') else {
                if p.contains('}') {
                    return Err("unmatched `}` in a pattern".into());
                }
                done.push(p);
                continue;
            };
            let Some(len) = p[start..].find('}') else { return Err("unmatched `{` in a pattern".into()) };
            let (inside, after) = (&p[start + 1..start + len], &p[start + len + 1..]);
            open.extend(inside.split(',').map(|part| format!("{}{}{after}", &p[..start], part.trim())));
        }
        if done
            .iter()
            .any(|p| p.is_empty() || p.chars().any(|c| !(c.is_ascii_alphanumeric() || "_-.*".contains(c))))
        {
            return Err("a pattern is parameter names with `*` and `{a,b}`, as in \"blocks.*.mlp.*\"".into());
        }
        Ok(Glob(done))
    }

    /// Whether a parameter's name fits.
    pub(crate) fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|p| fits(p.as_bytes(), name.as_bytes()))
    }
}

/// Greedy matching with one point to come back to: linear in practice, no recursion.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, n));
            p += 1;
        } else if p < pattern.len() && pattern[p] == name[n] {
            p += 1;
            n += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            n = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
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
        assert!(!fits("smear", "smear.gate"));
        assert!(fits("*.scale", "bigram.scale") && !fits("*.scale", "blocks.0.attn_scale"));
        assert!(Glob::new("a{b").is_err() && Glob::new("").is_err() && Glob::new("a b").is_err());
        assert!(Glob::new(&"{a,b}".repeat(40)).is_err() && Glob::new(&"{a,b}".repeat(10)).is_ok());
    }
}
