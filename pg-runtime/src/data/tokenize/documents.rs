//! Files to documents: JSON Lines, or plain text cut by file, blank line or line; gzip where a file is.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use pg_ir::input;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::error::TokenizeError;

/// How input files are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// JSON Lines where the name ends in `.jsonl`, `.ndjson` or `.json` (before `.gz`), else plain text.
    #[default]
    Auto,
    /// One JSON object a line.
    Jsonl,
    /// Plain text.
    Text,
}

/// What a document of plain text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// A file.
    #[default]
    File,
    /// What stands between blank lines.
    BlankLine,
    /// A line that is not blank.
    Line,
}

/// Most bytes of a line, unzipped: 16 MiB, some novels.
const MAX_LINE: usize = 16 << 20;
/// Most bytes of a document of plain text that is a file or a paragraph: 128 MiB.
const MAX_DOCUMENT: usize = 128 << 20;

/// A document as it stands in its file.
#[derive(Debug)]
pub(super) struct RawDocument {
    path: Arc<Path>,
    /// Its first line, from 1.
    line: u64,
    /// Whether it is JSON; else it is plain text.
    pub(super) json: bool,
    /// The line of JSON, or the text.
    pub(super) raw: Vec<u8>,
}

/// The documents of some files, in order.
pub(super) struct Documents<'a> {
    paths: std::slice::Iter<'a, PathBuf>,
    format: Format,
    split: Split,
    current: Option<Input>,
    /// Bytes read of all files, as they lie on disk.
    read: Arc<AtomicU64>,
}

struct Input {
    path: Arc<Path>,
    reader: Box<dyn BufRead>,
    json: bool,
    /// Lines taken so far.
    line: u64,
}

impl<'a> Documents<'a> {
    pub(super) fn new(paths: &'a [PathBuf], format: Format, split: Split) -> Documents<'a> {
        Documents { paths: paths.iter(), format, split, current: None, read: Arc::default() }
    }

    /// The documents of one input that is no file; its name decides as a file's does.
    pub(super) fn of(
        name: &Path,
        bytes: impl Read + 'static,
        format: Format,
        split: Split,
    ) -> Result<Documents<'static>, TokenizeError> {
        let current = Some(Input::new(name, bytes, format)?);
        Ok(Documents { paths: [].iter(), format, split, current, read: Arc::default() })
    }

    /// Bytes read of all files, as they lie on disk.
    pub(super) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The next document.
    ///
    /// # Errors
    /// [`TokenizeError::Read`].
    pub(super) fn next(&mut self) -> Result<Option<RawDocument>, TokenizeError> {
        loop {
            let input = match &mut self.current {
                Some(input) => input,
                None => {
                    let Some(path) = self.paths.next() else { return Ok(None) };
                    self.current.insert(Input::open(path, self.format, Arc::clone(&self.read))?)
                }
            };
            let split = if input.json { Split::Line } else { self.split };
            if let Some(document) = input.next(split)? {
                return Ok(Some(document));
            }
            self.current = None;
        }
    }
}

impl Input {
    fn open(path: &Path, format: Format, read: Arc<AtomicU64>) -> Result<Input, TokenizeError> {
        let (file, _) = input::open(path).map_err(TokenizeError::read(path))?;
        Input::new(path, Counted { inner: file, read }, format)
    }

