//! Pins of receivers' keys, which prevent a rollback to older keys.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::{Pin, PinError};
use ciphermq_files::{Access, Existing, FileError, read_file, sync_found_name};
use ciphermq_protocol::ClientId;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::lock::{FolderLock, LockError, MAX_WAIT};
use super::names::{client_file, legacy_client_file};
use super::not_the_json;
use super::registration::HIGHEST_ABOVE;
use crate::blocking::{NotEnded, blocking};

/// Suffix of a pin's file name, after the receiver's name.
const END: &str = "_public.pin.json";
/// Size limit of a pin's file.
const MAX_BYTES: u64 = 64 * 1024;

/// The pins of all receivers that were sent to: in memory, or one file each in a folder,
/// `<receiver>_public.pin.json`, beside the record of the key itself.
#[derive(Debug, Clone)]
pub(crate) enum Pins {
    Memory(Arc<Mutex<HashMap<ClientId, Pin>>>),
    Folder {
        folder: PathBuf,
        /// Lets one task of this process wait for the folder's lock; the others wait here and block
        /// no thread.
        turn: Arc<tokio::sync::Mutex<()>>,
    },
}

/// Why a key is refused after the pinned one, or why the pin is unknown.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PinsError {
    /// The key must not follow the pinned one.
    #[error("{reason}")]
    Refused {
        /// The violated rule.
        reason: PinError,
        /// The pin's file, if it is kept in one.
        pin: Option<PathBuf>,
    },
    /// The pin cannot be read.
    #[error("the record of the receiver's key, {}, cannot be read: {source}", path.display())]
    Unreadable {
        /// The pin's file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The pin cannot be written.
    #[error(transparent)]
    Unwritable(#[from] FileError),
    /// Another process may be about to change the pin.
    #[error("which keys were believed before is not known: {0}")]
    Locked(#[from] LockError),
}

ciphermq_protocol::debug_as_report!(PinsError);

impl PinsError {
    /// Returns what to do, for a person who sends to `receiver`.
    #[must_use]
    pub fn advice(&self, receiver: &ClientId) -> String {
        match self {
            Self::Refused { reason, pin } => refusal_advice(receiver, reason, pin.as_deref()),
            Self::Unreadable { .. } => "Check that it is a file that you may read. If it is \
                                        damaged, restore it from a backup: without it an older key \
                                        could be handed out unnoticed. Another folder is chosen \
                                        with --pins."
                .to_owned(),
            Self::Unwritable(_) | Self::Locked(LockError::Unusable { .. }) => "It is kept which \
                keys of receivers were believed, beside --ca by default. Check that the folder is \
                there and that you may write to it, or choose another one with --pins."
                .to_owned(),
            Self::Locked(error) => format!(
                "{} Another folder is chosen with \
                                            --pins.",
                error.advice()
            ),
        }
    }
}

fn refusal_advice(receiver: &ClientId, reason: &PinError, pin: Option<&Path>) -> String {
    let anew = format!(
        "start the receiver `{receiver}` again, or run `ciphermq-cli register-key` as \
         `{receiver}`, and it registers its key anew"
    );
    let remove = |when: &str| {
        pin.map_or_else(String::new, |pin| {
            format!(
                " {when} may remove the record of what was believed before, {}.",
                pin.display()
            )
        })
    };
    match reason {
        PinError::Older { pinned, .. } => {
            // The receiver's own record and its clock keep its epochs growing.
            let above = if *pinned <= HIGHEST_ABOVE {
                format!(
                    " If that does not help, the receiver has lost its record of what it has \
                     signed: `ciphermq-cli register-key --above {pinned}` goes beyond it."
                )
            } else {
                String::new()
            };
            format!(
                "The server may have been set back to an older state, or have got another \
                 database: {anew}, above all that it has signed.{above} If it is the server that \
                 hands out old keys, nothing of this helps.{}",
                remove("Who knows why the key is older")
            )
        }
        PinError::OtherKeys(_) => {
            format!(
                "Two copies of the receiver have different keys. Let them have the same: then \
                 {anew}."
            )
        }
        PinError::NoLongerSigned => format!(
            "The server may have been set back to an older state, or have got another database: \
             {anew}, and signs it, if its certificate can sign. If the server hides the signed \
             key, that does not help.{}",
            remove("Who knows that the receiver cannot sign any more")
        ),
        PinError::Changed => format!(
            "Compare the fingerprint that `ciphermq-cli get-key {receiver}` shows with the \
             receiver's own, by another way.{}",
            remove("If it is right, you")
        ),
        _ => format!("Look at `ciphermq-cli verify-key {receiver}`."),
    }
}

impl Pins {
    pub(crate) fn new(folder: Option<PathBuf>) -> Self {
        match folder {
            None => Self::Memory(Arc::default()),
            Some(folder) => Self::Folder {
                folder,
                turn: Arc::default(),
            },
        }
    }

    /// Pins a key if it may follow the pinned one.
    pub(crate) async fn accept(&self, receiver: &ClientId, offered: &Pin) -> Result<(), PinsError> {
        let (folder, turn) = match self {
            Self::Memory(pins) => {
                let mut pins = pins.lock();
                compare(pins.get(receiver), offered, None)?;
                pins.insert(receiver.clone(), offered.clone());
                return Ok(());
            }
            Self::Folder { folder, turn } => (folder, turn),
        };
        // A key that is already pinned needs neither a lock nor a writable folder.
        if self.check(receiver, offered).await? == Some(Pinned) {
            return Ok(());
        }
        let _turn = timeout(MAX_WAIT, turn.lock())
            .await
            .map_err(|_| LockError::Held {
                path: folder.clone(),
                limit: MAX_WAIT,
            })?;
        let (folder, receiver, offered) = (folder.clone(), receiver.clone(), offered.clone());
        blocking(move || pin(&folder, &receiver, &offered, MAX_WAIT)).await
    }

    /// Checks that a key may follow the pinned one; returns [`Pinned`] if it is the pinned one.
    pub(crate) async fn check(
        &self,
        receiver: &ClientId,
        offered: &Pin,
    ) -> Result<Option<Pinned>, PinsError> {
        match self {
            Self::Memory(pins) => {
                let pins = pins.lock();
                compare(pins.get(receiver), offered, None)
            }
            Self::Folder { folder, .. } => {
                let (folder, receiver, offered) =
                    (folder.clone(), receiver.clone(), offered.clone());
                blocking(move || compare_found(&find(&folder, &receiver)?, &offered)).await
            }
        }
    }
}

/// Marks a key that is already pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pinned;

fn compare(
    pinned: Option<&Pin>,
    offered: &Pin,
    path: Option<&Path>,
) -> Result<Option<Pinned>, PinsError> {
    Pin::accept(pinned, offered).map_err(|reason| PinsError::Refused {
        reason,
        pin: path.map(Path::to_owned),
    })?;
    Ok((pinned == Some(offered)).then_some(Pinned))
}

/// Compares with a pin in a file. What is pinned is durable then: the process that wrote the pin
/// may have been killed before it synced the name.
fn compare_found(found: &Found, offered: &Pin) -> Result<Option<Pinned>, PinsError> {
    let pinned = compare(found.pin.as_ref(), offered, Some(&found.path))?;
    if pinned.is_some() {
        sync_found_name(&found.path).map_err(|source| FileError::Io {
            path: found.path.clone(),
            source,
        })?;
    }
    Ok(pinned)
}

impl From<NotEnded> for PinsError {
    fn from(error: NotEnded) -> Self {
        Self::Unreadable {
            path: PathBuf::new(),
            source: io::Error::other(error.to_string()),
        }
    }
}

/// Reads and writes under the lock: two senders with two pins would otherwise lose the newer one.
fn pin(
    folder: &Path,
    receiver: &ClientId,
    offered: &Pin,
    max_wait: Duration,
) -> Result<(), PinsError> {
    let _lock = FolderLock::wait(folder, max_wait)?;
    if compare_found(&find(folder, receiver)?, offered)? == Some(Pinned) {
        return Ok(());
    }
    let path = client_file(folder, receiver, END);
    let mut json = serde_json::to_vec(offered).map_err(|error| PinsError::Unreadable {
        path: path.clone(),
        source: error.into(),
    })?;
    json.push(b'\n');
    ciphermq_files::write(path, &json, Access::Public, Existing::Replace)?;
    Ok(())
}

/// A receiver's pin, and the path where it is or would be stored.
struct Found {
    pin: Option<Pin>,
    path: PathBuf,
}

/// Finds the receiver's pin, at its current path or where an earlier version stored it.
fn find(folder: &Path, receiver: &ClientId) -> Result<Found, PinsError> {
    let path = client_file(folder, receiver, END);
    let pin = read(&path)?;
    if pin.is_none()
        && let Some(former) = legacy_client_file(folder, receiver, END)
        && let pin @ Some(_) = read(&former)?
    {
        return Ok(Found { pin, path: former });
    }
    Ok(Found { pin, path })
}

fn read(path: &Path) -> Result<Option<Pin>, PinsError> {
    let unreadable = |source| PinsError::Unreadable {
        path: path.to_owned(),
        source,
    };
    match read_file(path, MAX_BYTES) {
        // An unreadable pin is not treated as a missing one: it may be a newer version's, or
        // damaged on purpose.
        Ok(json) => Ok(Some(
            serde_json::from_slice(&json).map_err(|error| unreadable(not_the_json(&error)))?,
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error)),
    }
}

#[cfg(test)]
mod tests;
