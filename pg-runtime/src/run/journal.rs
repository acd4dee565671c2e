//! `metrics.jsonl` as it is read: a line for each step, and, where the run scores its weights while it trains, a line for each
//! score, before that of the step which follows it.

use std::io::{self, BufReader};
use std::path::Path;

use pg_ir::input;

use crate::report::{LiveScore, StepMetrics};

/// The lines of a journal.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Journal {
    /// Those of steps: whole lines, consecutive from 0 on.
    pub(super) steps: Vec<StepMetrics>,
    /// Those of scores, in order.
    pub(super) scores: Vec<LiveScore>,
    /// Bytes of all of them: what follows is what a stop cut off.
    pub(super) bytes: u64,
}

impl Journal {
    /// Reads a journal; an empty one where there is no file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(super) fn read(path: &Path) -> io::Result<Journal> {
        let mut journal = Journal::default();
        let mut reader = match input::open(path) {
            Ok((file, _)) => BufReader::new(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(journal),
            Err(error) => return Err(error),
        };
        let mut line = Vec::new();
        loop {
            line.clear();
            match input::read_line(&mut reader, StepMetrics::MAX_LINE, &mut line) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => break,
                Err(error) => return Err(error),
            }
            if !line.strip_suffix(b"\n").is_some_and(|whole| journal.take(whole)) {
                break;
            }
            journal.bytes += line.len() as u64;
        }
        Ok(journal)
    }

    /// Takes in a line, if it is one and the next.
    fn take(&mut self, line: &[u8]) -> bool {
        let done = self.steps.len() as u64;
        if let Ok(step) = serde_json::from_slice::<StepMetrics>(line) {
            self.steps.extend((step.step == done).then_some(step));
            return step.step == done;
        }
        let is_new = |score: &LiveScore| {
            score.after_steps == done && self.scores.last().is_none_or(|last| last.after_steps < done)
        };
        match serde_json::from_slice::<LiveScore>(line).ok().filter(is_new) {
            Some(score) => self.scores.push(score),
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_read_up_to_where_it_was_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        assert_eq!(Journal::read(&path).unwrap(), Journal::default());
        let step = |step| StepMetrics {
            step,
            loss: 0.1 + 0.2,
            lr_scale: 1.0 / 3.0,
            grad_norm: 1e-7,
            ms: 12.345_678_901_234_567,
            elapsed_s: 1e9 / 7.0,
            phase: 1,
        };
        let score = LiveScore { after_steps: 2, bpb: 2.0 / 3.0, ms: 0.1 };
        let [first, second, third] = [0, 1, 2].map(|i| serde_json::to_string(&step(i)).unwrap() + "\n");
        let scored = serde_json::to_string(&score).unwrap() + "\n";
        let all = [first, second, scored, third];
        let text = all.concat();
        for length in 0..=text.len() {
            std::fs::write(&path, &text[..length]).unwrap();
            let Journal { steps, scores, bytes: whole } = Journal::read(&path).unwrap();
            let expected = all.iter().scan(0, |sum, line| {
                *sum += line.len();
                Some(*sum)
            });
            let count = expected.filter(|end| *end <= length).count();
            let is_scored = count > 2;
            let done = (count - usize::from(is_scored)) as u64;
            assert_eq!(steps, (0..done).map(step).collect::<Vec<_>>(), "to the last bit");
            assert_eq!(scores, if is_scored { vec![score] } else { vec![] }, "to the last bit");
            assert_eq!(whole as usize, all[..count].concat().len());
        }
        // A step that is missing ends it, too, and so does a score of other steps, or a second one.
        for (lines, steps) in [([0, 3, 3], 1), ([0, 2, 1], 1), ([0, 2, 3], 1)] {
            std::fs::write(&path, lines.map(|i| all[i].as_str()).concat()).unwrap();
            assert_eq!(Journal::read(&path).unwrap().steps.len(), steps);
        }
        std::fs::write(&path, [0, 1, 2, 2, 3].map(|i| all[i].as_str()).concat()).unwrap();
        let Journal { steps, scores, .. } = Journal::read(&path).unwrap();
        assert_eq!((steps.len(), scores.len()), (2, 1));
    }
}
