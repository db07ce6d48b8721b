//! What is remembered beside the key: that the rows of older servers were sealed anew.
//!
//! Those rows are bound to no client, and old copies of them can turn up in a database again: in a
//! backup, or in the hands of whoever may write to it. That they were taken over is noted in the
//! database, and here, where somebody who has the database and not the server's files cannot set it
//! back. A note names the key, by a hash from which it cannot be found.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ciphermq_files::{Access, Existing};
use sha2::{Digest as _, Sha256};

use super::AtRestKey;

const FIRST_LINE: &str = "ciphermq-at-rest-adopted 1";
/// More than the file can be long: an old key is replaced now and then.
const MAX_BYTES: u64 = 1 << 20;

/// What names a key without telling it.
#[must_use]
pub fn key_id(key: &AtRestKey) -> String {
    let mut hash = Sha256::new();
    hash.update(b"CipherMQ at-rest key id\0");
    hash.update(key.bytes());
    hash.finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The file with the notes.
#[derive(Debug, Clone)]
pub struct Notes {
    path: PathBuf,
}

impl Notes {
    /// The notes beside a key file.
    #[must_use]
    pub fn beside(key_file: &Path) -> Self {
        Self {
            path: ciphermq_files::beside(key_file, ".adopted"),
        }
    }

    /// Where they are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether rows under this key were sealed anew before.
    ///
    /// # Errors
    ///
    /// When the file is there and cannot be read.
    pub fn has(&self, key_id: &str) -> io::Result<bool> {
        Ok(self.read()?.lines().skip(1).any(|line| line == key_id))
    }

    /// Notes it, durably.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn add(&self, key_id: &str) -> io::Result<()> {
        let mut text = self.read()?;
        if text.lines().skip(1).any(|line| line == key_id) {
            return Ok(());
        }
        if text.is_empty() {
            text = format!("{FIRST_LINE}\n");
        }
        text.push_str(key_id);
        text.push('\n');
        ciphermq_files::create_folder(ciphermq_files::parent(&self.path), Access::Private)?;
        ciphermq_files::write(
            &self.path,
            text.as_bytes(),
            Access::Private,
            Existing::Replace,
        )
        .map_err(io::Error::other)
    }

    fn read(&self) -> io::Result<String> {
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(error),
            Ok(metadata) if metadata.len() > MAX_BYTES => {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(_) => {}
        }
        let text = fs::read_to_string(&self.path)?;
        if text.starts_with(FIRST_LINE) {
            Ok(text)
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_kept_by_key() {
        let folder = tempfile::tempdir().unwrap();
        let notes = Notes::beside(&folder.path().join("new/at-rest.key"));
        assert!(!notes.has("aa").unwrap());
        notes.add("aa").unwrap();
        notes.add("bb").unwrap();
        notes.add("aa").unwrap();
        assert!(notes.has("aa").unwrap() && notes.has("bb").unwrap() && !notes.has("cc").unwrap());
        let text = fs::read_to_string(folder.path().join("new/at-rest.key.adopted")).unwrap();
        assert_eq!(text, "ciphermq-at-rest-adopted 1\naa\nbb\n");
        fs::write(notes.path(), "something else").unwrap();
        assert!(notes.has("aa").is_err() && notes.add("aa").is_err());
    }

    #[test]
    fn a_key_id_tells_keys_apart() {
        let key = |fill: u8| {
            AtRestKey::from_base64(&base64::prelude::Engine::encode(
                &base64::prelude::BASE64_STANDARD,
                [fill; 32],
            ))
            .unwrap()
        };
        assert_eq!(key_id(&key(1)), key_id(&key(1)));
        assert_ne!(key_id(&key(1)), key_id(&key(2)));
        assert_eq!(key_id(&key(1)).len(), 32);
    }
}
