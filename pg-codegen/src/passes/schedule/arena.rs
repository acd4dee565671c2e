//! The arena: where temporaries lie so that they share memory.
//!
//! Each temporary is alive from the launch that writes it to the last launch that reads it. The largest
//! are placed first, each at the lowest offset where it fits beside those already placed that are alive
//! at the same time. Two buffers that are alive at the same time must never overlap.

/// Offsets and sizes are multiples of this, so that rows start on cache lines.
const ALIGN: usize = 64;

/// A temporary: its bytes and the first and last launch that uses it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    pub(crate) bytes: usize,
    pub(crate) first: usize,
    pub(crate) last: usize,
}

/// The byte offset of each temporary, and the bytes of the arena.
pub(crate) fn place(temporaries: &[Lifetime]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..temporaries.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(temporaries[i].bytes), temporaries[i].first, i));
    let mut offsets: Vec<usize> = vec![0; temporaries.len()];
    // Those placed so far, by offset.
    let mut placed: Vec<usize> = Vec::new();
    let mut arena = 0;
    for i in order {
        let t = temporaries[i];
        let size = t.bytes.next_multiple_of(ALIGN);
        let (mut best, mut end): (Option<(usize, usize)>, usize) = (None, 0);
        for &p in &placed {
            let other = temporaries[p];
            if other.last < t.first || t.last < other.first {
                continue;
            }
            let gap = offsets[p].saturating_sub(end);
            if gap >= size && best.is_none_or(|(smallest, _)| gap < smallest) {
                best = Some((gap, end));
            }
            end = end.max(offsets[p] + other.bytes.next_multiple_of(ALIGN));
        }
        offsets[i] = best.map_or(end, |(_, at)| at);
        arena = arena.max(offsets[i] + size);
        let at = placed.partition_point(|&p| offsets[p] <= offsets[i]);
        placed.insert(at, i);
    }
    (offsets, arena)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_buffers_of_different_times_share_memory() {
        let at = |bytes, first, last| Lifetime { bytes, first, last };
        let all = [at(100, 0, 2), at(64, 1, 1), at(100, 3, 5), at(200, 4, 6), at(1, 0, 6), at(60, 2, 3)];
        let (offsets, arena) = place(&all);
        for (i, a) in all.iter().enumerate() {
            assert_eq!(offsets[i] % ALIGN, 0);
            assert!(offsets[i] + a.bytes <= arena);
            for (j, b) in all.iter().enumerate().skip(i + 1) {
                let together = a.first <= b.last && b.first <= a.last;
                let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                assert!(!together || apart, "{i} and {j}");
            }
        }
        assert!(arena < all.iter().map(|t| t.bytes.next_multiple_of(ALIGN)).sum());
    }
}