    fn new(path: &Path, bytes: impl Read + 'static, format: Format) -> Result<Input, TokenizeError> {
        let fail = |error| TokenizeError::Read { path: path.to_owned(), error };
        let mut raw = BufReader::with_capacity(1 << 16, bytes);
        let zipped = raw.fill_buf().map_err(fail)?.starts_with(&[0x1f, 0x8b]);
        let mut reader: Box<dyn BufRead> = if zipped {
            Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(raw)))
        } else {
            Box::new(raw)
        };
        // A byte order mark is no part of the text.
        if reader.fill_buf().map_err(fail)?.starts_with("\u{feff}".as_bytes()) {
            reader.consume(3);
        }
        let json = match format {
            Format::Jsonl => true,
            Format::Text => false,
            Format::Auto => {
                let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
                let name = name.strip_suffix(".gz").unwrap_or(&name);
                [".jsonl", ".ndjson", ".json"].iter().any(|end| name.ends_with(end))
            }
        };
        Ok(Input { path: path.into(), reader, json, line: 0 })
    }

    fn next(&mut self, split: Split) -> Result<Option<RawDocument>, TokenizeError> {
        let mut raw = Vec::new();
        let mut first = 1;
        if split == Split::File {
            if self.line > 0 {
                return Ok(None);
            }
            self.line = 1;
            let most = MAX_DOCUMENT as u64 + 1;
            (&mut self.reader).take(most).read_to_end(&mut raw).map_err(TokenizeError::read(&self.path))?;
            if raw.len() > MAX_DOCUMENT {
                return Err(self.too_long(1, "file", MAX_DOCUMENT));
            }
        } else {
            loop {
                let start = raw.len();
                match input::read_line(&mut self.reader, MAX_LINE, &mut raw) {
                    Ok(true) => self.line += 1,
                    Ok(false) => break,
                    Err(e) if e.kind() == io::ErrorKind::FileTooLarge => {
                        return Err(self.too_long(self.line + 1, "line", MAX_LINE));
                    }
                    Err(e) => return Err(TokenizeError::read(&self.path)(e)),
                }
                if raw.len() > MAX_DOCUMENT {
                    return Err(self.too_long(first, "paragraph", MAX_DOCUMENT));
                }
                if raw[start..].trim_ascii().is_empty() {
                    raw.truncate(start);
                    if start > 0 {
                        break;
                    }
                } else {
                    if start == 0 {
                        first = self.line;
                    }
                    if split == Split::Line {
                        break;
                    }
                }
            }
            let end = raw.trim_ascii_end().len();
            raw.truncate(end);
        }
        // An empty file is no document.
        if raw.trim_ascii().is_empty() {
            return Ok(None);
        }
        Ok(Some(RawDocument { path: Arc::clone(&self.path), line: first, json: self.json, raw }))
    }

    fn too_long(&self, line: u64, what: &str, most: usize) -> TokenizeError {
        let remedy = match self.json {
            true => "write one document a line, and cut longer ones",
            false => "cut it: `--split line` and `--split blank-line` make documents of lines and paragraphs",
        };
        let what =
            format!("the {what} is over {most} bytes, the most that a document of it may have: {remedy}");
        TokenizeError::Document { path: self.path.to_path_buf(), line, what }
    }
}

impl RawDocument {
    /// The text; of JSON, that of the field `field`.
    ///
    /// # Errors
    /// [`TokenizeError::Document`] with the line that is at fault.
    pub(super) fn text(&self, field: &str) -> Result<Cow<'_, str>, TokenizeError> {
        let text = str::from_utf8(&self.raw).map_err(|e| {
            let at = e.valid_up_to();
            let byte = self.raw.get(at).copied().unwrap_or(0);
            self.fail(at, format!("not UTF-8 text (byte 0x{byte:02x}): convert it with `iconv -t UTF-8`"))
        })?;
        if self.json {
            return json_text(text, field).map_err(|what| self.fail(0, what));
        }
        if let Some(at) = text.find('\0') {
            return Err(self.fail(at, "a NUL byte: not a text file".into()));
        }
        Ok(Cow::Borrowed(text))
    }

    /// An error at byte `at` of the document.
    pub(super) fn fail(&self, at: usize, what: String) -> TokenizeError {
        let before = self.raw.iter().take(at).filter(|b| **b == b'\n').count() as u64;
        TokenizeError::Document { path: self.path.to_path_buf(), line: self.line + before, what }
    }
}

/// The string in field `field` of a JSON object; the last one where there are several, as Python reads it.
fn json_text<'a>(line: &'a str, field: &str) -> Result<Cow<'a, str>, String> {
    let mut json = serde_json::Deserializer::from_str(line);
    let parsed = Field(field).deserialize(&mut json).and_then(|text| json.end().map(|()| text));
    match parsed {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(format!("the object has no field `{field}`: name the field that holds the text")),
        Err(e) => {
            let message = e.to_string();
            // serde_json counts lines from the document's begin; the caller knows the file's.
            let what = message.rsplit_once(" at line ").map_or(message.as_str(), |(what, _)| what);
            let expected = "expected one JSON object a line with a string";
            Err(format!("{what} (column {}): {expected} field `{field}`", e.column()))
        }
    }
}

