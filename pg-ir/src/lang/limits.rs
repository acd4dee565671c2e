//! What a text may ask of the compiler. No text can raise these bounds, and every model of `models/` uses less than
//! one per cent of each budget (a test of `pg-ir` holds it to that). A bound on depth keeps recursion inside the
//! smallest stack that a caller has: two mebibytes, in a build without optimisation.

use std::cell::{Cell, RefCell};

use super::diag::Diagnostic;

/// Most bytes of one file.
pub(crate) const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Most tokens of one file.
pub(crate) const MAX_TOKENS: usize = 1 << 18;
/// Most characters of a number.
pub(crate) const MAX_NUMBER_CHARS: usize = 64;
/// How deep delimiters, expressions and statements nest in a text.
pub(crate) const MAX_NESTING: usize = 128;
/// Most parameters of a function, and most arguments of a call.
pub(crate) const MAX_ARGUMENTS: usize = 255;
/// Most rules of all the blocks of a model together.
pub(crate) const MAX_RULES: usize = 4096;
/// Most characters of a rule's pattern.
pub(crate) const MAX_PATTERN_CHARS: usize = 256;
/// Most characters of a parameter's full name.
pub(crate) const MAX_NAME_CHARS: usize = 512;
/// After this many findings the rest is noise.
pub(crate) const MAX_ERRORS: usize = 24;

/// How deep expressions are evaluated within each other, over all calls in progress.
pub(crate) const MAX_DEPTH: usize = 256;
/// Most calls within calls; recursion is an error long before.
pub(crate) const MAX_CALLS: usize = 64;
/// How deep lists and closures hold each other.
pub(crate) const MAX_VALUE_DEPTH: usize = 64;

/// What one elaboration, or one trace of a program, may use up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resource {
    /// Expressions evaluated, values compared, variables and rules searched.
    Steps,
    /// Items put into lists, and variables captured by closures.
    Elements,
    /// Bytes of text made.
    Bytes,
}

impl Resource {
    pub(crate) const ALL: [Resource; 3] = [Resource::Steps, Resource::Elements, Resource::Bytes];

    /// The budget.
    pub(crate) fn limit(self) -> u64 {
        match self {
            Resource::Steps => 10_000_000,
            Resource::Elements => 3 << 20,
            Resource::Bytes => 1 << 26,
        }
    }

    /// What is said where the budget is exceeded, with what to do.
    fn exceeded(self) -> (String, &'static str) {
        let limit = self.limit();
        match self {
            Resource::Steps => (
                format!("the model takes more than {limit} steps to elaborate"),
                "a step is an expression evaluated, or a value compared: shorten the loops that lead here",
            ),
            Resource::Elements => (
                format!("the model puts more than {limit} items into lists"),
                "use shorter lists, or build a list once instead of in a loop",
            ),
            Resource::Bytes => (
                format!("the model makes more than {limit} bytes of text"),
                "use shorter texts, or build a text once instead of in a loop",
            ),
        }
    }
}

/// What is used up so far. All evaluators of one elaboration share it.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    used: [Cell<u64>; Resource::ALL.len()],
    finding: RefCell<Option<Diagnostic>>,
}

impl Budget {
    /// Uses some up. What is over budget stops the evaluator at its next step.
    pub(crate) fn charge(&self, resource: Resource, amount: usize) {
        let used = &self.used[resource as usize];
        used.set(used.get().saturating_add(amount as u64));
    }

    /// How much is used up.
    pub(crate) fn used(&self, resource: Resource) -> u64 {
        self.used[resource as usize].get()
    }

    /// How much is left.
    pub(crate) fn left(&self, resource: Resource) -> u64 {
        resource.limit().saturating_sub(self.used(resource))
    }

    /// The message and the help of a budget that is exceeded, if one is.
    pub(crate) fn exceeded(&self) -> Option<(String, &'static str)> {
        let over = |r: &Resource| self.used(*r) > r.limit();
        Resource::ALL.into_iter().find(over).map(Resource::exceeded)
    }

    /// Notes the finding that was made of an exceeded budget.
    pub(crate) fn found(&self, finding: &Diagnostic) {
        self.finding.borrow_mut().get_or_insert_with(|| finding.clone());
    }

    /// The finding, if a budget is exceeded and has been reported.
    pub(crate) fn finding(&self) -> Option<Diagnostic> {
        self.finding.borrow().clone()
    }
}

/// What is said of a place that nests too deep.
pub(crate) fn too_deep(what: &str) -> (String, &'static str) {
    (
        format!("{what} nest more than {MAX_NESTING} deep"),
        "name parts with `let`, or move them into functions",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::elaborate::elaborate_within;
    use crate::lang::lexer::lex;
    use crate::lang::{Head, Options, Source, Trace, trace};

    /// Every model of `models/`, as it stands and in each of its profiles, is far from every bound.
    #[test]
    fn models_use_less_than_a_hundredth() {
        let few = |what: &str, used: usize, limit: usize| {
            assert!(used > 0 && used * 100 < limit, "{what}: {used} of {limit}");
        };
        let mut seen = 0;
        for folder in ["models", "models/ideas"] {
            let folder = format!("{}/../{folder}", env!("CARGO_MANIFEST_DIR"));
            let files = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
            for file in files.filter(|f| f.extension().is_some_and(|e| e == "rs") && !f.ends_with("lib.rs")) {
                let source = Source::load(&file).unwrap_or_else(|e| panic!("{e}"));
                for text in source.texts() {
                    few("bytes of text", text.text.len(), MAX_SOURCE_BYTES);
                    few("tokens", lex(&text.file, &text.text).unwrap().len(), MAX_TOKENS);
                }
                few("rules", source.ast.blocks.iter().map(|b| b.rules.len()).sum(), MAX_RULES);
                let profiles = source.ast.profiles.keys().map(|name| Some(name.to_string()));
                for profile in std::iter::once(None).chain(profiles) {
                    let (budget, options) = (Budget::default(), Options { profile, ..Options::default() });
                    let model =
                        elaborate_within(&source, &options, &budget).unwrap_or_else(|e| panic!("{e}"));
                    for resource in Resource::ALL {
                        few(
                            &format!("{resource:?}"),
                            budget.used(resource) as usize,
                            resource.limit() as usize,
                        );
                    }
                    let request =
                        Trace { phase: 0, batch: 1, seq: model.train.seq_len, qat: true, head: Head::Loss };
                    let run = trace::run(&source.ast, &model.program.phases[0], &request, &budget);
                    few("nodes", run.builder.graph().node_count(), crate::graph::MAX_NODES);
                    seen += 1;
                }
            }
        }
        assert!(seen >= 10, "{seen} models and profiles");
    }

    #[test]
    fn a_budget_is_exceeded_by_one_over() {
        for resource in Resource::ALL {
            let budget = Budget::default();
            budget.charge(resource, resource.limit() as usize);
            assert!(budget.exceeded().is_none() && budget.left(resource) == 0);
            budget.charge(resource, 1);
            let (message, help) = budget.exceeded().unwrap();
            assert!(message.contains(&resource.limit().to_string()) && !help.is_empty());
            budget.charge(resource, usize::MAX);
            assert!(budget.exceeded().is_some());
        }
    }
}
