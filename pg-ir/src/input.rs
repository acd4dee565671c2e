//! Reading files. Only regular files are read, and no more of one than a file of its kind may have: a device never
//! ends, a pipe may never begin, and a wrong name may be that of anything.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, ErrorKind, Read};
use std::path::Path;

use crate::lang::limits::MAX_SOURCE_BYTES;

const MIB: u64 = 1 << 20;

/// A kind of file: its name in messages, and the most bytes that one may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    what: &'static str,
    most: u64,
}

impl Kind {
    /// Text of a model: 1 MiB.
    pub const MODEL: Kind = Kind { what: "a model file", most: MAX_SOURCE_BYTES as u64 };
    /// A SentencePiece model: 8 MiB, four times what 65,536 pieces and their rules take.
    pub const TOKENIZER: Kind = Kind { what: "a tokenizer", most: 8 * MIB };
    /// Choices of generated kernels: 1 MiB.
    pub const TUNING: Kind = Kind { what: "a tuning file", most: MIB };
    /// JSON that pg wrote as one value (a report, a record, a manifest): 64 MiB.
    pub const JSON: Kind = Kind { what: "such a JSON file", most: 64 * MIB };
    /// A kernel's source or listing: 64 MiB.
    pub const KERNEL: Kind = Kind { what: "a kernel's text", most: 64 * MIB };

    /// Files of at most `most` bytes; `what` is their name in messages, with its article.
    pub const fn new(what: &'static str, most: u64) -> Kind {
        Kind { what, most }
    }

    /// The most bytes that one may have.
    pub const fn most(self) -> u64 {
        self.most
    }

    /// Reads a file whole.
    ///
    /// # Errors
    /// Any of the file system; those of [`open`]; `FileTooLarge` for one that is too long, of which no more than
    /// the limit is read; `OutOfMemory`.
    pub fn read(self, path: &Path) -> io::Result<Vec<u8>> {
        let (file, length) = open(path)?;
        self.check(length)?;
        let mut bytes = Vec::new();
        // `length` is within the limit, which is far below 2^32.
        bytes.try_reserve_exact(length as usize + 1)?;
        // Files of /proc say that they are empty, and another process may write: the length proves nothing.
        file.take(self.most + 1).read_to_end(&mut bytes)?;
        self.check(bytes.len() as u64)?;
        Ok(bytes)
    }

    /// Reads a text file whole.
    ///
    /// # Errors
    /// As [`Self::read`]; `InvalidData`, naming the line, for what is not UTF-8.
    pub fn read_text(self, path: &Path) -> io::Result<String> {
        String::from_utf8(self.read(path)?).map_err(|e| {
            let before = &e.as_bytes()[..e.utf8_error().valid_up_to()];
            let line = 1 + before.iter().filter(|b| **b == b'\n').count();
            let what = format!("line {line} is not UTF-8 text: convert it with `iconv -t UTF-8`");
            io::Error::new(ErrorKind::InvalidData, what)
        })
    }

    fn check(self, length: u64) -> io::Result<()> {
        let Kind { what, most } = self;
        if length <= most {
            return Ok(());
        }
        let what = format!("it is too long: {what} has at most {most} bytes; is it the right file?");
        Err(io::Error::new(ErrorKind::FileTooLarge, what))
    }
}

/// Opens a regular file; its length in bytes, as the file system knows it.
///
/// # Errors
/// Any of the file system; `IsADirectory`, or `InvalidInput` for a pipe, a device or a socket.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    // Opening a pipe waits for its writer: look first. What is there by then is looked at once more.
    check_regular(&path.metadata()?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    check_regular(&metadata)?;
    Ok((file, metadata.len()))
}

/// Checks that a file is a regular one.
///
/// # Errors
/// `IsADirectory`, or `InvalidInput` for a pipe, a device or a socket.
pub fn check_regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let (kind, what) = match metadata.is_dir() {
        true => (ErrorKind::IsADirectory, "it is a folder, where a file is expected"),
        false => (
            ErrorKind::InvalidInput,
            "it is a pipe or a device, which may not end: write what it gives to a file, and name that file",
        ),
    };
    Err(io::Error::new(kind, what))
}

/// Appends a line to `line`, its end included; whether there was one. At most `most` bytes are read.
///
/// # Errors
/// Any of the reader; `FileTooLarge` for a longer line.
pub fn read_line(reader: &mut impl BufRead, most: usize, line: &mut Vec<u8>) -> io::Result<bool> {
    let read = reader.take(most as u64 + 1).read_until(b'\n', line)?;
    if read > most {
        let what = format!("a line of over {most} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, what));
    }
    Ok(read > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Kind = Kind::new("a note", 8);

    fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    #[test]
    fn files_up_to_the_limit_are_read() {
        for bytes in [&b""[..], b"12345678"] {
            assert_eq!(SMALL.read(written(bytes).path()).unwrap(), bytes);
        }
        let error = SMALL.read(written(b"123456789").path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert!(error.to_string().contains("a note has at most 8 bytes"), "{error}");
    }

    #[test]
    fn text_that_is_none_is_placed() {
        let error = SMALL.read_text(written(b"a\nb\n\xff").path()).unwrap_err();
        assert!(error.to_string().starts_with("line 3 is not UTF-8"), "{error}");
    }

    #[test]
    fn folders_and_missing_files_are_told_apart() {
        let error = SMALL.read(&std::env::temp_dir()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory);
        assert_eq!(SMALL.read(Path::new("/none/x")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn what_may_not_end_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&pipe, Path::new("/dev/zero")] {
            let error = SMALL.read(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("a pipe or a device"), "{error}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_length_that_is_no_length_is_not_believed() {
        // A file of /proc is longer than it says; a sparse file is all length.
        assert_eq!(SMALL.read(Path::new("/proc/self/status")).unwrap_err().kind(), ErrorKind::FileTooLarge);
        let sparse = written(b"");
        sparse.as_file().set_len(1 << 40).unwrap();
        assert_eq!(SMALL.read(sparse.path()).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn lines_are_bounded() {
        let mut text = &b"abc\n\nabcd\nx"[..];
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            match read_line(&mut text, 4, &mut line) {
                Ok(true) => lines.push(line),
                Ok(false) => panic!("the third line is too long"),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::FileTooLarge);
                    break;
                }
            }
        }
        assert_eq!(lines, [&b"abc\n"[..], b"\n"]);
        let mut line = Vec::new();
        assert!(read_line(&mut &b"x"[..], 4, &mut line).unwrap());
        assert!(!read_line(&mut &b""[..], 4, &mut line).unwrap());
        assert_eq!(line, b"x");
    }
}
