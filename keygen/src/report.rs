//! What was done, and what to do next.

use std::path::PathBuf;

use ciphermq_crypto::text::Escaped;

/// The result of a run, for the program to print.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The files that were written.
    pub written: Vec<PathBuf>,
    /// The files that were there and stay as they are.
    pub kept: Vec<PathBuf>,
    /// What to do next, a sentence each.
    pub next: Vec<String>,
}

impl Report {
    /// The files, a line each, with what steers terminals escaped: what belongs on standard output.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let written = self
            .written
            .iter()
            .map(|path| format!("wrote {}", Escaped(path.display())));
        let kept = self
            .kept
            .iter()
            .map(|path| format!("kept {}", Escaped(path.display())));
        written.chain(kept)
    }
}
