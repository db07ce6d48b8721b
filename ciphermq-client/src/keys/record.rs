//! The record of the key that was used for a receiver, for people.

use std::path::{Path, PathBuf};

use ciphermq_crypto::RecipientKey;
use ciphermq_files::{Access, Existing, FileError, fit_name};
use ciphermq_protocol::ClientId;

use super::PUBLIC_KEY_FILE;

/// A client id that cannot be part of a file name.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client id `{0}` cannot be part of a key file's name")]
pub struct UnfitForFile(pub ClientId);

ciphermq_protocol::debug_as_report!(UnfitForFile);

/// Why the record of a receiver's key was not written.
#[derive(thiserror::Error)]
pub enum RecordError {
    /// The receiver's id cannot be part of a file name.
    #[error(transparent)]
    Unfit(#[from] UnfitForFile),
    /// The record's path holds another file, which is left unchanged.
    #[error("{} holds something else than a record of a public key", .0.display())]
    Foreign(PathBuf),
    /// The file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

ciphermq_protocol::debug_as_report!(RecordError);

/// Suffix of a record's file name, after the receiver's name.
const END: &str = "_public.key";

/// Returns the path of a receiver's record: `<folder>/<receiver>_public.key`. A name that is too
/// long for the file system is truncated and followed by its hash.
///
/// # Errors
///
/// [`UnfitForFile`] for ids that would leave the folder, with `/`, `\` or a leading dot, for those
/// whose record would replace the user's own public key, beside a private key of that name, and for
/// those that look like a truncated name.
pub fn record_path(folder: &Path, receiver: &ClientId) -> Result<PathBuf, UnfitForFile> {
    let id = receiver.as_str();
    let name = fit_name(folder, id, END);
    // A user's own public key is beside the private one.
    let is_own =
        name == PUBLIC_KEY_FILE || folder.join(fit_name(folder, id, "_private.key")).exists();
    if id.starts_with('.') || id.contains(['/', '\\']) || is_own || looks_truncated(id) {
        return Err(UnfitForFile(receiver.clone()));
    }
    Ok(folder.join(name))
}

/// Whether a name ends like a truncated one: with `~` and a hash.
fn looks_truncated(id: &str) -> bool {
    let is_hash = |end: &str| {
        end.len() >= 32
            && end
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    id.rsplit_once('~').is_some_and(|(_, end)| is_hash(end))
}

/// Records the public key that was used for a receiver, in place of an earlier record; returns its
/// path. It is a record for people, and never used in place of the server's answer.
///
/// # Errors
///
/// [`RecordError`].
pub fn write_record(
    folder: &Path,
    receiver: &ClientId,
    key: &RecipientKey,
) -> Result<PathBuf, RecordError> {
    let path = record_path(folder, receiver)?;
    if !is_free_or_record(&path) {
        return Err(RecordError::Foreign(path));
    }
    ciphermq_files::write(
        path.clone(),
        (key.to_base64() + "\n").as_bytes(),
        Access::Public,
        Existing::Replace,
    )?;
    Ok(path)
}

/// Whether the path is free or holds a record: a key's base64, and nothing else.
fn is_free_or_record(path: &Path) -> bool {
    match std::fs::read(path) {
        Ok(content) => content
            .trim_ascii()
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_public;
    use super::*;
    use ciphermq_crypto::PublicKey;

    fn client(name: &str) -> ClientId {
        ClientId::new(name).unwrap()
    }

    #[test]
    fn records_stay_in_their_folder() {
        let folder = Path::new("certs");
        assert_eq!(
            record_path(folder, &client("receiver_1")).unwrap(),
            folder.join("receiver_1_public.key")
        );
        for name in ["../x", "/etc/x", ".hidden", "a/b", "a\\b", "..", "receiver"] {
            assert_eq!(
                record_path(folder, &client(name)),
                Err(UnfitForFile(client(name)))
            );
        }
    }

    #[test]
    fn truncated_names_do_not_collide() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| record_path(folder.path(), &client(name));
        let long = ["x".repeat(250), "x".repeat(251), "Ж".repeat(125)];
        let mut cut = Vec::new();
        for name in &long {
            let path = path(name).unwrap();
            std::fs::write(&path, "").unwrap();
            let stem = path.file_name().unwrap().to_str().unwrap();
            cut.push(stem.strip_suffix("_public.key").unwrap().to_owned());
        }
        for name in &cut {
            assert_eq!(path(name), Err(UnfitForFile(client(name))));
        }
        cut.dedup();
        assert_eq!(cut.len(), long.len());
        path("a~b").unwrap();
    }

    #[test]
    fn a_record_is_replaced_by_the_next_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        for byte in [1, 2] {
            let key = PublicKey::from_bytes([byte; 32]);
            let path = write_record(folder.path(), &client("receiver_1"), &key.into()).unwrap();
            assert_eq!(read_public(&path).unwrap(), key);
        }
    }

    #[test]
    fn other_files_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let key = PublicKey::from_bytes([1; 32]).into();
        std::fs::write(folder.path().join("a_public.key"), "my notes\n").unwrap();
        std::fs::write(folder.path().join("b_private.key"), "").unwrap();
        let error = |name: &str| write_record(folder.path(), &client(name), &key).unwrap_err();
        assert!(matches!(error("a"), RecordError::Foreign(_)));
        assert!(matches!(error("b"), RecordError::Unfit(_)));
        assert_eq!(
            std::fs::read(folder.path().join("a_public.key")).unwrap(),
            b"my notes\n"
        );
        assert!(!folder.path().join("b_public.key").exists());
        let long = "x".repeat(255);
        assert_eq!(
            write_record(folder.path(), &client(&long), &key).unwrap(),
            record_path(folder.path(), &client(&long)).unwrap()
        );
    }
}
