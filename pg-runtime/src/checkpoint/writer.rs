//! A thread that writes checkpoints while training goes on. One at a time: what comes while it is busy is not taken, and
//! the next step offers a newer one.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use super::{Checkpoint, CheckpointError, list, path_in, write};

/// Checkpoints that are kept: where the newest turns out to be torn, there is one before it.
const KEPT: usize = 2;

/// Writes into one folder. Dropping it waits for what it is writing.
pub struct Writer {
    folder: PathBuf,
    /// `None` only while it is dropped.
    work: Option<Sender<Checkpoint>>,
    done: Receiver<Result<(), CheckpointError>>,
    thread: Option<JoinHandle<()>>,
    is_busy: bool,
}

impl Writer {
    /// A writer into an existing folder.
    pub fn new(folder: &Path) -> Writer {
        let (work, checkpoints) = channel::<Checkpoint>();
        let (results, done) = channel();
        let folder = folder.to_owned();
        let own = folder.clone();
        let thread = std::thread::spawn(move || {
            for checkpoint in checkpoints {
                if results.send(keep(&own, &checkpoint)).is_err() {
                    return;
                }
            }
        });
        Writer { folder, work: Some(work), done, thread: Some(thread), is_busy: false }
    }

    /// Whether it could take a checkpoint, and how the last one went that it finished since this was asked.
    pub fn poll(&mut self) -> (bool, Result<(), CheckpointError>) {
        let finished = match self.done.try_recv() {
            Ok(result) => {
                self.is_busy = false;
                result
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => Ok(()),
        };
        (!self.is_busy, finished)
    }

    /// Begins to write a checkpoint. [`Self::poll`] says when it may.
    pub fn begin(&mut self, checkpoint: Checkpoint) {
        if let Some(work) = &self.work {
            self.is_busy = work.send(checkpoint).is_ok();
        }
    }

    /// Writes a checkpoint after the one it is writing, and returns when it is on disk.
    ///
    /// # Errors
    /// What kept it from being written; the one before stands as it was.
    pub fn write_now(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        if self.is_busy {
            // How the older one went does not matter any more.
            let _ = self.done.recv();
            self.is_busy = false;
        }
        keep(&self.folder, checkpoint)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes a checkpoint, and removes those that are too old.
fn keep(folder: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    write(&path_in(folder, checkpoint.meta.position.step), checkpoint)?;
    let io = |path: &Path| {
        let path = path.to_owned();
        |error| CheckpointError::Io { path, error }
    };
    for old in list(folder).map_err(io(folder))?.iter().skip(KEPT) {
        std::fs::remove_file(old).map_err(io(old))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::checkpoint;
    use super::*;

    #[test]
    fn the_newest_two_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path());
        for steps in 1..6 {
            while !writer.poll().0 {
                std::thread::yield_now();
            }
            writer.begin(checkpoint(steps));
        }
        writer.write_now(&checkpoint(6)).unwrap();
        let kept = list(folder.path()).unwrap();
        assert_eq!(kept, [path_in(folder.path(), 6), path_in(folder.path(), 5)]);
    }

    #[test]
    fn a_failure_is_said_and_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path());
        writer.write_now(&checkpoint(1)).unwrap();
        // A folder in the place of the next file.
        std::fs::create_dir(path_in(folder.path(), 2)).unwrap();
        writer.begin(checkpoint(2));
        let result = loop {
            if let (true, result) = writer.poll() {
                break result;
            }
        };
        assert!(result.unwrap_err().to_string().contains("step-00000002"));
        assert!(super::super::read(&path_in(folder.path(), 1)).is_ok());
    }
}
