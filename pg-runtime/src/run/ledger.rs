//! Where a run's time goes, by a clock that nothing sets back.

use std::time::Instant;

use crate::report::LedgerEntry;

/// Seconds of each part of a run, in the order in which they were spent.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Vec<LedgerEntry>,
    last: Instant,
}

impl Ledger {
    /// Nothing was done before `since`.
    pub(super) fn since(since: Instant) -> Ledger {
        Ledger { entries: Vec::new(), last: since }
    }

    /// Enters what was done since the last entry.
    pub(super) fn enter(&mut self, part: &str) {
        self.enter_with(part, 0.0);
    }

    /// The same of a part of which `before` seconds were spent by a process that was stopped.
    pub(super) fn enter_with(&mut self, part: &str, before: f64) {
        let now = Instant::now();
        let seconds = before + (now - self.last).as_secs_f64();
        self.last = now;
        self.entries.push(LedgerEntry { part: part.to_owned(), seconds });
    }

    /// The same of a part during which `seconds` were spent on `other`; they are entered there, if there are any.
    pub(super) fn enter_around(&mut self, part: &str, before: f64, (other, seconds): (&str, f64)) {
        self.enter_with(part, before - seconds);
        if seconds > 0.0 {
            self.entries.push(LedgerEntry { part: other.to_owned(), seconds });
        }
    }

    pub(super) fn entries(&self) -> &[LedgerEntry] {
        &self.entries
    }
}
