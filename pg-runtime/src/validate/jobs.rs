//! Work on a few threads of its own, reported as it ends.
//!
//! Not on the threads of the rayon pool: an executor holds its memory locked while the pool works for it, and a pool's
//! thread that waits may take up any other task, which must never be one that wants the same lock.

use std::sync::Mutex;
use std::sync::mpsc::channel;

/// Threads at most: each may hold a reference's values, and what they all wait for are the same cores.
const MOST: usize = 4;

/// Does every job, in order of position on as many threads as asked for; results in that order. `done` hears of each
/// that has ended, on this thread.
pub(super) fn each<J: Send, R: Send>(
    jobs: Vec<J>,
    threads: usize,
    run: impl Fn(J) -> R + Sync,
    mut done: impl FnMut(),
) -> Vec<R> {
    let count = jobs.len();
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let (send, receive) = channel();
    let mut results: Vec<Option<R>> = (0..count).map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, MOST).min(count) {
            let (send, queue, run) = (send.clone(), &queue, &run);
            scope.spawn(move || {
                loop {
                    let next = queue.lock().unwrap_or_else(|e| e.into_inner()).next();
                    let Some((at, job)) = next else { break };
                    // Nobody receives any more only if this scope is being left.
                    let _ = send.send((at, run(job)));
                }
            });
        }
        drop(send);
        for (at, result) in receive {
            results[at] = Some(result);
            done();
        }
    });
    // A job without a result has panicked, and the scope with it.
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_whoever_made_them() {
        for threads in [0, 1, 3, 100] {
            let mut ended = 0;
            let squares = each((0..50u64).collect(), threads, |x| x * x, || ended += 1);
            assert_eq!(squares, (0..50).map(|x| x * x).collect::<Vec<u64>>());
            assert_eq!(ended, 50);
        }
        assert!(each(Vec::<u8>::new(), 2, |x| x, || ()).is_empty());
    }
}
