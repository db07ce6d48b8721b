//! Files of lines that several processes may append to.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::Path;

use ciphermq_files::{Access, Draft, is_descriptor, open_append, resolve, sync_file};

use super::error::OutputError;
use super::scan::has_recognised_line;
use super::write::write_all;

/// Checks that lines can be appended to a file later, and that it holds lines of this program, or
/// nothing. Does not create the file.
///
/// Returns an open named pipe: hold it while lines may be appended, because its reader ends when
/// nobody has it open for writing.
///
/// # Errors
///
/// [`OutputError`] if the file cannot be opened or created, or if it holds something else.
pub(crate) fn check(path: &Path) -> Result<Option<File>, OutputError> {
    let failed = |source| OutputError::Quarantine {
        path: path.to_owned(),
        source,
    };
    if !path.exists() {
        return check_creatable(path).map(|()| None).map_err(failed);
    }
    let (file, resolved) = open_append(path, Access::Private).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if kind.is_fifo() {
        return Ok(Some(file));
    }
    let is_open_elsewhere = is_descriptor(&resolved) || !kind.is_file();
    match is_open_elsewhere || has_recognised_line(&file).map_err(failed)? {
        true => Ok(None),
        false => Err(OutputError::Unrecognised(path.to_owned())),
    }
}

/// Checks that a file can be created, with an unnamed file in the deepest existing folder.
fn check_creatable(path: &Path) -> io::Result<()> {
    let resolved = resolve(path)?;
    let mut above = resolved.ancestors().skip(1);
    let folder = above.find(|folder| folder.exists());
    Draft::write(
        &folder.unwrap_or(Path::new(".")).join("draft"),
        b"",
        Access::Private,
    )
    .map(drop)
}

/// Appends lines to a file such as a quarantine, and syncs them. If the last line has no ending, it
/// gets one first, so that two records do not become one line.
///
/// # Errors
///
/// [`OutputError`] if the file cannot be opened or written. A partial write is truncated, unless
/// another process holds the file's lock.
pub(super) fn append(path: &Path, lines: &[u8]) -> Result<(), OutputError> {
    let failed = |source| OutputError::Quarantine {
        path: path.to_owned(),
        source,
    };
    let (file, resolved) = open_append(path, Access::Private).map_err(failed)?;
    let written = match file.metadata() {
        Ok(metadata) if metadata.is_file() && !is_descriptor(&resolved) => {
            append_to_file(&file, lines)
        }
        Ok(_) => write_all(&file, lines),
        Err(error) => Err(error),
    };
    written.and_then(|()| sync_file(&file)).map_err(failed)
}

fn append_to_file(mut file: &File, lines: &[u8]) -> io::Result<()> {
    // Another process may hold the lock indefinitely, so this does not wait for it. The lock
    // matters only for truncating a partial write.
    let is_locked = file.try_lock().is_ok();
    let before = file.metadata()?.len();
    let written = if is_ended(file, before)? {
        file.write_all(lines)
    } else {
        file.write_all(&[b"\n", lines].concat())
    };
    if written.is_err() && is_locked {
        file.set_len(before)?;
    }
    written
}

/// Whether the last line of a file of this length has an ending.
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
    fn lines_of_several_writers_are_kept_in_a_private_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/q.jsonl");
        append(&path, b"one\n").unwrap();
        append(&path, b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_last_line_without_an_ending_gets_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.jsonl");
        fs::write(&path, "one\ntwo").unwrap();
        append(&path, b"three\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
    }

    #[test]
    fn a_held_lock_does_not_block_appending() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.jsonl");
        append(&path, b"one\n").unwrap();
        let other = File::open(&path).unwrap();
        other.lock().unwrap();
        append(&path, b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
    }

    #[test]
    fn devices_accept_lines() {
        append(Path::new("/dev/null"), b"one\n").unwrap();
        assert!(append(Path::new("/dev/full"), b"one\n").is_err());
    }

    #[test]
    fn unwritable_and_unrecognised_files_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        check(&at("new/q.jsonl")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let line = "{\"message_id\":\"m\",\"reason\":\"r\"}\n";
        for (text, is_recognised) in [
            ("", true),
            ("\n \r\n", true),
            (line, true),
            ("{\"mess", true),
            (
                "\u{feff}# a remark\n{\"message_id\":\"m\",\"reason\":\"r\"}\n",
                true,
            ),
            ("[server]\naddress = \"localhost\"\n", false),
            ("{\n \"a\": 1\n}\n", false),
            ("q3VhcmFudGluZQ==", false),
        ] {
            fs::write(at("q"), text).unwrap();
            match check(&at("q")) {
                Ok(_) => assert!(is_recognised, "{text:?}"),
                Err(error) => {
                    assert!(!is_recognised && matches!(error, OutputError::Unrecognised(_)));
                }
            }
            assert_eq!(fs::read(at("q")).unwrap(), text.as_bytes());
        }
        assert!(matches!(
            check(&at("q/below")),
            Err(OutputError::Quarantine { .. })
        ));
        check(Path::new("/dev/null")).unwrap();
    }
}