/// Reads one string field of an object.
struct Field<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut text = None;
        while let Some(Str(key)) = map.next_key()? {
            if key == self.0 {
                let Str(value) = map.next_value()?;
                text = Some(value);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(text)
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Str<'a>(#[serde(borrow)] Cow<'a, str>);

/// Counts what is read.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn documents(name: &str, content: &[u8], split: Split) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join(name)];
        std::fs::write(&paths[0], content).unwrap();
        let mut documents = Documents::new(&paths, Format::Auto, split);
        let mut all = Vec::new();
        let folder = format!("{}/", folder.path().display());
        let short = |e: TokenizeError| e.to_string().replace(&folder, "");
        while let Some(document) = documents.next().map_err(short)? {
            all.push(document.text("text").map_err(short)?.into_owned());
        }
        Ok(all)
    }

    #[test]
    fn plain_text_is_cut_as_asked() {
        let text = b"\xef\xbb\xbf\na\r\nb\n \n\n\nc\n";
        assert_eq!(documents("x.txt", text, Split::File).unwrap(), ["\na\r\nb\n \n\n\nc\n"]);
        assert_eq!(documents("x.txt", text, Split::BlankLine).unwrap(), ["a\r\nb", "c"]);
        assert_eq!(documents("x.txt", text, Split::Line).unwrap(), ["a", "b", "c"]);
        for split in [Split::File, Split::BlankLine, Split::Line] {
            assert_eq!(documents("x", b"", split).unwrap(), [""; 0]);
            assert_eq!(documents("x", b"\n \n", split).unwrap(), [""; 0]);
        }
    }

    #[test]
    fn json_lines_are_read_whole_or_zipped() {
        let lines = br#"{"id": 1, "text": "a\tb"}

{"text": "x", "meta": {"text": 3}, "text": "\u00e9"}"#;
        let want = ["a\tb", "é"];
        assert_eq!(documents("x.jsonl", lines, Split::File).unwrap(), want);
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(lines).unwrap();
        let zipped = zip.finish().unwrap();
        assert_eq!(documents("x.JSONL.gz", &zipped, Split::Line).unwrap(), want);
        let cut = documents("x.jsonl.gz", &zipped[..zipped.len() - 9], Split::Line).unwrap_err();
        assert!(cut.starts_with("x.jsonl.gz: "), "{cut}");
        let empty = documents("x.jsonl", br#"{"text": ""}"#, Split::File).unwrap();
        assert_eq!(empty, [""], "a document without text is a document");
    }

    #[test]
    fn what_does_not_end_is_refused_and_zipped_too() {
        let refused = |name: &str, content: &[u8], split: Split, want: &str| {
            let message = documents(name, content, split).unwrap_err();
            assert!(message.starts_with(want) && message.contains("--split line"), "{message}");
        };
        let long = [b"{}\n".to_vec(), vec![b' '; MAX_LINE + 1]].concat();
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(&long).unwrap();
        let zipped = zip.finish().unwrap();
        for (name, content) in [("x.txt", &long), ("x.txt.gz", &zipped)] {
            refused(name, content, Split::Line, &format!("{name}:2: the line is over 16777216 bytes"));
        }
        let lines = [vec![b'a'; MAX_LINE / 2 - 1], vec![b'\n']].concat().repeat(17);
        refused("x.txt", &lines, Split::File, "x.txt:1: the file is over 134217728 bytes");
        refused("x.txt", &lines, Split::BlankLine, "x.txt:1: the paragraph is over 134217728 bytes");
        assert_eq!(documents("x.txt", &lines, Split::Line).unwrap().len(), 17);
    }

    #[test]
    fn each_defect_names_file_and_line() {
        let fails = |name: &str, content: &[u8], want: &str| {
            let message = documents(name, content, Split::File).unwrap_err();
            assert!(message.starts_with(want), "{message}");
        };
        let json = |line: &str, want: &str| {
            let content = format!("{{\"text\": \"a\"}}\n{line}\n");
            fails("x.jsonl", content.as_bytes(), &format!("x.jsonl:2: {want}"));
        };
        json("{\"text\": ", "EOF while parsing a value (column ");
        json("nonsense", "expected ident (column 2)");
        json("[1]", "invalid type: sequence, expected an object (column ");
        json("{\"text\": null}", "invalid type: null, expected a ");
        json("{\"txt\": \"a\"}", "the object has no field `text`");
        json("{\"text\": \"a\"} {}", "trailing characters");
        json("{\"text\": \"\\ud800\"}", "unexpected end of hex escape");
        fails("x.txt", b"a\nb\n\xff", "x.txt:3: not UTF-8 text (byte 0xff)");
        fails("x.txt", b"a\n\0", "x.txt:2: a NUL byte");
        fails("x.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xe9\"}", "x.jsonl:2: not UTF-8 text (byte 0xe9)");
        let missing = Documents::new(&["/none".into()], Format::Auto, Split::File).next().unwrap_err();
        assert!(missing.to_string().starts_with("/none: No such file"), "{missing}");
        assert!(Documents::new(&[std::env::temp_dir()], Format::Auto, Split::File).next().is_err());
    }
}
