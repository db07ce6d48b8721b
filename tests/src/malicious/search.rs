//! Where a secret must not be found, in whatever form it stands there.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};

use crate::process::Process;

/// The forms in which a secret could stand somewhere: as it is, in hexadecimal, and in base64, by
/// itself and inside of something longer.
pub fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex = |upper: bool| -> String {
        secret
            .iter()
            .map(|byte| match upper {
                true => format!("{byte:02X}"),
                false => format!("{byte:02x}"),
            })
            .collect()
    };
    let mut forms = vec![
        secret.to_vec(),
        hex(false).into_bytes(),
        hex(true).into_bytes(),
    ];
    // Base64 of what follows 0, 1 or 2 other bytes; the characters that those and what comes after
    // take part in differ.
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

/// Whether `needle` is in `hay`.
pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(hay, needle).is_some()
}

/// Everything that a process holds in its memory now, by the places that the system names: what a
/// core dump has, too. (Text of programs and libraries is left out: they hold what their files
/// hold.)
///
/// # Panics
///
/// If its memory cannot be read: it must be the tests' own child.
pub fn memory(process: &Process) -> Vec<(String, Vec<u8>)> {
    use std::os::unix::fs::FileExt as _;

    let pid = process.pid().expect("the process runs").as_raw_nonzero();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("a list of places");
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("the process's memory");
    let mut places = Vec::new();
    for map in maps.lines().filter(|map| {
        map.split(' ')
            .nth(1)
            .is_some_and(|mode| mode.starts_with("rw"))
    }) {
        let (start, end) = map
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'))
            .expect("where it begins and ends");
        let [start, end] =
            [start, end].map(|place| u64::from_str_radix(place, 16).expect("an address"));
        let length = usize::try_from(end - start).expect("it fits into memory");
        let mut bytes = vec![0; length];
        // A place may be given back between being listed and being read.
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            places.push((format!("memory: {map}"), bytes));
        }
    }
    places
}

/// All files below a folder, with what is in them. What vanishes meanwhile, as files of a running
/// database do, is left out.
///
/// # Panics
///
/// If one cannot be read.
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
        let finds = |hay: &[u8]| forms(secret).iter().any(|form| contains(hay, form));
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
