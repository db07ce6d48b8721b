//! Key rotation.
//!
//! Messages that were sealed for the old keys, and still wait, must open; so no private key is ever
//! deleted. Each file is written, synced and moved into its place before the next:
//!
//! ```text
//!   1. the old private keys, under the names of older keys          (never overwritten)
//!   2. the new private keys, in place of the old ones
//!   3. the new public keys
//! ```
//!
//! A crash in between leaves a keyring that opens everything: until step 2 the old keys exist
//! twice, and a public key is moved into its place only after its private key.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::{
    KeyFileError, KeyNames, Kind, read_keyring, read_private, read_x_wing_private, stage_private,
    stage_public, stage_x_wing_private, stage_x_wing_public,
};
use crate::keys::{KeyId, PrivateKey, XWingPrivateKey};
use ciphermq_files::{Existing, FileError, NewFiles, sync_parent};

/// The result of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The replaced keys, one of each existing kind.
    pub keys: Vec<Rotated>,
    /// The written files, in order.
    pub written: Vec<PathBuf>,
}

/// A key that replaced another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The kind of both.
    pub kind: Kind,
    /// The id of the replaced key.
    pub old: KeyId,
    /// The id of the new key.
    pub new: KeyId,
    /// The file of the old private key.
    pub archived: PathBuf,
}

/// Replaces the keys of each existing kind with new ones, and archives the old private keys.
///
/// The receiver uses and announces the new ones when it reads the keyring again.
///
/// # Errors
///
/// [`KeyFileError`]; the keyring still opens everything then, and the rotation can be retried.
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

/// Locks the folder against concurrent rotations, of whose new keys one would be overwritten.
///
/// Best effort: some file systems do not support locks, where a concurrent rotation is unlikely.
fn lock(names: &KeyNames) -> Option<File> {
    let folder = File::open(names.folder()).ok()?;
    folder.lock().ok()?;
    Some(folder)
}

/// A rotation whose files are all written, but not yet moved into their places.
struct Prepared {
    keys: Vec<Rotated>,
    /// Files to commit in this order, one per step.
    steps: Vec<NewFiles>,
}

impl Prepared {
    fn new(names: &KeyNames) -> Result<Self, KeyFileError> {
        // Reading the older keys verifies that an existing archive file really holds the key of its
        // name.
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

    /// Archives an old private key, unless an interrupted rotation has done so.
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
            // The interrupted rotation may not have synced the name, and soon the key has no other
            // file.
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
