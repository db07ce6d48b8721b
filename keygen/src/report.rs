//! The result of a run, and the next steps.

use std::path::PathBuf;

use ciphermq_crypto::text::Escaped;

/// The result of a run, for the program to print.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The files that were written.
    pub written: Vec<PathBuf>,
    /// The existing files that were kept.
    pub kept: Vec<PathBuf>,
    /// The next steps, one sentence each.
    pub next: Vec<String>,
}

impl Report {
    /// Returns the lines for standard output, one per file, with terminal control characters
    /// escaped.
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
