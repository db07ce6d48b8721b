//! Folders that are taken away again when a run fails.

use std::fs;
use std::path::{Path, PathBuf};

use ciphermq_files::{Access, create_folder};

use crate::error::Error;

/// Folders made in this run. Dropped without [`NewFolders::keep`], those that are empty are
/// removed.
#[derive(Debug, Default)]
pub(crate) struct NewFolders {
    made: Vec<PathBuf>,
}

impl NewFolders {
    /// Makes a folder and those above it, unless they are there, for the owner alone (mode 0700):
    /// private keys stand in them.
    pub(crate) fn make(&mut self, path: &Path) -> Result<(), Error> {
        let made = create_folder(path, Access::Private).map_err(|source| Error::Folder {
            path: path.to_owned(),
            source,
        })?;
        self.made.extend(made);
        Ok(())
    }

    /// The run succeeded: the folders stay.
    pub(crate) fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for NewFolders {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            // Best effort: a folder that is not empty belongs to somebody else by now.
            let _ = fs::remove_dir(path);
        }
    }
}
