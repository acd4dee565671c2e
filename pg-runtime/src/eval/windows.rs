//! Which window scores which target.

use pg_ir::lang::model::Model;

/// A stretch of tokens that one forward pass reads, and which of its targets it scores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// First token.
    pub start: usize,
    /// One past the last token; targets are shifted by one.
    pub end: usize,
    /// First scored target, counted from `start`.
    pub first: usize,
}

impl Window {
    /// First target that the window scores, counted from the start of the text.
    pub fn first_target(&self) -> usize {
        self.start + self.first
    }

    /// Number of targets that the window scores.
    pub fn scored(&self) -> usize {
        self.end - self.start - self.first
    }
}

/// How windows cover a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Windows {
    /// Tokens of a window.
    pub seq: usize,
    /// Targets that each window but the first scores.
    pub stride: usize,
    /// Also score the truncated windows at the end, as the original did: about `seq / stride`
    /// windows score their last `stride` targets a second time.
    pub rescore_tail: bool,
}

impl Windows {
    /// Windows that do not overlap: what a plain evaluation reads.
    pub fn plain(seq: usize) -> Windows {
        Windows { seq, stride: seq, rescore_tail: false }
    }

    /// The windows of a model's sliding evaluation of a text with `total` targets.
    pub fn sliding(model: &Model, total: usize) -> Windows {
        let eval = &model.eval;
        let seq = eval.seq_len.min(total).max(1);
        Windows { seq, stride: eval.stride.min(seq), rescore_tail: eval.rescore_tail }
    }

    /// Targets that are scored a second time.
    pub fn scored_again(&self, total: usize) -> usize {
        if self.rescore_tail {
            self.cover(total).iter().map(Window::scored).sum::<usize>() - total
        } else {
            0
        }
    }

    /// The windows of a text with `total` targets. Each but the first scores its last `stride` targets with
    /// as much context as the window allows; every target is scored exactly once, unless `rescore_tail`.
    pub fn cover(&self, total: usize) -> Vec<Window> {
        if self.rescore_tail { self.cover_original(total) } else { self.cover_once(total) }
    }

    fn cover_once(&self, total: usize) -> Vec<Window> {
        let mut windows = vec![Window { start: 0, end: self.seq.min(total), first: 0 }];
        let mut scored = windows[0].end;
        while scored < total {
            let end = (scored + self.stride).min(total);
            let start = end.saturating_sub(self.seq);
            windows.push(Window { start, end, first: scored - start });
            scored = end;
        }
        windows
    }

    fn cover_original(&self, total: usize) -> Vec<Window> {
        let window = |start: usize| {
            let end = (start + self.seq).min(total);
            let first = if start == 0 { 0 } else { (end - start).saturating_sub(self.stride) };
            Window { start, end, first }
        };
        (0..total).step_by(self.stride).map(window).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_scored_exactly_once() {
        for (seq, stride, total) in [(48, 16, 700), (40, 7, 521), (8, 8, 64), (8, 3, 5), (1, 1, 9), (8, 8, 9)]
        {
            let mut seen = vec![0; total];
            for w in (Windows { seq, stride, rescore_tail: false }).cover(total) {
                assert!(w.end - w.start <= seq && w.scored() > 0);
                seen[w.first_target()..w.end].iter_mut().for_each(|s| *s += 1);
            }
            assert!(seen.iter().all(|&s| s == 1), "{seq} {stride} {total}: {seen:?}");
        }
    }

    #[test]
    fn windows_keep_their_context() {
        let windows = (Windows { seq: 48, stride: 16, rescore_tail: false }).cover(700);
        assert!(windows[1..].iter().all(|w| w.end - w.start == 48 && w.first >= 32));
    }

    #[test]
    fn the_original_scores_its_tail_again() {
        let total = 62_021_632;
        let windows = (Windows { seq: 2048, stride: 64, rescore_tail: true }).cover(total);
        assert_eq!(windows.len(), 969_088);
        assert_eq!(windows.iter().map(Window::scored).sum::<usize>(), 62_023_616);
        assert_eq!((Windows { seq: 2048, stride: 64, rescore_tail: true }).scored_again(total), 1_984);
    }
}
