//! New keys in place of those that are there.
//!
//! What was sealed for the old keys, and waits somewhere, must still open; so no private key ever
//! leaves the folder. Each file is written in full, synced, and moved into its place before the
//! next:
//!
//! ```text
//!   1. the old private keys, under the names of older keys          (never overwritten)
//!   2. the new private keys, in place of the old ones
//!   3. the new public keys
//! ```
//!
//! A crash in between leaves a keyring that opens everything: until 2 the old keys are there twice,
//! and a public key stands in its file only once its private key does.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{
    KeyFileError, KeyNames, Kind, read_keyring, read_private, read_x_wing_private, stage_private,
    stage_public, stage_x_wing_private, stage_x_wing_public,
};
use crate::keys::{KeyId, PrivateKey, XWingPrivateKey};
use ciphermq_files::{Existing, FileError, NewFiles, sync_parent};

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// A key of each kind that was there.
    pub keys: Vec<Rotated>,
    /// The files that were written, in this order.
    pub written: Vec<PathBuf>,
}

/// One key that took another's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// Of which kind both are.
    pub kind: Kind,
    /// The key that was there.
    pub old: KeyId,
    /// The key that is there now.
    pub new: KeyId,
    /// Where the old private key is.
    pub archived: PathBuf,
}

/// Makes new keys of each kind that is there, keeps the old private keys beside them, and puts the
/// new ones in their place. The receiver uses and announces them when it reads the keyring anew.
///
/// # Errors
///
/// [`KeyFileError`]; then everything can still be opened, and the rotation can be tried again.
pub fn rotate(private: &Path) -> Result<Rotation, KeyFileError> {
    let names = KeyNames::of(private)?;
    let _lock = lock(&names);
    let Prepared { keys, steps } = Prepared::new(&names)?;
    let mut written = Vec::with_capacity(steps.len());
    for step in steps {
        written.extend(step.commit()?);
    }
    Ok(Rotation { keys, written })
}

/// Keeps another rotation of the same folder waiting: of the two new keys that they make at once,
/// one would be overwritten. Best effort: some file systems cannot lock, and then nobody else is at
/// work most likely.
fn lock(names: &KeyNames) -> Option<File> {
    let folder = File::open(names.folder()).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

/// All files written beside their places, and none in it.
struct Prepared {
    keys: Vec<Rotated>,
    /// One file each, to be committed in this order.
    steps: Vec<NewFiles>,
}

impl Prepared {
    fn new(names: &KeyNames) -> Result<Self, KeyFileError> {
        // Also the older ones are read: what stands under the name that a key is to get is that
        // very key.
        read_keyring(&names.private())?;
        let old = read_private(&names.private())?;
        let old_x_wing = match read_x_wing_private(&names.x_wing_private()) {
            Ok(key) => Some(key),
            Err(KeyFileError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let new = PrivateKey::generate()?;
        let new_x_wing = old_x_wing
            .as_ref()
            .map(|_| XWingPrivateKey::generate())
            .transpose()?;

        let mut prepared = Self {
            keys: Vec::new(),
            steps: Vec::new(),
        };
        let (old_id, new_id) = (old.public_key().key_id(), new.public_key().key_id());
        prepared.archive(names, Kind::X25519, old_id, new_id, |files, path| {
            stage_private(files, path, &old, Existing::Keep)
        })?;
        if let (Some(old), Some(new)) = (&old_x_wing, &new_x_wing) {
            let (old_id, new_id) = (old.public_key().key_id(), new.public_key().key_id());
            prepared.archive(names, Kind::XWing, old_id, new_id, |files, path| {
                stage_x_wing_private(files, path, old, Existing::Keep)
            })?;
        }
        prepared.step(|files| stage_private(files, &names.private(), &new, Existing::Replace))?;
        if let Some(new) = &new_x_wing {
            prepared.step(|files| {
                stage_x_wing_private(files, &names.x_wing_private(), new, Existing::Replace)
            })?;
        }
        prepared.step(|files| {
            stage_public(files, &names.public(), new.public_key(), Existing::Replace)
        })?;
        if let Some(new) = &new_x_wing {
            prepared.step(|files| {
                stage_x_wing_public(
                    files,
                    &names.x_wing_public(),
                    new.public_key(),
                    Existing::Replace,
                )
            })?;
        }
        Ok(prepared)
    }

    /// Keeps an old private key. It may be kept already, by a rotation that did not come to its
    /// end.
    fn archive(
        &mut self,
        names: &KeyNames,
        kind: Kind,
        old: KeyId,
        new: KeyId,
        stage: impl FnOnce(&mut NewFiles, &Path) -> Result<(), FileError>,
    ) -> Result<(), KeyFileError> {
        let archived = names.archived(kind, old);
        if archived.exists() {
            // That rotation may have been cut before the name was on the disk, and the key is soon
            // only there.
            sync_parent(&archived).map_err(|source| FileError::Io {
                path: archived.clone(),
                source,
            })?;
        } else {
            self.step(|files| stage(files, &archived))?;
        }
        self.keys.push(Rotated {
            kind,
            old,
            new,
            archived,
        });
        Ok(())
    }

    fn step(
        &mut self,
        stage: impl FnOnce(&mut NewFiles) -> Result<(), FileError>,
    ) -> Result<(), KeyFileError> {
        let mut files = NewFiles::new();
        stage(&mut files)?;
        self.steps.push(files);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
