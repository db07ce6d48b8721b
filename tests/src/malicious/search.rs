//! Searches for secrets, in any encoding, in memory and files.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};

use crate::process::Process;

/// The encodings in which a secret could appear: raw, in hexadecimal, and in base64, both on its
/// own and as part of a longer value.
pub fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![
        secret.to_vec(),
        hex::encode(secret).into_bytes(),
        hex::encode_upper(secret).into_bytes(),
    ];
    // The base64 of a secret that follows 0, 1 or 2 other bytes, without the characters that also
    // depend on its neighbours.
    for before in 0..3 {
        let padded: Vec<u8> = std::iter::repeat_n(0, before)
            .chain(secret.iter().copied())
            .collect();
        let own = (before * 8).div_ceil(6)..padded.len() * 8 / 6;
        for text in [
            BASE64_STANDARD.encode(&padded),
            BASE64_URL_SAFE.encode(&padded),
        ] {
            forms.push(text.as_bytes()[own.clone()].to_vec());
        }
    }
    forms
}

/// Whether `haystack` contains `needle`.
pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}

/// Content of the writable memory of a process, by mapping, as in a core dump. Read-only mappings,
/// such as the code of programs and libraries, are left out: they equal their files.
///
/// # Panics
///
/// If the memory cannot be read: the process must be a child of the test.
pub fn memory(process: &Process) -> Vec<(String, Vec<u8>)> {
    use std::os::unix::fs::FileExt as _;

    let pid = process.pid().expect("the process runs").as_raw_nonzero();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("a list of mappings");
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("the process's memory");
    let mut mappings = Vec::new();
    for map in maps.lines().filter(|map| {
        map.split(' ')
            .nth(1)
            .is_some_and(|mode| mode.starts_with("rw"))
    }) {
        let (start, end) = map
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'))
            .expect("the range of the mapping");
        let [start, end] =
            [start, end].map(|address| u64::from_str_radix(address, 16).expect("an address"));
        let length = usize::try_from(end - start).expect("it fits into memory");
        let mut bytes = vec![0; length];
        // A mapping may be removed between being listed and being read.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            mappings.push((format!("memory: {map}"), bytes));
        }
    }
    mappings
}

/// Paths and content of all files in a folder and its subfolders. Files that vanish meanwhile, as
/// those of a running database may, are left out.
///
/// # Panics
///
/// If a file cannot be read.
pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() {
                match std::fs::read(&path) {
                    Ok(bytes) => found.push((path, bytes)),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => panic!("{}: {error}", path.display()),
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_every_form() {
        let secret = b"a secret of some length";
        let finds = |haystack: &[u8]| forms(secret).iter().any(|form| contains(haystack, form));
        assert!(finds(b"x a secret of some length y"));
        assert!(finds(b"6120736563726574206f6620736f6d65206c656e677468"));
        for before in ["", "x", "xy", "xyz", "xyza"] {
            for after in ["", "1", "22", "333"] {
                let text = format!("{before}a secret of some length{after}");
                assert!(
                    finds(BASE64_STANDARD.encode(text).as_bytes()),
                    "{before}, {after}"
                );
            }
        }
        assert!(!finds(
            b"another secret of some length?".get(3..20).unwrap()
        ));
    }
}
