//! Reads of small files.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

/// Reads at most the first `max_bytes` bytes of a file.
///
/// # Errors
///
/// The system's error. Something that is no file is refused: opening a pipe would wait for a
/// writer.
pub fn read_file(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_files_is_read_and_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "abc").unwrap();
        assert_eq!(read_file(&path, 3).unwrap(), b"abc");
        assert_eq!(read_file(&path, 2).unwrap(), b"ab");
        assert!(read_file(folder.path(), 3).is_err());
        let missing = read_file(&folder.path().join("missing"), 3);
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
