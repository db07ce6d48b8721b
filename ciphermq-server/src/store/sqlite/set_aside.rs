//! Disk space that is set aside, so that acknowledgements go on when others fill the disk.
//!
//! An acknowledgement needs a little of SQLite's log. The log may be full of messages that are not
//! copied into the database yet, which has to grow for them: then nothing goes on with less than
//! the log's size, which this file keeps.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// The most that is set aside: the log's size before it is copied into the database, and as much
/// again for the commit that is longer.
const MOST_BYTES: u64 = 32 << 20;

/// A file whose space is given up when there is no other.
pub(super) struct SpaceSetAside {
    path: PathBuf,
    bytes: u64,
}

impl SpaceSetAside {
    /// Describes the space beside a database. Nothing is set aside yet.
    ///
    /// It is half of the part of the disk in which no publishes are accepted, `disk_reserve` in
    /// bytes.
    pub(super) fn new(database: &Path, disk_reserve: u64) -> Self {
        let mut path = std::ffi::OsString::from(database);
        path.push(".reserve");
        Self {
            path: path.into(),
            bytes: MOST_BYTES.min(disk_reserve / 2),
        }
    }

    /// Returns the number of bytes that are to be set aside.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Sets the space aside, unless it is.
    ///
    /// # Errors
    ///
    /// [`std::io::Error`] if the disk has too little or its file system cannot; none is set aside.
    pub(super) fn take(&self) -> std::io::Result<()> {
        if self.bytes == 0 {
            self.release();
            return Ok(());
        }
        let file = self.open(true)?;
        if file.metadata()?.len() == self.bytes {
            return Ok(());
        }
        file.set_len(0)?;
        let taken = fallocate(&file, FallocateFlags::empty(), 0, self.bytes);
        taken.map_err(|error| {
            // A part of it may be.
            let _ = file.set_len(0);
            error.into()
        })
    }

    /// Gives the space up. Returns whether there was any.
    pub(super) fn release(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|file| file.len() > 0)
            && self.open(false).is_ok_and(|file| file.set_len(0).is_ok())
    }

    fn open(&self, create: bool) -> std::io::Result<File> {
        OpenOptions::new()
            .write(true)
            .create(create)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_taken_and_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let space = SpaceSetAside::new(&folder.path().join("mq.db"), 8 << 20);
        assert!(!space.release());
        space.take().unwrap();
        let file = folder.path().join("mq.db.reserve");
        let blocks = || std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512;
        assert!(blocks() >= 4 << 20);
        space.take().unwrap();
        assert!(blocks() < 5 << 20);
        assert!(space.release() && !space.release());
        assert_eq!(blocks(), 0);
    }

    #[test]
    fn without_a_reserve_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let space = SpaceSetAside::new(&folder.path().join("mq.db"), 0);
        space.take().unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
