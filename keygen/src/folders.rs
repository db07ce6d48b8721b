//! Folders that are taken away again when a run fails.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Folders made in this run. Dropped without [`NewFolders::keep`], those that are empty are removed.
#[derive(Debug, Default)]
pub(crate) struct NewFolders {
    made: Vec<PathBuf>,
}

impl NewFolders {
    /// Makes a folder and those above it, unless they are there. `private`: for the owner alone (mode 0700).
    pub(crate) fn make(&mut self, path: &Path, private: bool) -> Result<(), Error> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
            self.make(above, false)?;
        }
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        if private {
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        }
        #[cfg(not(unix))]
        let _ = private;
        builder.create(path).map_err(|source| Error::Folder {
            path: path.to_owned(),
            source,
        })?;
        self.made.push(path.to_owned());
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
