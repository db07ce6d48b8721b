//! Folders that are removed again when a run fails.

use std::fs;
use std::path::{Path, PathBuf};

use ciphermq_files::{Access, create_folder};

use crate::error::Error;

/// The folders that this run created. On drop, empty ones are removed, unless [`NewFolders::keep`]
/// was called.
///
/// It is declared before the files that are staged in them, which are then dropped before it.
#[derive(Debug, Default)]
pub(crate) struct NewFolders {
    made: Vec<PathBuf>,
}

impl NewFolders {
    /// Creates a folder and its parents, unless they exist, for the owner alone (mode 0700): they
    /// contain private keys.
    pub(crate) fn make(&mut self, path: &Path) -> Result<(), Error> {
        let made = create_folder(path, Access::Private).map_err(|source| Error::Folder {
            path: path.to_owned(),
            source,
        })?;
        self.made.extend(made);
        Ok(())
    }

    /// Keeps the folders: the run succeeded.
    pub(crate) fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for NewFolders {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            // Best effort: a folder that is not empty is in use by another process.
            let _ = fs::remove_dir(path);
        }
    }
}
