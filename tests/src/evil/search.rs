//! Where a secret must not be found, in whatever form it stands there.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};

/// The forms in which a secret could stand somewhere: as it is, in hexadecimal, and in base64, by itself and inside of
/// something longer.
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
    let mut forms = vec![secret.to_vec(), hex(false).into_bytes(), hex(true).into_bytes()];
    // Base64 of what follows 0, 1 or 2 other bytes; the characters that those and what comes after take part in differ.
    for before in 0..3 {
        let padded: Vec<u8> = std::iter::repeat_n(0, before)
            .chain(secret.iter().copied())
            .collect();
        let own = (before * 8).div_ceil(6)..padded.len() * 8 / 6;
        for text in [BASE64_STANDARD.encode(&padded), BASE64_URL_SAFE.encode(&padded)] {
            forms.push(text.as_bytes()[own.clone()].to_vec());
        }
    }
    forms
}

/// Whether `needle` is in `hay`.
pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

/// All files below a folder, with what is in them.
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
                let bytes =
                    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                found.push((path, bytes));
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
        assert!(!finds(b"another secret of some length?".get(3..20).unwrap()));
    }
}
