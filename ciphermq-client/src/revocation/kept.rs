//! The revocation lists that were accepted.

use std::io;
use std::path::{Path, PathBuf};

use ciphermq_crypto::Authority;
use ciphermq_crypto::identity::{ListSigner, RevocationList};
use ciphermq_files::{Access, Existing, read_file, sync_found_name};
use parking_lot::Mutex;

use super::RevocationError;
use crate::keys::{FolderLock, MAX_WAIT};

/// Size limit of a list's file, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The lists that were accepted: in memory, and one file for each signer in a folder,
/// `revoked_<hash of the authority's name and key>.crl`, in DER.
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

    /// Returns the lists of these authorities.
    pub(crate) fn of(&self, authority: &Authority) -> Vec<RevocationList> {
        let lists = self.lists.lock();
        let signers = authority.signers();
        let of = |signer| lists.iter().find(|list| *list.signer() == signer).cloned();
        signers.filter_map(of).collect()
    }

    /// Accepts a list that an authority has signed, unless one with a greater number is known;
    /// returns whether it is another one than before. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`RevocationError::Older`], and [`RevocationError::NotKept`] if the list is used and not
    /// kept.
    pub(crate) fn accept(
        &self,
        list: &RevocationList,
        authority: &Authority,
    ) -> Result<bool, RevocationError> {
        let Some(folder) = &self.folder else {
            return self.replace(list);
        };
        let path = path(folder, list.signer());
        // Without the lock, as mostly there is nothing to write.
        let is_kept = |list: &RevocationList| matches!(read(&path, authority), Ok(Some(kept)) if kept.der() == list.der());
        if is_kept(list) {
            return self.replace(list);
        }
        // Another process may be about to keep a newer one.
        let lock = FolderLock::wait(folder, MAX_WAIT);
        // A damaged one, which was reported at the start, is replaced.
        if let Ok(Some(kept)) = read(&path, authority) {
            self.replace(&kept).ok();
        }
        let is_new = self.replace(list)?;
        let last = self.find(list.signer());
        if let Some(last) = last.filter(|last| !is_kept(last)) {
            let _lock = lock.map_err(|error| RevocationError::NotKept(error.to_string()))?;
            ciphermq_files::write(path, last.der(), Access::Public, Existing::Replace)?;
        }
        Ok(is_new)
    }

    /// Reads what is kept of these signers, who belong to the authorities. Waits for the disk.
    ///
    /// # Errors
    ///
    /// [`RevocationError::NotKept`] if the folder has a file that is there and cannot be read. The
    /// others are read.
    pub(crate) fn read(
        &self,
        authority: &Authority,
        signers: impl IntoIterator<Item = ListSigner>,
    ) -> Result<(), RevocationError> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let mut outcome = Ok(());
        for signer in signers {
            let path = path(folder, &signer);
            match read(&path, authority) {
                Ok(Some(list)) => {
                    drop(self.replace(&list));
                    // The process that kept it may have been killed before it synced the name.
                    if let Err(error) = sync_found_name(&path) {
                        outcome = Err(not_synced(&path, &error));
                    }
                }
                Ok(None) => {}
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    /// Forgets the lists of these signers in memory.
    pub(crate) fn forget(&self, signers: &[ListSigner]) {
        let mut lists = self.lists.lock();
        lists.retain(|list| !signers.contains(list.signer()));
    }

    /// Whether there is a list of this signer in memory.
    pub(crate) fn has(&self, signer: &ListSigner) -> bool {
        self.find(signer).is_some()
    }

    fn find(&self, signer: &ListSigner) -> Option<RevocationList> {
        let lists = self.lists.lock();
        lists.iter().find(|list| list.signer() == signer).cloned()
    }

    /// Replaces a list in memory; returns whether it is another one than before.
    fn replace(&self, list: &RevocationList) -> Result<bool, RevocationError> {
        let mut lists = self.lists.lock();
        let Some(kept) = lists.iter_mut().find(|kept| kept.signer() == list.signer()) else {
            lists.push(list.clone());
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
        kept.clone_from(list);
        Ok(true)
    }
}

fn not_synced(path: &Path, error: &io::Error) -> RevocationError {
    let path = path.display();
    RevocationError::NotKept(format!("the folder of {path} cannot be synced: {error}"))
}

fn path(folder: &Path, signer: &ListSigner) -> PathBuf {
    folder.join(format!("revoked_{}.crl", signer.short_hash()))
}

/// Reads a kept list of one of these authorities; `None` if there is no file.
fn read(path: &Path, authority: &Authority) -> Result<Option<RevocationList>, RevocationError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        RevocationError::NotKept(format!("{} cannot be read: {error}", path.display()))
    };
    let bytes = match read_file(path, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&error)),
    };
    let list = authority.read_list(&bytes);
    list.map(Some).map_err(|error| unreadable(&error))
}
