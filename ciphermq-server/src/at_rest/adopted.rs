//! A record beside the at-rest key that the rows of older servers were adopted: sealed anew.
//!
//! Those rows are bound to no client, and old copies of them can reappear in a database: from a
//! backup, or written by anyone with write access. The adoption is therefore recorded in the
//! database and also here, where somebody who has access to the database but not to the server's
//! files cannot undo it. A record identifies the key by a one-way hash.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ciphermq_files::{Access, Existing};
use sha2::{Digest as _, Sha256};

use super::AtRestKey;

const FIRST_LINE: &str = "ciphermq-at-rest-adopted 1";
/// The length of a key's id, in hexadecimal digits.
const KEY_ID_DIGITS: usize = 32;
/// The size limit of the file. It has a line per key, and keys are rarely replaced.
const MAX_BYTES: u64 = 1 << 20;

/// Returns the id of a key in hexadecimal: 128 bits of a hash that does not reveal the key.
#[must_use]
pub fn key_id(key: &AtRestKey) -> String {
    let mut hash = Sha256::new();
    hash.update(b"CipherMQ at-rest key id\0");
    hash.update(key.bytes());
    let mut id = hex::encode(hash.finalize());
    id.truncate(KEY_ID_DIGITS);
    id
}

/// The file that records for which keys older rows were adopted.
#[derive(Debug, Clone)]
pub struct AdoptionRecord {
    path: PathBuf,
}

impl AdoptionRecord {
    /// Returns the record that belongs to a key file: `<key file>.adopted`.
    #[must_use]
    pub fn beside(key_file: &Path) -> Self {
        Self {
            path: ciphermq_files::beside(key_file, ".adopted"),
        }
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether older rows were adopted under the key with this id.
    ///
    /// # Errors
    ///
    /// An error if the file exists and cannot be read, or is not such a record.
    pub fn has(&self, key_id: &str) -> io::Result<bool> {
        Ok(self.read()?.lines().skip(1).any(|line| line == key_id))
    }

    /// Records durably that older rows were adopted under the key with this id.
    ///
    /// # Errors
    ///
    /// An error if the file cannot be read or written, or is not such a record.
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
    fn adoption_is_recorded_per_key() {
        let folder = tempfile::tempdir().unwrap();
        let record = AdoptionRecord::beside(&folder.path().join("new/at-rest.key"));
        assert!(!record.has("aa").unwrap());
        record.add("aa").unwrap();
        record.add("bb").unwrap();
        record.add("aa").unwrap();
        assert!(
            record.has("aa").unwrap() && record.has("bb").unwrap() && !record.has("cc").unwrap()
        );
        let text = fs::read_to_string(folder.path().join("new/at-rest.key.adopted")).unwrap();
        assert_eq!(text, "ciphermq-at-rest-adopted 1\naa\nbb\n");
        fs::write(record.path(), "something else").unwrap();
        assert!(record.has("aa").is_err() && record.add("aa").is_err());
    }

    #[test]
    fn key_ids_distinguish_keys() {
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
