//! What was believed of receivers' keys before, so that nobody can make us go back behind it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ciphermq_crypto::{Fingerprint, Pin, PinError};
use ciphermq_files::{Access, Existing, FileError};
use ciphermq_protocol::ClientId;

/// Longer names than this become their hash: file systems take 255 bytes.
const MAX_NAME_BYTES: usize = 200;

/// The pins of all receivers that were sent to: in memory, or a file each in a folder,
/// `<receiver>_public.pin.json`, beside the record of the key itself.
#[derive(Debug)]
pub(crate) enum Pins {
    Memory(Mutex<HashMap<ClientId, Pin>>),
    Folder(PathBuf),
}

/// Why a key is not taken after what was believed before, or what was believed cannot be found out.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PinsError {
    /// It must not follow what is pinned.
    #[error(transparent)]
    Refused(#[from] PinError),
    /// The pin cannot be read.
    #[error("the record of the receiver's key, {}, cannot be read: {source}", path.display())]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The pin cannot be written.
    #[error(transparent)]
    Unwritable(#[from] FileError),
}

ciphermq_protocol::debug_as_report!(PinsError);

impl Pins {
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        folder.map_or_else(|| Self::Memory(Mutex::default()), Self::Folder)
    }

    /// Pins what is offered, if it may follow what is pinned.
    pub(crate) fn accept(&self, receiver: &ClientId, offered: &Pin) -> Result<(), PinsError> {
        match self {
            Self::Memory(pins) => {
                let mut pins = pins.lock().unwrap_or_else(PoisonError::into_inner);
                Pin::accept(pins.get(receiver), offered)?;
                pins.insert(receiver.clone(), offered.clone());
                Ok(())
            }
            Self::Folder(folder) => {
                let path = path(folder, receiver);
                // Between reading and writing nobody else may write: two senders with two pins would lose the newer
                // one. The lock ends with the file.
                let lock = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
                let _lock = lock.map_err(|source| PinsError::Unreadable {
                    path: path.clone(),
                    source,
                })?;
                let pinned = read(&path)?;
                Pin::accept(pinned.as_ref(), offered)?;
                if pinned.as_ref() != Some(offered) {
                    write(path, offered)?;
                }
                Ok(())
            }
        }
    }

    /// Whether what is offered may follow what is pinned.
    pub(crate) fn check(&self, receiver: &ClientId, offered: &Pin) -> Result<(), PinsError> {
        let pinned = match self {
            Self::Memory(pins) => pins
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(receiver)
                .cloned(),
            Self::Folder(folder) => read(&path(folder, receiver))?,
        };
        Ok(Pin::accept(pinned.as_ref(), offered)?)
    }
}

/// Every client has a pin: what cannot be part of a file's name is written as `%` and two hexadecimal digits, and a
/// name that is too long for a file's as its SHA-256.
fn path(folder: &Path, receiver: &ClientId) -> PathBuf {
    let mut name = String::new();
    for byte in receiver.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            b'.' if !name.is_empty() => name.push('.'),
            byte => name.push_str(&format!("%{byte:02x}")),
        }
    }
    if name.len() > MAX_NAME_BYTES {
        name = Fingerprint::of(receiver.as_str().as_bytes()).to_string();
    }
    folder.join(format!("{name}_public.pin.json"))
}

fn read(path: &Path) -> Result<Option<Pin>, PinsError> {
    let unreadable = |source| PinsError::Unreadable {
        path: path.to_owned(),
        source,
    };
    match fs::read(path) {
        // What cannot be read is not taken for nothing: it may be a newer version's, or damaged on purpose.
        Ok(json) => Ok(Some(
            serde_json::from_slice(&json).map_err(|error| unreadable(error.into()))?,
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error)),
    }
}

fn write(path: PathBuf, pin: &Pin) -> Result<(), PinsError> {
    let mut json = serde_json::to_vec(pin).map_err(|error| PinsError::Unreadable {
        path: path.clone(),
        source: error.into(),
    })?;
    json.push(b'\n');
    ciphermq_files::write(path, &json, Access::Public, Existing::Replace)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ciphermq_crypto::PublicKey;

    fn receiver() -> ClientId {
        ClientId::new("receiver_1").unwrap()
    }

    fn signed(epoch: u64) -> Pin {
        Pin::Signed {
            epoch,
            keys: "k".to_owned(),
        }
    }

    #[test]
    fn in_memory_and_in_a_folder_alike() {
        let folder = tempfile::tempdir().unwrap();
        for pins in [Pins::new(None), Pins::new(Some(folder.path().to_owned()))] {
            let unsigned = Pin::unsigned(&PublicKey::from_bytes([7; 32]));
            pins.accept(&receiver(), &unsigned).unwrap();
            pins.accept(&receiver(), &signed(10)).unwrap();
            pins.accept(&receiver(), &signed(11)).unwrap();
            assert!(matches!(
                pins.accept(&receiver(), &signed(10)),
                Err(PinsError::Refused(PinError::Older { .. }))
            ));
            assert!(matches!(
                pins.accept(&receiver(), &unsigned),
                Err(PinsError::Refused(PinError::NoLongerSigned))
            ));
            pins.accept(&receiver(), &signed(11)).unwrap();
        }
        // A new process finds them.
        let again = Pins::new(Some(folder.path().to_owned()));
        assert!(again.accept(&receiver(), &signed(10)).is_err());
        again.accept(&receiver(), &signed(12)).unwrap();
    }

    #[test]
    fn every_client_has_a_place_of_its_own_in_the_folder() {
        let folder = Path::new("certs");
        let long = "x".repeat(255);
        let names = [
            "receiver",
            "receiver_1",
            "../x",
            "/etc/x",
            ".hidden",
            "a/b",
            "a%2fb",
            "..",
            "Zürich",
            &long,
        ];
        let mut paths = std::collections::BTreeSet::new();
        for name in names {
            let path = path(folder, &ClientId::new(name).unwrap());
            assert_eq!(path.parent(), Some(folder), "{name}");
            assert!(path.file_name().unwrap().len() <= 255);
            paths.insert(path);
        }
        assert_eq!(paths.len(), names.len());
        assert!(paths.contains(&folder.join("receiver_1_public.pin.json")));
        assert!(paths.contains(&folder.join("a%2fb_public.pin.json")));
    }

    #[test]
    fn a_damaged_pin_is_no_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receiver_1_public.pin.json");
        fs::write(&path, "").unwrap();
        let pins = Pins::new(Some(folder.path().to_owned()));
        let error = pins.accept(&receiver(), &signed(1)).unwrap_err();
        assert!(matches!(&error, PinsError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("receiver_1_public.pin.json"));
    }

    #[test]
    fn many_senders_at_once_never_lose_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for epoch in 1..=16 {
                let folder = folder.path().to_owned();
                scope.spawn(move || Pins::Folder(folder).accept(&receiver(), &signed(epoch)).ok());
            }
        });
        let pins = Pins::Folder(folder.path().to_owned());
        assert!(pins.accept(&receiver(), &signed(15)).is_err());
        pins.accept(&receiver(), &signed(16)).unwrap();
    }
}
