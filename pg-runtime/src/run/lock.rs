//! A lock on a folder: a file in it that one process holds, however that ends, and that names it to the others.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A locked file, until it is dropped or the process ends.
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

/// Who holds a lock, in words.
#[derive(Debug)]
pub(crate) struct Owner(pub(crate) String);

impl Owner {
    fn read(file: File) -> Owner {
        let mut owner = String::new();
        let _ = file.take(1 << 10).read_to_string(&mut owner);
        Owner(owner.trim().to_owned())
    }
}

impl Lock {
    /// Takes a lock, or says who has it. The file's folder must exist.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn take(path: &Path) -> io::Result<Result<Lock, Owner>> {
        // Whoever looks for an owner has the lock for a moment, too.
        let patience = Instant::now() + Duration::from_millis(100);
        loop {
            let file = open(path)?;
            match file.try_lock() {
                // An owner that ended may have removed the file since it was opened.
                Ok(()) if is_still(&file, path) => return Lock::of(path, file).map(Ok),
                Ok(()) => {}
                Err(TryLockError::Error(error)) => return Err(error),
                Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::WouldBlock) => return Ok(Err(Owner::read(file))),
            }
        }
    }

    /// Who has a lock, if anybody does; it is not taken, and its file is not made.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn owner(path: &Path) -> io::Result<Option<Owner>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match file.try_lock_shared() {
            // It is given up with the file.
            Ok(()) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
            Err(TryLockError::WouldBlock) => Ok(Some(Owner::read(file))),
        }
    }

    /// Takes a lock, once whoever has it ends.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn wait_for(path: &Path) -> io::Result<Lock> {
        loop {
            let file = open(path)?;
            file.lock()?;
            if is_still(&file, path) {
                return Lock::of(path, file);
            }
        }
    }

    fn of(path: &Path, mut file: File) -> io::Result<Lock> {
        let owner = format!("process {} on {}\n", std::process::id(), host());
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(owner.as_bytes())?;
        Ok(Lock { path: path.to_owned(), _file: file })
    }

    /// Removes the file. Whoever has opened it sees that it is gone, and looks again.
    ///
    /// # Errors
    /// Of the file system.
    pub(crate) fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

/// Whether an open file is the one that has a name.
fn is_still(file: &File, name: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |m: std::fs::Metadata| (m.dev(), m.ino());
        file.metadata().map(id).ok() == std::fs::metadata(name).map(id).ok()
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        name.exists()
    }
}

fn host() -> String {
    #[cfg(unix)]
    return rustix::system::uname().nodename().to_string_lossy().into_owned();
    #[cfg(not(unix))]
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "this machine".into())
}
