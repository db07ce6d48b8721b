//! The revocation lists that were accepted.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ciphermq_crypto::Authority;
use ciphermq_crypto::identity::{RevocationList, RevocationListError, fingerprint};
use ciphermq_files::{Access, Existing};
use parking_lot::Mutex;

use super::RevocationError;
use crate::keys::{FolderLock, MAX_WAIT};

/// Size limit of a list's file, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// The most authorities whose lists are kept.
const MAX_LISTS: usize = 64;

/// The lists that were accepted: in memory, and one file for each authority in a folder,
/// `revoked_<hash of the authority's name>.crl`, in DER.
#[derive(Debug)]
pub(crate) struct KeptLists {
    folder: Option<PathBuf>,
    lists: Mutex<Vec<RevocationList>>,
}

impl KeptLists {
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            lists: Mutex::default(),
        }
    }

    /// Returns the lists.
    pub(crate) fn all(&self) -> Vec<RevocationList> {
        self.lists.lock().clone()
    }

    /// Accepts a list that the authority has signed, unless one with a greater number is known;
    /// returns whether it is another one than before. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`RevocationError::Older`], and [`RevocationError::NotKept`] if the list is used and not
    /// kept.
    pub(super) fn accept(
        &self,
        list: RevocationList,
        authority: &Authority,
    ) -> Result<bool, RevocationError> {
        let Some(folder) = &self.folder else {
            return self.replace(list);
        };
        // Another process may be about to keep a newer one.
        let lock = FolderLock::wait(folder, MAX_WAIT);
        let path = path(folder, list.issuer());
        // A damaged one, which was reported at the start, is replaced.
        if let Ok(Some(kept)) = read(&path, authority) {
            self.replace(kept).ok();
        }
        if !self.replace(list.clone())? {
            return Ok(false);
        }
        let _lock = lock.map_err(|error| RevocationError::NotKept(error.to_string()))?;
        ciphermq_files::write(path, list.der(), Access::Public, Existing::Replace)?;
        Ok(true)
    }

    /// Reads what is kept of these authorities. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`RevocationError::NotKept`] if the folder has a file that is there and cannot be read.
    pub(crate) fn read(&self, authority: &Authority) -> Result<(), RevocationError> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        for name in authority.names() {
            if let Some(list) = read(&path(folder, name), authority)? {
                self.replace(list).ok();
            }
        }
        Ok(())
    }

    /// Replaces a list in memory; returns whether it is another one than before.
    fn replace(&self, list: RevocationList) -> Result<bool, RevocationError> {
        let mut lists = self.lists.lock();
        let Some(kept) = lists.iter_mut().find(|kept| kept.issuer() == list.issuer()) else {
            if lists.len() < MAX_LISTS {
                lists.push(list);
            }
            return Ok(true);
        };
        if list.number() < kept.number() {
            return Err(RevocationError::Older {
                issuer: list.validity().subject.clone(),
                number: list.number().clone(),
                made: list.validity().not_before,
                kept: kept.number().clone(),
            });
        }
        if list.number() == kept.number() {
            return Ok(false);
        }
        *kept = list;
        Ok(true)
    }
}

fn path(folder: &Path, issuer: &[u8]) -> PathBuf {
    let hash = fingerprint(issuer).to_string();
    let short = hash.get(..16).unwrap_or(&hash);
    folder.join(format!("revoked_{short}.crl"))
}

/// Reads a kept list; `None` if there is none that these authorities have signed.
fn read(path: &Path, authority: &Authority) -> Result<Option<RevocationList>, RevocationError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        RevocationError::NotKept(format!("{} cannot be read: {error}", path.display()))
    };
    let bytes = match read_file(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&error)),
    };
    match authority.read_list(&bytes) {
        Ok(list) => Ok(Some(list)),
        // Of an authority that had this name before.
        Err(RevocationListError::Signature(_) | RevocationListError::OtherIssuer(_)) => Ok(None),
        Err(error) => Err(unreadable(&error)),
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for a writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
