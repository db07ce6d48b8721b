//! What was believed of receivers' keys before, so that nobody can make us go back behind it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ciphermq_crypto::{Pin, PinError};
use ciphermq_files::{Access, Existing, FileError};
use ciphermq_protocol::ClientId;
use tokio::time::timeout;

use super::announced::HIGHEST_ABOVE;
use super::lock::{FolderLock, LockError, PATIENCE};
use super::names::{client_file, former_client_file};
use super::not_the_json;

/// What follows the receiver's name in the name of its pin's file.
const END: &str = "_public.pin.json";
/// More than any pin has.
const MAX_BYTES: u64 = 64 * 1024;

/// The pins of all receivers that were sent to: in memory, or a file each in a folder,
/// `<receiver>_public.pin.json`, beside the record of the key itself.
#[derive(Debug, Clone)]
pub(crate) enum Pins {
    Memory(Arc<Mutex<HashMap<ClientId, Pin>>>),
    Folder {
        folder: PathBuf,
        /// Of the tasks of this process one waits for the folder's lock; the others wait here, and
        /// block no thread.
        turn: Arc<tokio::sync::Mutex<()>>,
    },
}

/// Why a key is not taken after what was believed before, or what was believed cannot be found out.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum PinsError {
    /// It must not follow what is pinned.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: PinError,
        /// The file with the pin, if it is kept in one.
        pin: Option<PathBuf>,
    },
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
    /// Another process may be about to change the pin.
    #[error("which keys were believed before is not known: {0}")]
    Locked(#[from] LockError),
}

ciphermq_protocol::debug_as_report!(PinsError);

impl PinsError {
    /// What to do, for somebody who sends to `receiver`.
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
            // Its own record, and its clock, are what the receiver goes beyond.
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

    /// Pins what is offered, if it may follow what is pinned.
    pub(crate) async fn accept(&self, receiver: &ClientId, offered: &Pin) -> Result<(), PinsError> {
        let (folder, turn) = match self {
            Self::Memory(pins) => {
                let mut pins = pins.lock().unwrap_or_else(PoisonError::into_inner);
                judge(pins.get(receiver), offered, None)?;
                pins.insert(receiver.clone(), offered.clone());
                return Ok(());
            }
            Self::Folder { folder, turn } => (folder, turn),
        };
        // What is pinned already needs no lock, nor a folder that can be written.
        if self.check(receiver, offered).await? == Some(Pinned) {
            return Ok(());
        }
        let _turn = timeout(PATIENCE, turn.lock())
            .await
            .map_err(|_| LockError::Held {
                path: folder.clone(),
                limit: PATIENCE,
            })?;
        let (folder, receiver, offered) = (folder.clone(), receiver.clone(), offered.clone());
        blocking(move || pin(&folder, &receiver, &offered, PATIENCE)).await
    }

    /// Whether what is offered may follow what is pinned; if so, whether it is what is pinned.
    pub(crate) async fn check(
        &self,
        receiver: &ClientId,
        offered: &Pin,
    ) -> Result<Option<Pinned>, PinsError> {
        match self {
            Self::Memory(pins) => {
                let pins = pins.lock().unwrap_or_else(PoisonError::into_inner);
                judge(pins.get(receiver), offered, None)
            }
            Self::Folder { folder, .. } => {
                let (folder, receiver, offered) =
                    (folder.clone(), receiver.clone(), offered.clone());
                blocking(move || {
                    let found = find(&folder, &receiver)?;
                    judge(found.pin.as_ref(), &offered, Some(&found.path))
                })
                .await
            }
        }
    }
}

/// What is offered is what is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pinned;

fn judge(
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

/// Runs what waits for a disk, or a lock, on a thread where that holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, PinsError> + Send + 'static,
) -> Result<T, PinsError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            Err(PinsError::Unreadable {
                path: PathBuf::new(),
                source: io::Error::other(error),
            })
        })
}

/// Between reading and writing nobody else may write: two senders with two pins would lose the
/// newer one.
fn pin(
    folder: &Path,
    receiver: &ClientId,
    offered: &Pin,
    patience: Duration,
) -> Result<(), PinsError> {
    let _lock = FolderLock::wait(folder, patience)?;
    let found = find(folder, receiver)?;
    if judge(found.pin.as_ref(), offered, Some(&found.path))? == Some(Pinned) {
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

/// A receiver's pin, and where it stands or would stand.
struct Found {
    pin: Option<Pin>,
    path: PathBuf,
}

/// The receiver's pin, if there is one: where it stands now, or where an earlier version has left
/// it.
fn find(folder: &Path, receiver: &ClientId) -> Result<Found, PinsError> {
    let path = client_file(folder, receiver, END);
    let pin = read(&path)?;
    if pin.is_none()
        && let Some(former) = former_client_file(folder, receiver, END)
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
    match read_file(path) {
        // What cannot be read is not taken for nothing: it may be a newer version's, or damaged on
        // purpose.
        Ok(json) => Ok(Some(
            serde_json::from_slice(&json).map_err(|error| unreadable(not_the_json(&error)))?,
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error)),
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for whoever writes into it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "pins_tests.rs"]
mod tests;
