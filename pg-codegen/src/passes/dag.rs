//! Which launch waits for which: the dependence graph of launches, with a topological order of it.
//!
//! Passes that make one launch of two, or let one overwrite what others read, do so through [`Dag`], which allows it
//! only where it can rewrite the order. A cycle has no such order, so launches that wait for each other cannot be
//! made. It must never allow a join on a guess: every path between two launches lies between them in the order, and
//! all of that stretch is looked at.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use pg_ir::graph::ValueId;
use smallvec::SmallVec;

/// The buffers that a launch reads and writes, by the values in them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    pub(crate) reads: SmallVec<[ValueId; 8]>,
    pub(crate) writes: SmallVec<[ValueId; 4]>,
}

/// Launches, by number, in a topological order.
#[derive(Debug)]
pub(crate) struct Dag {
    /// `None` for a launch that another has taken up.
    launches: Vec<Option<Access>>,
    /// By value: the launch that writes it.
    writer: Vec<Option<usize>>,
    /// By value: the launches that read it, in ascending order.
    readers: Vec<Vec<usize>>,
    /// By launch: those that must run before it although it reads nothing of theirs.
    earlier: Vec<Vec<usize>>,
    /// Every launch after all that it waits for.
    order: Vec<usize>,
    /// By launch: its position in `order`.
    position: Vec<usize>,
    /// By launch: the number of the last search that reached it.
    reached: Vec<u32>,
    searches: u32,
}

impl Dag {
    /// The graph of some launches over `values` values, or a launch that waits for itself.
    pub(crate) fn new(
        values: usize,
        launches: impl IntoIterator<Item = Option<Access>>,
    ) -> Result<Dag, usize> {
        let launches: Vec<Option<Access>> = launches.into_iter().collect();
        let n = launches.len();
        let mut dag = Dag {
            launches,
            writer: vec![None; values],
            readers: vec![Vec::new(); values],
            earlier: vec![Vec::new(); n],
            order: Vec::new(),
            position: vec![0; n],
            reached: vec![0; n],
            searches: 0,
        };
        for i in 0..n {
            dag.link(i);
        }
        dag.order = dag.sorted(|i| i);
        dag.renumber();
        let mut is_sorted = vec![false; n];
        dag.order.iter().for_each(|&i| is_sorted[i] = true);
        match (0..n).find(|&i| !is_sorted[i] && dag.launches[i].is_some()) {
            Some(stuck) => Err(stuck),
            None => Ok(dag),
        }
    }

    /// The launches that read a value.
    pub(crate) fn readers(&self, value: ValueId) -> &[usize] {
        &self.readers[value.index()]
    }

    /// The launch that writes a value.
    pub(crate) fn writer(&self, value: ValueId) -> Option<usize> {
        self.writer[value.index()]
    }

    /// Whether `to` is `from` or waits for it.
    pub(crate) fn reaches(&mut self, from: usize, to: usize) -> bool {
        from == to || self.mark(from, to) && self.waits_for_marked(to, Some(from))
    }

    /// Whether one launch can do the work of two: neither waits for the other through a third.
    pub(crate) fn can_join(&mut self, a: usize, b: usize) -> bool {
        let (first, last) = self.in_order(a, b);
        self.mark(first, last) && !self.waits_for_marked(last, None)
    }

