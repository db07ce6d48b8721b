//! Files of lines that many may append to.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ciphermq_files::{Access, open_append, sync_file};

use super::file::OutputError;

/// Appends lines to a file that many may write, such as a quarantine, and syncs them. A last line
/// that was left without its ending gets it first: two records must not become one line.
///
/// # Errors
///
/// [`OutputError`] if the file cannot be opened or written. What part of the lines could be written
/// is taken back, unless another process is writing.
pub(crate) fn append(path: &Path, lines: &[u8]) -> Result<(), OutputError> {
    let (file, path) = open_append(path, Access::Private).map_err(|source| OutputError::Open {
        path: path.to_owned(),
        source,
    })?;
    let written = match file.metadata() {
        Ok(metadata) if metadata.is_file() => append_to_file(&file, lines),
        Ok(_) => (&file).write_all(lines),
        Err(error) => Err(error),
    };
    written
        .and_then(|()| sync_file(&file))
        .map_err(|source| OutputError::Write { path, source })
}

fn append_to_file(mut file: &File, lines: &[u8]) -> io::Result<()> {
    // Whoever holds the lock without end must not hold us up: then nothing is taken back, and that
    // is all.
    let is_alone = file.try_lock().is_ok();
    let before = file.metadata()?.len();
    let written = if is_ended(file, before)? {
        file.write_all(lines)
    } else {
        file.write_all(&[b"\n", lines].concat())
    };
    if written.is_err() && is_alone {
        file.set_len(before)?;
    }
    written
}

/// Whether the last line of a file of this length has its ending.
pub(super) fn is_ended(file: &File, length: u64) -> io::Result<bool> {
    let Some(last) = length.checked_sub(1) else {
        return Ok(true);
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn lines_of_many_writers_stand_side_by_side_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/q.jsonl");
        append(&path, b"one\n").unwrap();
        append(&path, b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_last_line_without_its_ending_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.jsonl");
        fs::write(&path, "one\ntwo").unwrap();
        append(&path, b"three\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
    }

    #[test]
    fn whoever_holds_the_lock_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.jsonl");
        append(&path, b"one\n").unwrap();
        let other = File::open(&path).unwrap();
        other.lock().unwrap();
        append(&path, b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn what_is_no_file_takes_lines_too() {
        append(Path::new("/dev/null"), b"one\n").unwrap();
        assert!(append(Path::new("/dev/full"), b"one\n").is_err());
    }
}
