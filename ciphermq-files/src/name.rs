//! File names derived from other names.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::resolve::parent;

/// The length limit for names on nearly every file system, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// The length of the hash in a shortened name, in hexadecimal digits.
const HASH_DIGITS: usize = 32;
/// The separator between the rest of a shortened name and its hash.
const SEPARATOR: &str = "~";

/// Appends a suffix to the last component of a path, shortened as by [`fit_name`] if necessary.
#[must_use]
pub fn beside(path: &Path, end: &str) -> PathBuf {
    let stem = path.file_name().unwrap_or_default();
    path.with_file_name(fit_name(parent(path), stem, end))
}

/// Returns the name `<stem><end>` for a file in `folder`, shortened to the file system's limit.
///
/// If it is too long, the end of the stem is replaced by a hash of the whole name, so that
/// different stems still have different names.
#[must_use]
pub fn fit_name(folder: &Path, stem: impl AsRef<OsStr>, end: &str) -> OsString {
    let mut name = stem.as_ref().to_owned();
    name.push(end);
    let max = max_name_bytes(folder);
    if name.len() <= max {
        return name;
    }
    let mut hash = hex::encode(Sha256::digest(name.as_encoded_bytes()));
    hash.truncate(HASH_DIGITS);
    let room = max.saturating_sub(SEPARATOR.len() + hash.len() + end.len());
    let text = stem.as_ref().to_string_lossy();
    let cut = (0..=room.min(text.len()))
        .rev()
        .find(|&cut| text.is_char_boundary(cut))
        .unwrap_or(0);
    OsString::from(format!(
        "{}{SEPARATOR}{hash}{end}",
        text.get(..cut).unwrap_or_default()
    ))
}

/// Encodes what cannot be part of a file name, so that different texts have different names.
///
/// Bytes other than ASCII letters, digits, `_`, `-` and `.`, and a `.` at the beginning, are
/// written as `%` and two lower-case hexadecimal digits.
///
/// By hand: existing files have lower-case digits, and `percent-encoding` writes upper-case ones.
#[must_use]
pub fn encode_name(text: &str) -> String {
    let mut name = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            b'.' if !name.is_empty() => name.push('.'),
            byte => name.push_str(&format!("%{byte:02x}")),
        }
    }
    name
}

/// Returns the length limit for names in a folder, or in its nearest existing ancestor.
fn max_name_bytes(folder: &Path) -> usize {
    #[cfg(unix)]
    {
        let file_system = folder.ancestors().find_map(|folder| {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            rustix::fs::statvfs(folder).ok()
        });
        // Some file systems report 0, and some count units other than bytes.
        file_system
            .and_then(|found| usize::try_from(found.f_namemax).ok())
            .filter(|&max| max > SEPARATOR.len() + HASH_DIGITS)
            .map_or(MAX_NAME_BYTES, |max| max.min(MAX_NAME_BYTES))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        MAX_NAME_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fit_are_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let fit = |stem: &str| fit_name(folder.path(), stem, ".checkpoint");
        assert_eq!(fit("in.jsonl"), "in.jsonl.checkpoint");
        let longest = "x".repeat(MAX_NAME_BYTES - ".checkpoint".len());
        assert_eq!(fit(&longest), (longest + ".checkpoint").as_str());
        assert_eq!(beside(Path::new("a/b"), ".new"), Path::new("a/b.new"));
        assert_eq!(beside(Path::new("b"), ".new"), Path::new("b.new"));
    }

    #[test]
    fn shortened_names_are_distinct_and_valid() {
        let folder = tempfile::tempdir().unwrap();
        let mut names = std::collections::BTreeSet::new();
        for stem in [
            "x".repeat(300),
            "x".repeat(301),
            "Ж".repeat(130),
            "Ж".repeat(131),
            "x".repeat(255),
        ] {
            let name = fit_name(folder.path(), &stem, ".checkpoint");
            assert!(
                name.len() <= MAX_NAME_BYTES && name.to_str().unwrap().ends_with(".checkpoint")
            );
            std::fs::write(folder.path().join(&name), "").unwrap();
            assert_eq!(fit_name(folder.path(), &stem, ".checkpoint"), name);
            assert!(names.insert(name));
        }
    }
}