    /// Makes one launch, `into`, of `a` and `b`; it is one of them or a new one. Says no, and changes nothing, if it
    /// would wait for itself, if it reads what neither of the two did, or if it does not write what others read.
    pub(crate) fn join(&mut self, a: usize, b: usize, into: usize, access: Access) -> bool {
        let reads_no_more = access.reads.iter().all(|v| {
            let who = self.readers(*v);
            who.contains(&a) || who.contains(&b)
        });
        let old = |i: usize| self.launches[i].iter().flat_map(|l| &l.writes).copied();
        let is_still_written =
            |v: ValueId| access.writes.contains(&v) || self.readers(v).iter().all(|&r| r == a || r == b);
        if !reads_no_more || !old(a).chain(old(b)).all(is_still_written) || !self.can_join(a, b) {
            return false;
        }
        // What waits for the first of the two can run after both, and nothing else between them has to.
        let (first, last) = self.in_order(a, b);
        self.reorder(self.position[first], self.position[last], first, into);
        for i in [a, b] {
            self.unlink(i);
        }
        if into == self.launches.len() {
            self.launches.push(None);
            self.earlier.push(Vec::new());
            self.position.push(0);
            self.reached.push(0);
        }
        for i in [a, b].into_iter().filter(|&i| i != into) {
            let own = std::mem::take(&mut self.earlier[i]);
            self.earlier[into].extend(own);
        }
        for earlier in &mut self.earlier {
            earlier.iter_mut().filter(|e| **e == a || **e == b).for_each(|e| *e = into);
        }
        self.launches[into] = Some(access);
        self.link(into);
        self.renumber();
        true
    }

    /// Makes `later` wait for `earlier`. Says no, and changes nothing, if that waits for `later`.
    pub(crate) fn run_before(&mut self, earlier: usize, later: usize) -> bool {
        if self.reaches(later, earlier) {
            return false;
        }
        // What waits for `later`, as the search has just marked it, moves behind `earlier` with it.
        if self.position[later] < self.position[earlier] {
            let (from, to) = (self.position[later], self.position[earlier]);
            let stretch: Vec<usize> = self.order[from..=to].to_vec();
            let (after, before): (Vec<usize>, Vec<usize>) =
                stretch.into_iter().partition(|&i| i == later || self.is_marked(i));
            self.order.splice(from..=to, before.into_iter().chain(after));
            self.renumber();
        }
        if !self.earlier[later].contains(&earlier) {
            self.earlier[later].push(earlier);
        }
        true
    }

    /// The launches in topological order, where there is a choice by `key`.
    pub(crate) fn sorted<K: Ord>(&self, key: impl Fn(usize) -> K) -> Vec<usize> {
        let mut waiting = vec![0; self.launches.len()];
        let mut next: Vec<Vec<usize>> = vec![Vec::new(); self.launches.len()];
        for (i, _) in self.alive() {
            for p in self.waited_for(i) {
                next[p].push(i);
                waiting[i] += 1;
            }
        }
        let at = |i: usize| Reverse((key(i), i));
        let mut ready: BinaryHeap<Reverse<(K, usize)>> =
            self.alive().filter(|&(i, _)| waiting[i] == 0).map(|(i, _)| at(i)).collect();
        let mut sorted = Vec::with_capacity(self.launches.len());
        while let Some(Reverse((_, i))) = ready.pop() {
            sorted.push(i);
            for &n in &next[i] {
                waiting[n] -= 1;
                if waiting[n] == 0 {
                    ready.push(at(n));
                }
            }
        }
        sorted
    }

    fn alive(&self) -> impl Iterator<Item = (usize, &Access)> {
        self.launches.iter().enumerate().filter_map(|(i, l)| Some((i, l.as_ref()?)))
    }

