//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Writes `bytes` to `path` through a temporary file in the same folder and a rename, so that a crash or a full
/// disk leaves an old file as it was. The folder must exist. What is there and no file (a pipe, a device) is written
/// to as it stands.
///
/// # Errors
/// Any input/output error; the temporary file is then removed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// What the names of temporary files begin with: a process that is killed leaves one.
pub const TEMPORARY: &str = ".pg-";

/// As [`write_atomically`], of what `write` writes.
///
/// # Errors
/// Any of `write`'s and the file's; the temporary file is then removed.
pub fn write_atomically_with(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    match path.metadata() {
        Ok(there) if !there.is_file() && !there.is_dir() => {
            return write(&mut File::options().write(true).open(path)?);
        }
        // A link to nowhere is replaced, and what is wrong with the folder shows when the temporary file is made. Else what
        // is there may be a device.
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(error);
        }
        _ => {}
    }
    let folder = folder_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY).suffix(".tmp");
    // A temporary file is private by default; what it becomes should have a file's usual mode.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    write(file.as_file_mut())?;
    // Some filesystems report a full disk only here.
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync_folder(folder)
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the names in a folder as durable as the files are.
///
/// # Errors
/// If the folder cannot be opened, or its file system fails.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows has no such thing and refuses to open folders.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_written_to_and_not_replaced() {
        let full = Path::new("/dev/full");
        let error = write_atomically(full, b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(!full.metadata().unwrap().is_file());
    }

    #[test]
    fn replaces_whole_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        // The target is a folder, so the rename fails after everything has been written.
        let path = folder.path().join("a");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("kept"), b"x").unwrap();
        assert!(write_atomically(&path, b"two").is_err());
        assert_eq!(std::fs::read(path.join("kept")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
        assert!(write_atomically(&folder.path().join("missing/a"), b"x").is_err());
    }
}
