//! The file of messages that were set aside.

use std::path::PathBuf;

use ciphermq_files::{is_descriptor, resolve};

use super::error::OutputError;
use super::shared;

/// A file of lines, which others may append to as well, and which takes no line beyond a limit.
#[derive(Debug, Clone)]
pub(crate) struct Quarantine {
    pub(crate) path: PathBuf,
    /// The length that the file does not exceed, unless several processes append at once.
    limit: Option<u64>,
}

impl Quarantine {
    /// Creates a quarantine of at most this many MiB; 0 for no limit.
    pub(crate) fn new(path: PathBuf, max_mb: u32) -> Self {
        let limit = (max_mb > 0).then(|| u64::from(max_mb) << 20);
        Self { path, limit }
    }

    /// Appends lines up to the first one that does not fit, and syncs them. `ends` are the ends of
    /// the lines. Returns the number of lines that the file has taken. Pipes and devices take all.
    ///
    /// # Errors
    ///
    /// [`OutputError`], as of [`shared::append`].
    pub(crate) fn append(&self, lines: &[u8], ends: &[usize]) -> Result<usize, OutputError> {
        let room = self.room().unwrap_or(usize::MAX);
        let count = ends.partition_point(|end| *end <= room);
        let taken = count
            .checked_sub(1)
            .and_then(|last| lines.get(..*ends.get(last)?));
        if let Some(taken) = taken {
            shared::append(&self.path, taken)?;
        }
        Ok(count)
    }

    /// The number of bytes that fit; `None` if there is no limit. A file that cannot be examined
    /// counts as empty: appending reports what is wrong with it.
    fn room(&self) -> Option<usize> {
        let limit = self.limit?;
        let length = match std::fs::metadata(&self.path) {
            Ok(metadata) if !metadata.is_file() => return None,
            Ok(_) if resolve(&self.path).is_ok_and(|path| is_descriptor(&path)) => return None,
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
        // A last line without its ending gets one.
        let room = limit.saturating_sub(length.saturating_add(u64::from(length > 0)));
        Some(usize::try_from(room).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn lines_are_taken_up_to_the_limit_and_again_once_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.jsonl");
        let mut quarantine = Quarantine::new(path.clone(), 1);
        quarantine.limit = Some(9);
        let lines = b"one\ntwo\nthree\n4\n";
        let ends = [4, 8, 14, 16];
        assert_eq!(quarantine.append(lines, &ends).unwrap(), 2);
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        assert_eq!(quarantine.append(lines, &ends).unwrap(), 0);
        fs::rename(&path, folder.path().join("away")).unwrap();
        assert_eq!(quarantine.append(lines, &ends).unwrap(), 2);
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn a_longer_file_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.jsonl");
        fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
        let quarantine = Quarantine::new(path.clone(), 1);
        assert_eq!(quarantine.append(b"one\n", &[4]).unwrap(), 0);
        assert_eq!(fs::metadata(&path).unwrap().len(), (1 << 20) + 1);
        assert_eq!(Quarantine::new(path, 0).append(b"one\n", &[4]).unwrap(), 1);
    }

    #[test]
    fn a_device_takes_all() {
        let mut quarantine = Quarantine::new(Path::new("/dev/null").to_owned(), 1);
        quarantine.limit = Some(1);
        assert_eq!(quarantine.append(b"one\ntwo\n", &[4, 8]).unwrap(), 2);
    }
}
