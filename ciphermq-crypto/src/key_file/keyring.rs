//! Reading of all private keys of a receiver from one folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::{KeyFileError, KeyNames, Kind, read_private, read_x_wing_private};
use crate::keys::{KeyId, Keyring};

/// Reads the X25519 private key in `path` and the other private keys in its folder.
///
/// These are the X-Wing key, if it exists, and older keys of both kinds (see [`KeyNames`]). A key
/// whose file is not named `<something>_private.key` has no others.
///
/// # Errors
///
/// [`KeyFileError`] if one of the files cannot be read, may be read by others than its owner, or
/// holds something other than the key of its name. Files with other names are ignored.
pub fn read_keyring(path: &Path) -> Result<Keyring, KeyFileError> {
    // The newest keys first, then the older ones: in the other order, a concurrent rotation could
    // hide a key in both places.
    let mut keyring = Keyring::new(read_private(path)?);
    let Some(names) = KeyNames::find(path) else {
        return Ok(keyring);
    };
    match read_x_wing_private(&names.x_wing_private()) {
        Ok(key) => keyring = keyring.with_x_wing(key),
        Err(KeyFileError::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    for (path, kind, named) in archived(&names)? {
        let found = match kind {
            Kind::X25519 => {
                let key = read_private(&path)?;
                let id = key.public_key().key_id();
                keyring = keyring.with_older(key);
                id
            }
            Kind::XWing => {
                let key = read_x_wing_private(&path)?;
                let id = key.public_key().key_id();
                keyring = keyring.with_older_x_wing(key);
                id
            }
        };
        if found != named {
            return Err(KeyFileError::Misnamed { path, named, found });
        }
    }
    Ok(keyring)
}

/// Returns the files of older keys, sorted by name.
fn archived(names: &KeyNames) -> Result<Vec<(PathBuf, Kind, KeyId)>, KeyFileError> {
    let failed = |source| KeyFileError::Folder {
        path: names.folder().to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(names.folder()).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some((kind, id)) = name.to_str().and_then(|name| names.parse_archived(name)) {
            found.push((names.archived(kind, id), kind, id));
        }
    }
    found.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
    Ok(found)
}