    /// Launches that `i` waits for, some perhaps more than once.
    fn waited_for(&self, i: usize) -> impl Iterator<Item = usize> + '_ {
        let reads = self.launches[i].iter().flat_map(|l| &l.reads);
        let writers = reads.filter_map(|v| self.writer[v.index()]);
        writers.chain(self.earlier[i].iter().copied()).filter(move |&p| p != i)
    }

    fn in_order(&self, a: usize, b: usize) -> (usize, usize) {
        if self.position[a] <= self.position[b] { (a, b) } else { (b, a) }
    }

    /// Marks all launches between `from` and `to` in the order that wait for `from`. `false` if `to` is before it.
    fn mark(&mut self, from: usize, to: usize) -> bool {
        self.searches += 1;
        let (start, end) = (self.position[from], self.position[to]);
        if end < start {
            return false;
        }
        for at in start + 1..end {
            let i = self.order[at];
            if self.waits_for_marked(i, Some(from)) {
                self.reached[i] = self.searches;
            }
        }
        true
    }

    fn is_marked(&self, i: usize) -> bool {
        self.reached[i] == self.searches
    }

    fn waits_for_marked(&self, i: usize, or: Option<usize>) -> bool {
        self.waited_for(i).any(|p| Some(p) == or || self.is_marked(p))
    }

    /// After [`Self::can_join`] has marked a stretch of the order: puts `into` where its ends can meet.
    fn reorder(&mut self, from: usize, to: usize, first: usize, into: usize) {
        let (last, searches) = (self.order[to], self.searches);
        let between: Vec<usize> =
            self.order[from..=to].iter().copied().filter(|&i| i != first && i != last).collect();
        let (after, before): (Vec<usize>, Vec<usize>) =
            between.into_iter().partition(|&i| self.reached[i] == searches);
        self.order.splice(from..=to, before.into_iter().chain([into]).chain(after));
    }

    fn renumber(&mut self) {
        for (at, &i) in self.order.iter().enumerate() {
            self.position[i] = at;
        }
    }

    fn link(&mut self, i: usize) {
        let Some(access) = &self.launches[i] else { return };
        for v in &access.writes {
            self.writer[v.index()] = Some(i);
        }
        for v in &access.reads {
            let readers = &mut self.readers[v.index()];
            if let Err(at) = readers.binary_search(&i) {
                readers.insert(at, i);
            }
        }
    }

    fn unlink(&mut self, i: usize) {
        let Some(access) = self.launches[i].take() else { return };
        for v in &access.writes {
            self.writer[v.index()] = None;
        }
        for v in &access.reads {
            self.readers[v.index()].retain(|&r| r != i);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pg_ir::graph::Builder;
    use pg_ir::op::Unary;
    use pg_ir::slot::{Slot, Space};
    use pg_ir::ty::Type;

    /// Values 0 to n - 1, of which a graph has as many as one likes.
    fn values(n: usize) -> Vec<ValueId> {
        let mut b = Builder::default();
        let mut v = vec![b.input(Slot::new(Space::Param, "x"), Type::channels(&[1]))];
        (1..n).for_each(|i| v.push(b.unary(Unary::Exp, v[i - 1])));
        v
    }

    fn random(seed: u64) -> impl FnMut(usize) -> usize {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        move |n| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) as usize % n
        }
    }

    /// By brute force: whether `to` waits for `from` through `through` or more launches.
    fn waits(all: &[Option<Access>], from: usize, to: usize, through: usize) -> bool {
        let writes = |i: usize| all[i].iter().flat_map(|a| a.writes.clone()).collect::<Vec<_>>();
        let reads = |i: usize, v: &ValueId| all[i].as_ref().is_some_and(|a| a.reads.contains(v));
        let next =
            |i: usize| (0..all.len()).filter(move |&j| j != i && writes(i).iter().any(|v| reads(j, v)));
        next(from).any(|n| if n == to { through == 0 } else { waits(all, n, to, through.saturating_sub(1)) })
    }

    #[test]
    fn joins_are_made_where_no_third_launch_waits_between_and_nowhere_else() {
        let v = values(40);
        let (mut made, mut refused) = (0, 0);
        for seed in 1..200 {
            let mut below = random(seed);
            let mut all: Vec<Option<Access>> = (0..14)
                .map(|i| {
                    let reads = (0..below(4)).map(|_| v[below(i + 1)]).collect();
                    Some(Access { reads, writes: SmallVec::from_slice(&[v[i + 1]]) })
                })
                .collect();
            // Numbers of launches say nothing about their order.
            (0..14).for_each(|i| all.swap(i, below(14)));
            let mut dag = Dag::new(v.len(), all.clone()).unwrap();
            for _ in 0..60 {
                let (a, b) = (below(all.len()), below(all.len()));
                if a == b || all[a].is_none() || all[b].is_none() {
                    continue;
                }
                assert_eq!(dag.reaches(a, b), waits(&all, a, b, 0), "seed {seed}");
                let is_legal = !waits(&all, a, b, 1) && !waits(&all, b, a, 1);
                let (x, y) = (all[a].clone().unwrap(), all[b].clone().unwrap());
                let writes: SmallVec<[ValueId; 4]> = x.writes.iter().chain(&y.writes).copied().collect();
                let reads = x.reads.iter().chain(&y.reads).filter(|r| !writes.contains(r)).copied().collect();
                let access = Access { reads, writes };
                let into = if below(2) == 0 { a } else { all.len() };
                assert_eq!(dag.join(a, b, into, access.clone()), is_legal, "seed {seed}");
                if is_legal {
                    (all[a], all[b]) = (None, None);
                    all.resize(all.len().max(into + 1), None);
                    all[into] = Some(access);
                }
                *if is_legal { &mut made } else { &mut refused } += 1;
                let alive = all.iter().flatten().count();
                assert_eq!((dag.order.len(), dag.sorted(|i| i).len()), (alive, alive), "seed {seed}");
            }
        }
        assert!(made > 1000 && refused > 200, "{made} made, {refused} refused");
    }

    #[test]
    fn what_overwrites_waits_for_what_reads_and_never_the_other_way_round() {
        let v = values(6);
        let launch = |reads: &[usize], writes: usize| {
            let reads = reads.iter().map(|&r| v[r]).collect();
            Some(Access { reads, writes: SmallVec::from_slice(&[v[writes]]) })
        };
        // 2 waits for 1; 0 and 3 are free.
        let mut dag =
            Dag::new(v.len(), [launch(&[0], 1), launch(&[0], 2), launch(&[2], 3), launch(&[0], 4)]).unwrap();
        assert!(dag.run_before(2, 0));
        assert!(dag.reaches(1, 0) && !dag.reaches(0, 1));
        assert!(!dag.run_before(0, 1), "1 comes before 2, which comes before 0");
        assert!(dag.run_before(0, 3) && !dag.run_before(3, 2));
        assert_eq!(dag.sorted(|i| i), [1, 2, 0, 3]);
        assert!(!dag.can_join(1, 0), "2 would be between");
        assert!(dag.can_join(1, 2));
    }

    #[test]
    fn launches_that_wait_for_each_other_are_no_graph() {
        let v = values(3);
        let launch = |reads: usize, writes: usize| {
            Some(Access {
                reads: SmallVec::from_slice(&[v[reads]]),
                writes: SmallVec::from_slice(&[v[writes]]),
            })
        };
        assert!(Dag::new(v.len(), [launch(1, 2), launch(2, 1)]).is_err());
        assert!(Dag::new(v.len(), [launch(0, 2), launch(2, 1)]).is_ok());
    }

    #[test]
    fn a_join_neither_reads_more_nor_forgets_what_others_read() {
        let v = values(5);
        let access = |reads: &[usize], writes: &[usize]| Access {
            reads: reads.iter().map(|&r| v[r]).collect(),
            writes: writes.iter().map(|&w| v[w]).collect(),
        };
        let launches = [access(&[0], &[2]), access(&[0], &[3]), access(&[2], &[4])];
        let mut dag = Dag::new(v.len(), launches.map(Some)).unwrap();
        assert!(!dag.join(0, 1, 0, access(&[1], &[2, 3])), "it reads another value");
        assert!(!dag.join(0, 1, 0, access(&[0], &[3])), "launch 2 reads value 2");
        assert!(dag.join(0, 2, 0, access(&[0], &[4])), "nothing else reads it");
    }
}
