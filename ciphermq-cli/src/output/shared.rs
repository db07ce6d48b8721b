//! Files of lines that many may append to.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ciphermq_files::{Access, Draft, is_descriptor, open_append, resolve, sync_file};

use super::file::OutputError;
use super::scan::has_line_of_ours;

/// Sees to it that lines can be appended to a file later, and that it is one of ours. What is not
/// there is not made.
///
/// # Errors
///
/// [`OutputError`] if the file cannot be opened, or nothing be made where it would be; or if it
/// holds something else.
pub(crate) fn check(path: &Path) -> Result<(), OutputError> {
    let failed = |source| OutputError::Quarantine {
        path: path.to_owned(),
        source,
    };
    if !path.exists() {
        return can_be_made(path).map_err(failed);
    }
    let (file, place) = open_append(path, Access::Private).map_err(failed)?;
    let is_open_elsewhere = is_descriptor(&place) || !file.metadata().map_err(failed)?.is_file();
    match is_open_elsewhere || has_line_of_ours(&file).map_err(failed)? {
        true => Ok(()),
        false => Err(OutputError::NotOurs(path.to_owned())),
    }
}

/// Makes a file without a name in the deepest folder that is there, and lets go of it.
fn can_be_made(path: &Path) -> io::Result<()> {
    let place = resolve(path)?;
    let mut above = place.ancestors().skip(1);
    let folder = above.find(|folder| folder.exists());
    Draft::write(
        &folder.unwrap_or(Path::new(".")).join("draft"),
        b"",
        Access::Private,
    )
    .map(drop)
}

/// Appends lines to a file that many may write, such as a quarantine, and syncs them. A last line
/// that was left without its ending gets it first: two records must not become one line.
///
/// # Errors
///
/// [`OutputError`] if the file cannot be opened or written. What part of the lines could be written
/// is taken back, unless another process is writing.
pub(crate) fn append(path: &Path, lines: &[u8]) -> Result<(), OutputError> {
    let (file, path) =
        open_append(path, Access::Private).map_err(|source| OutputError::Quarantine {
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
        .map_err(|source| OutputError::Quarantine { path, source })
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

    #[test]
    fn what_cannot_be_appended_to_and_what_is_not_ours_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        check(&at("new/q.jsonl")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let line = "{\"message_id\":\"m\",\"reason\":\"r\"}\n";
        for (text, is_ours) in [
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
                Ok(()) => assert!(is_ours, "{text:?}"),
                Err(error) => assert!(!is_ours && matches!(error, OutputError::NotOurs(_))),
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
