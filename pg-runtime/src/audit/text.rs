//! The text itself: that the scored tokens are what the tokenizer makes of it, and that no document is said to have more bytes than
//! it has. Without the text, tokenizer and byte counts can only be held to each other.

use std::ops::ControlFlow;
use std::path::PathBuf;

use super::Verdict::{Claimed, Proven, Violated};
use super::{AuditError, Findings};
use crate::data::tokenize::{Encoder, for_each_document};
use crate::run::{Corpus, TextOptions};

/// What holding documents to tokens has found so far.
struct Walk<'a> {
    corpus: &'a Corpus,
    encoder: &'a Encoder,
    bos: u16,
    /// Tokens of the documents so far.
    at: usize,
    documents: usize,
    text_bytes: u64,
    counted_bytes: u64,
    violated: Option<String>,
}

impl Walk<'_> {
    /// Holds the next document to the tokens where it should stand; a break where nothing more is to be seen.
    fn document(&mut self, text: &str) -> Result<ControlFlow<()>, AuditError> {
        let mut tokens = vec![self.bos];
        self.encoder.encode_into(text, &mut tokens).map_err(|error| AuditError::Encode(error.to_string()))?;
        let (val, at) = (&self.corpus.val, self.at);
        let own = &val[at..val.len().min(at + tokens.len())];
        let number = self.documents + 1;
        let other = own.iter().zip(&tokens).position(|(&scored, &made)| scored != i32::from(made));
        if let Some(index) = other {
            self.violated = Some(format!(
                "token {} is {}, where the tokenizer makes {} of document {number}: another text, or another tokenizer",
                at + index,
                own[index],
                tokens[index]
            ));
            return Ok(ControlFlow::Break(()));
        }
        // Target t is token t + 1; a document's first token is a target of the document before, of no bytes.
        let counts = &self.corpus.val_bytes[at..at + own.len() - 1];
        let counted: u64 = counts.iter().map(|&bytes| u64::from(bytes)).sum();
        if counted > text.len() as u64 {
            let bytes = text.len();
            self.violated = Some(format!(
                "{counted} bytes are counted behind the tokens of document {number}, whose text has {bytes}: the score is too good"
            ));
            return Ok(ControlFlow::Break(()));
        }
        self.documents += 1;
        self.at += own.len();
        self.counted_bytes += counted;
        self.text_bytes += text.len() as u64;
        Ok(if self.at < val.len() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }
}

/// Tokenizes the text again and holds the scored tokens and their bytes to it.
pub(super) fn read_again(
    findings: &mut Findings,
    corpus: &Corpus,
    options: &TextOptions,
    files: &[PathBuf],
) -> Result<(), AuditError> {
    if files.is_empty() {
        let what = "that tokens and bytes are those of a text: give it with --val-text to have it proven";
        findings.add("text bytes", Claimed, what);
        return Ok(());
    }
    let encoder = options.encoder()?;
    let Some(bos) = encoder.tokenizer().bos() else {
        findings.add("text bytes", Violated, "the tokenizer has no token that begins a document");
        return Ok(());
    };
    let mut walk = Walk {
        corpus,
        encoder: &encoder,
        bos,
        at: 0,
        documents: 0,
        text_bytes: 0,
        counted_bytes: 0,
        violated: None,
    };
    for_each_document(files, |text| walk.document(text))?;
    let Walk { at, documents, text_bytes, counted_bytes, violated, .. } = walk;
    let violated = violated.or_else(|| {
        let rest = corpus.val.len() - at;
        (rest > 0).then(|| {
            format!("the text has {documents} documents; {rest} of the scored tokens stand after them")
        })
    });
    match violated {
        Some(what) => findings.add("text bytes", Violated, what),
        None => {
            let what = format!(
                "the tokens are those of {documents} documents, tokenized again; {counted_bytes} bytes are counted, of \
                 {text_bytes} in all of their text"
            );
            findings.add("text bytes", Proven, what);
        }
    }
    Ok(())
}
