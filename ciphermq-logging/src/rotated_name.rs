//! Names of the old files of a log: the log's name, a day or an hour if it has one, and a number.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ciphermq_files::{fit_name, parent};

/// The longest number at the end of a name.
const NUMBER_ROOM: &str = ".0000000";

/// The time and number in the name of an old file, in the order of age.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Age {
    /// `2025-09-08` or `2025-09-08-07`; empty if it has a number only.
    period: String,
    number: u64,
}

impl Age {
    /// Returns the age in a name of a file beside the log `stem`, `None` if it is not exactly a
    /// name that the server gives. `dated` says whether the names have a date.
    pub(super) fn of_name(folder: &Path, stem: &OsStr, name: &OsStr, dated: bool) -> Option<Self> {
        let text = name.as_encoded_bytes();
        let last = text.rsplit(|&byte| byte == b'.').next()?;
        let (rest, number) = match parse_number(last) {
            Some(number) => (text.get(..text.len() - last.len() - 1)?, Some(number)),
            None => (text, None),
        };
        let period = if dated {
            let period = rest.rsplit(|&byte| byte == b'.').next()?;
            is_period(period).then(|| String::from_utf8(period.to_vec()).ok())??
        } else {
            // Without a date the bare name is that of the current file.
            number?;
            String::new()
        };
        let end = match &*period {
            "" => String::new(),
            period => format!(".{period}"),
        };
        let mut expected = without_number(folder, stem, &end);
        if let Some(number) = number {
            expected.extend_from_slice(format!(".{number}").as_bytes());
        }
        (expected == text).then(|| Self {
            period,
            number: number.unwrap_or(0),
        })
    }
}

/// Parses a number as it is written at the end of a name: from 1, without leading zeros.
fn parse_number(text: &[u8]) -> Option<u64> {
    let is_canonical = text.iter().all(u8::is_ascii_digit) && text.first() != Some(&b'0');
    let text = std::str::from_utf8(text).ok().filter(|_| is_canonical)?;
    text.parse().ok()
}

/// Whether a text is a day, or an hour of a day, as in the names of dated files.
fn is_period(text: &[u8]) -> bool {
    let has_form = |form: &[u8]| {
        text.len() == form.len()
            && text.iter().zip(form).all(|(byte, form)| match form {
                b'0' => byte.is_ascii_digit(),
                separator => byte == separator,
            })
    };
    has_form(b"0000-00-00") || has_form(b"0000-00-00-00")
}

/// Returns the name of an old file, shortened so that a number fits behind it as well.
fn without_number(folder: &Path, stem: &OsStr, date: &str) -> Vec<u8> {
    let end = format!("{date}{NUMBER_ROOM}");
    let mut name = fit_name(folder, stem, &end).into_encoded_bytes();
    name.truncate(name.len().saturating_sub(NUMBER_ROOM.len()));
    name
}

/// Returns the next free name for an old file of the log at `place`. `date` is empty, or a full
/// stop and the day or hour.
pub(super) fn next_free(place: &Path, date: &str) -> io::Result<PathBuf> {
    let folder = parent(place);
    let stem = place.file_name().unwrap_or_default();
    let name = OsString::from_vec(without_number(folder, stem, date));
    // Without a date the bare name is that of the current file.
    let mut next = u64::from(date.is_empty());
    for entry in fs::read_dir(folder)? {
        if let Some(number) = number(&entry?.file_name(), &name) {
            next = next.max(number.saturating_add(1));
        }
    }
    if next == 0 {
        return Ok(place.with_file_name(name));
    }
    loop {
        let mut numbered = name.clone();
        numbered.push(format!(".{next}"));
        let found = place.with_file_name(numbered);
        match fs::symlink_metadata(&found) {
            // Somebody has used up the numbers: any free one will do.
            Ok(_) => next = next.wrapping_add(1).max(1),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(error),
        }
    }
}

/// Returns the number at the end of a rotated file's name, 0 if it has none; `None` if it is not
/// such a file. Tools that compress old files may have appended a suffix of their own.
fn number(found: &OsString, name: &OsString) -> Option<u64> {
    let rest = found
        .as_encoded_bytes()
        .strip_prefix(name.as_encoded_bytes())?;
    let Some(rest) = rest.strip_prefix(b".") else {
        return rest.is_empty().then_some(0);
    };
    let digits = rest.split(|&byte| byte == b'.').next().unwrap_or_default();
    Some(
        std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_overwritten_when_the_numbers_are_used_up() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("i.log");
        for date in ["", ".2026-11-27"] {
            let last = folder.path().join(format!("i.log{date}.{}", u64::MAX));
            std::fs::write(&last, "somebody's").unwrap();
            for _ in 0..3 {
                let next = next_free(&place, date).unwrap();
                assert!(!next.exists(), "{}", next.display());
                std::fs::write(next, "lines").unwrap();
            }
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 8);
    }

    #[test]
    fn shortened_names_are_recognised() {
        let folder = tempfile::tempdir().unwrap();
        let stem = "l".repeat(250);
        let name = fit_name(folder.path(), &stem, &format!(".2025-09-01{NUMBER_ROOM}"));
        let name = name.into_string().unwrap();
        let name = name.strip_suffix(NUMBER_ROOM).unwrap();
        for name in [name.to_owned(), format!("{name}.3")] {
            assert!(Age::of_name(folder.path(), stem.as_ref(), name.as_ref(), true).is_some());
        }
        let other = format!("{}.2025-09-01", "l".repeat(200));
        assert!(Age::of_name(folder.path(), stem.as_ref(), other.as_ref(), true).is_none());
    }
}
