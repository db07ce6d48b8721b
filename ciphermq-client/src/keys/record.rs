//! The record of the key that was used for a receiver, for people.

use std::path::{Path, PathBuf};

use ciphermq_crypto::RecipientKey;
use ciphermq_crypto::file::{self, Access, Existing, FileError};
use ciphermq_protocol::ClientId;

use super::PUBLIC_KEY_FILE;

/// Why a client's id cannot be part of a file's name.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the client id `{0}` cannot be part of a key file's name")]
pub struct UnfitForFile(pub ClientId);

ciphermq_protocol::debug_as_report!(UnfitForFile);

/// Why the record of a receiver's key was not written.
#[derive(thiserror::Error)]
pub enum RecordError {
    /// The receiver's id cannot be part of a file's name.
    #[error(transparent)]
    Unfit(#[from] UnfitForFile),
    /// The file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

ciphermq_protocol::debug_as_report!(RecordError);

/// Where the record of a receiver's public key stands: `<folder>/<receiver>_public.key`.
///
/// # Errors
///
/// [`UnfitForFile`] for ids that would lead out of the folder, with `/`, `\` or beginning with a dot, and for the
/// one whose record would stand in the place of one's own public key.
pub fn record_path(folder: &Path, receiver: &ClientId) -> Result<PathBuf, UnfitForFile> {
    let id = receiver.as_str();
    let name = format!("{id}_public.key");
    if id.starts_with('.') || id.contains(['/', '\\']) || name == PUBLIC_KEY_FILE {
        return Err(UnfitForFile(receiver.clone()));
    }
    Ok(folder.join(name))
}

/// Records which public key was used for a receiver, in place of an earlier record; where it stands. It is a
/// record for people, and never taken for the server's answer.
///
/// # Errors
///
/// [`RecordError`].
pub fn write_record(folder: &Path, receiver: &ClientId, key: &RecipientKey) -> Result<PathBuf, RecordError> {
    let path = record_path(folder, receiver)?;
    file::write(
        path.clone(),
        (key.to_base64() + "\n").as_bytes(),
        Access::Public,
        Existing::Replace,
    )?;
    Ok(path)
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
    fn a_record_is_replaced_by_the_next_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        for byte in [1, 2] {
            let key = PublicKey::from_bytes([byte; 32]);
            let path = write_record(folder.path(), &client("receiver_1"), &key.into()).unwrap();
            assert_eq!(read_public(&path).unwrap(), key);
        }
    }
}
