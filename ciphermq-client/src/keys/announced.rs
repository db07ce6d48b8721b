//! The record of this client's announcements, which keeps each new signed key above all earlier
//! ones.
//!
//! The server's word is not enough for that: its database may have been restored from a backup, or
//! be another one, while senders remember what they have seen.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ciphermq_crypto::signed_key::{AnnouncementError, OwnSignedKey, stated_key_ids};
use ciphermq_crypto::{Announcement, Authority, Identity, Keyring, RecipientKey};
use ciphermq_files::{Access, Existing, FileError, read_file};
use ciphermq_protocol::ClientId;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::lock::{FolderLock, MAX_WAIT};
use super::names::client_file;
use super::not_the_json;
use super::registration::{AnnounceError, NotRecorded, Registration};

/// Suffix of a record's file name, after the client's name.
const END: &str = "_announced.json";
/// Size limit of a record: a signed key has at most 64 KiB.
const MAX_BYTES: u64 = 256 * 1024;

/// The last announcement of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Announced {
    pub(super) client_id: ClientId,
    /// The highest epoch that was signed.
    pub(super) epoch: u64,
    /// The signed key with that epoch.
    pub(super) signed_key: String,
}

/// The relevant fields of a record. Its `epoch` is for people: a typing error or damage could raise
/// it to the highest one, so the epoch is taken from the signed key.
#[derive(Deserialize)]
struct Record {
    client_id: ClientId,
    signed_key: String,
}

/// A client's announcements: the last one, and how long new ones are valid.
#[derive(Debug, Clone)]
pub(crate) struct Announcements {
    place: Place,
    lifetime: Duration,
}

/// Storage of the last announcement: in memory, or in `<client>_announced.json` in a folder,
/// readable by its owner alone.
#[derive(Debug, Clone)]
enum Place {
    Memory(Arc<Mutex<Option<Announced>>>),
    Folder(PathBuf),
}

/// A new announcement, signed.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) announced: Announced,
    pub(super) not_recorded: Option<NotRecorded>,
}

impl Announced {
    /// Returns the announcement of a registration, if it was signed.
    pub(crate) fn of(registration: &Registration) -> Option<Self> {
        Some(Self {
            client_id: registration.client.clone(),
            epoch: registration.epoch?,
            signed_key: registration.signed_key.clone()?,
        })
    }
}

impl Announcements {
    pub(crate) fn new(folder: Option<PathBuf>, lifetime: Duration) -> Self {
        let in_memory = || Place::Memory(Arc::default());
        Self {
            place: folder.map_or_else(in_memory, Place::Folder),
            lifetime,
        }
    }

    /// Returns how long new announcements are valid.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Returns the recorded announcement of this client, if it can be read and the client has
    /// signed it. Blocks.
    pub(super) fn last(&self, identity: &Identity, authority: &Authority) -> Option<Announced> {
        match &self.place {
            Place::Memory(last) => last.lock().clone(),
            Place::Folder(folder) => {
                let path = client_file(folder, identity.client_id(), END);
                read(&path, identity, authority).ok().flatten()
            }
        }
    }

    /// Signs these keys with an epoch above all recorded ones, above `floor`, and not before `now`;
    /// records it before anybody sees it. Blocks.
    ///
    /// A record that cannot be kept does not prevent the announcement: the clock advances, and the
    /// server remembers, too.
    ///
    /// # Errors
    ///
    /// [`AnnounceError`]: `Sign`, `NoHigherEpoch`.
    pub(super) fn sign(
        &self,
        identity: &Identity,
        authority: &Authority,
        keys: Vec<RecipientKey>,
        floor: Option<u64>,
        now: Timestamp,
    ) -> Result<Signed, AnnounceError> {
        let sign = |last: Option<&Announced>| {
            let floor = floor.max(last.map(|last| last.epoch));
            announce(identity, keys, floor, self.lifetime, now)
        };
        match &self.place {
            Place::Memory(last) => {
                let mut last = last.lock();
                let announced = sign(last.as_ref())?;
                *last = Some(announced.clone());
                Ok(Signed {
                    announced,
                    not_recorded: None,
                })
            }
            Place::Folder(folder) => {
                // Two processes that announce at once must not sign with the same epoch.
                let lock = FolderLock::wait(folder, MAX_WAIT);
                let path = client_file(folder, identity.client_id(), END);
                let last = read(&path, identity, authority);
                let known = last.as_ref().ok().and_then(Option::as_ref);
                let announced = sign(known).map_err(|error| match error {
                    AnnounceError::NoHigherEpoch { .. } => AnnounceError::NoHigherEpoch {
                        record: known
                            .is_some_and(|last| last.epoch == u64::MAX)
                            .then(|| path.clone()),
                    },
                    error => error,
                })?;
                let written = write(path.clone(), &announced);
                let not_recorded = match (written, lock, last) {
                    (Err(error), ..) => Some(NotRecorded::Unwritable(Arc::new(error))),
                    (_, Err(error), _) => Some(NotRecorded::Locked(Arc::new(error))),
                    (.., Err(error)) => Some(NotRecorded::Unreadable {
                        path,
                        source: Arc::new(error),
                    }),
                    _ => None,
                };
                Ok(Signed {
                    announced,
                    not_recorded,
                })
            }
        }
    }

    /// Records an announcement of another process of this client, if it is the highest one. Blocks.
    pub(super) fn learn(&self, identity: &Identity, authority: &Authority, announced: Announced) {
        match &self.place {
            Place::Memory(last) => {
                let mut last = last.lock();
                if last
                    .as_ref()
                    .is_none_or(|last| last.epoch < announced.epoch)
                {
                    *last = Some(announced);
                }
            }
            Place::Folder(folder) => {
                let Ok(_lock) = FolderLock::wait(folder, MAX_WAIT) else {
                    return;
                };
                let path = client_file(folder, &announced.client_id, END);
                let last = read(&path, identity, authority).ok().flatten();
                if last.is_none_or(|last| last.epoch < announced.epoch) {
                    // The server already has it; the record is a second copy.
                    let _ = write(path, &announced);
                }
            }
        }
    }
}

/// Returns the clients that have announced a key of this keyring, according to the records in the
/// folder of its private keys. For unreadable records see [`unreadable_announcement`]. Blocks.
#[must_use]
pub fn announced_by(folder: &Path, keyring: &Keyring) -> BTreeSet<ClientId> {
    records(folder)
        .filter_map(|path| read_record(&path).ok().flatten())
        .filter(|record| {
            let keys = stated_key_ids(&record.signed_key);
            keys.iter().any(|key| keyring.contains(*key))
        })
        .map(|record| record.client_id)
        .collect()
}

/// Returns a record in the folder that cannot be read and is not this client's: another client may
/// have announced the keys there. Blocks.
#[must_use]
pub fn unreadable_announcement(folder: &Path, client: &ClientId) -> Option<PathBuf> {
    let own = client_file(folder, client, END);
    records(folder).find(|path| *path != own && read_record(path).is_err())
}

/// Returns the records in a folder, whether they can be read or not.
fn records(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).ok().into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.as_os_str()
                .as_encoded_bytes()
                .ends_with(END.as_bytes())
        })
}

fn announce(
    identity: &Identity,
    keys: Vec<RecipientKey>,
    last: Option<u64>,
    lifetime: Duration,
    now: Timestamp,
) -> Result<Announced, AnnounceError> {
    if last == Some(u64::MAX) {
        return Err(AnnounceError::NoHigherEpoch { record: None });
    }
    let announcement = Announcement::new(identity, keys, now, lifetime, last);
    let signed_key = announcement
        .sign(identity)
        .map_err(|error: AnnouncementError| AnnounceError::Sign(error))?;
    Ok(Announced {
        client_id: announcement.client_id,
        epoch: announcement.epoch,
        signed_key,
    })
}

/// Reads the record of the client that `identity` names; `None` if there is none.
///
/// A signed key that the client has not signed itself is an error: nothing is signed above an epoch
/// that somebody else has put there.
fn read(path: &Path, identity: &Identity, authority: &Authority) -> io::Result<Option<Announced>> {
    let Some(record) = read_record(path)? else {
        return Ok(None);
    };
    if record.client_id != *identity.client_id() {
        return Err(io::Error::other(format!("it is of `{}`", record.client_id)));
    }
    let own = OwnSignedKey::read(&record.signed_key, identity, authority, Timestamp::now());
    let own = own.ok_or_else(|| {
        io::Error::other(
            "this client has not signed the key in it, with this certificate's authority",
        )
    })?;
    Ok(Some(Announced {
        client_id: record.client_id,
        epoch: own.epoch,
        signed_key: record.signed_key,
    }))
}

/// Reads a record without verifying it; `None` if there is none.
fn read_record(path: &Path) -> io::Result<Option<Record>> {
    let json = match read_file(path, MAX_BYTES) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|error| not_the_json(&error))
}

fn write(path: PathBuf, announced: &Announced) -> Result<(), FileError> {
    let mut json = serde_json::to_vec(announced).map_err(|error| FileError::Io {
        path: path.clone(),
        source: error.into(),
    })?;
    json.push(b'\n');
    ciphermq_files::write(path, &json, Access::Private, Existing::Replace)
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::SIGNED_KEY_LIFETIME;
    use ciphermq_crypto::{PrivateKey, PublicKey};
    use rustls_pki_types::PrivatePkcs8KeyDer;
    use std::os::unix::fs::PermissionsExt as _;

    /// Returns an authority without certificates: a client's own signature is enough here.
    fn authority() -> Authority {
        Authority::nobody()
    }

    fn record_in(folder: Option<PathBuf>) -> Announcements {
        Announcements::new(folder, SIGNED_KEY_LIFETIME)
    }

    fn announce_now(
        identity: &Identity,
        keys: Vec<RecipientKey>,
        last: Option<u64>,
        now: Timestamp,
    ) -> Result<Announced, AnnounceError> {
        announce(identity, keys, last, SIGNED_KEY_LIFETIME, now)
    }

    fn identity() -> Identity {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "receiver_1");
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Identity::new(vec![certificate.der().clone()], &key).unwrap()
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn keys() -> Vec<RecipientKey> {
        vec![PublicKey::from_bytes([7; 32]).into()]
    }

    const NOW: i64 = 1_800_000_000_000;

    #[test]
    fn epochs_grow_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let identity = identity();
        for place in [None, Some(folder.path().to_owned())] {
            let announcements = record_in(place.clone());
            let sign = |floor, now| {
                let signed = announcements
                    .sign(&identity, &authority(), keys(), floor, at(now))
                    .unwrap();
                assert!(signed.not_recorded.is_none());
                signed.announced.epoch
            };
            let now = NOW.unsigned_abs();
            assert_eq!(sign(None, NOW), now);
            assert_eq!(sign(None, NOW), now + 1);
            assert_eq!(sign(Some(now), NOW + 5), now + 5);
            assert_eq!(sign(Some(now + 90), NOW + 6), now + 91);
            // The server's database and the clock were both set back.
            assert_eq!(sign(Some(1), NOW - 1000), now + 92);
            let again = place.map(|folder| record_in(Some(folder)));
            let last = again
                .as_ref()
                .unwrap_or(&announcements)
                .last(&identity, &authority())
                .unwrap();
            assert_eq!(last.epoch, now + 92);
        }
        let record = folder.path().join("receiver_1_announced.json");
        assert_eq!(
            fs::metadata(record).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn no_epoch_follows_the_highest() {
        let announcements = record_in(None);
        let sign =
            |floor| announcements.sign(&identity(), &authority(), keys(), Some(floor), at(NOW));
        let signed = sign(u64::MAX - 1).unwrap();
        assert_eq!(signed.announced.epoch, u64::MAX);
        for floor in [0, u64::MAX] {
            let error = sign(floor).unwrap_err();
            let AnnounceError::NoHigherEpoch { record: None } = error else {
                panic!("{error}");
            };
        }
    }

    #[test]
    fn an_unwritable_record_is_reported_and_blocks_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let identity = identity();
        let missing = record_in(Some(folder.path().join("missing")));
        let signed = missing
            .sign(&identity, &authority(), keys(), Some(7), at(NOW))
            .unwrap();
        assert!(matches!(
            signed.not_recorded,
            Some(NotRecorded::Unwritable(_))
        ));
        let record = folder.path().join("receiver_1_announced.json");
        for damage in [
            "",
            "{}",
            "{\"client_id\":\"other\",\"epoch\":1,\"signed_key\":\"\"}",
        ] {
            fs::write(&record, damage).unwrap();
            let announcements = record_in(Some(folder.path().to_owned()));
            let signed = announcements
                .sign(&identity, &authority(), keys(), None, at(NOW))
                .unwrap();
            assert!(matches!(
                signed.not_recorded,
                Some(NotRecorded::Unreadable { .. })
            ));
            assert_eq!(
                announcements.last(&identity, &authority()),
                Some(signed.announced)
            );
        }
    }

    #[test]
    fn newer_announcements_of_other_processes_are_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let identity = identity();
        let announcements = record_in(Some(folder.path().to_owned()));
        let of = |epoch: u64| announce_now(&identity, keys(), Some(epoch - 1), at(0)).unwrap();
        for (epoch, last) in [(5, 5), (9, 9), (7, 9)] {
            announcements.learn(&identity, &authority(), of(epoch));
            let learned = announcements.last(&identity, &authority()).unwrap();
            assert_eq!(learned.epoch, last);
        }
    }

    #[test]
    fn the_epoch_is_that_of_the_signed_key_whatever_the_record_says() {
        let folder = tempfile::tempdir().unwrap();
        let identity = identity();
        let announcements = record_in(Some(folder.path().to_owned()));
        let sign = || announcements.sign(&identity, &authority(), keys(), None, at(NOW));
        let first = sign().unwrap().announced;
        let record = folder.path().join("receiver_1_announced.json");
        let kept = fs::read_to_string(&record).unwrap();
        let damaged = kept.replace(&first.epoch.to_string(), &u64::MAX.to_string());
        assert_ne!(damaged, kept);
        fs::write(&record, damaged).unwrap();
        let second = sign().unwrap();
        assert!(second.not_recorded.is_none());
        assert_eq!(second.announced.epoch, first.epoch + 1);
        // Neither an unsigned text counts, nor a key that somebody else has signed.
        let stranger = announce_now(&self::identity(), keys(), Some(u64::MAX - 1), at(NOW));
        for signed_key in ["x".to_owned(), stranger.unwrap().signed_key] {
            let json = serde_json::json!({
                "client_id": "receiver_1", "epoch": u64::MAX, "signed_key": signed_key,
            });
            fs::write(&record, json.to_string()).unwrap();
            let signed = sign().unwrap();
            assert_eq!(signed.announced.epoch, NOW.unsigned_abs());
            let Some(NotRecorded::Unreadable { path, .. }) = signed.not_recorded else {
                panic!("{signed_key}");
            };
            assert_eq!(path, record);
        }
        // No epoch follows a signed highest one: the advice names the record.
        let highest = announce_now(&identity, keys(), Some(u64::MAX - 1), at(NOW)).unwrap();
        fs::write(&record, serde_json::to_string(&highest).unwrap()).unwrap();
        let error = sign().unwrap_err();
        assert!(
            error.advice().contains(record.to_str().unwrap()),
            "{error:?}"
        );
    }

    #[test]
    fn clients_that_announced_a_key_are_found_by_their_records() {
        let folder = tempfile::tempdir().unwrap();
        let key = || PrivateKey::from_bytes(&[7; 32]);
        let announcements = record_in(Some(folder.path().to_owned()));
        let keys = vec![(*key().public_key()).into()];
        announcements
            .sign(&identity(), &authority(), keys, None, at(NOW))
            .unwrap();
        let receiver = ClientId::new("receiver_1").unwrap();
        assert_eq!(unreadable_announcement(folder.path(), &receiver), None);
        let damaged = folder.path().join("other_announced.json");
        fs::write(&damaged, "{}").unwrap();
        assert_eq!(
            unreadable_announcement(folder.path(), &receiver),
            Some(damaged)
        );
        let other = ClientId::new("other").unwrap();
        assert_eq!(unreadable_announcement(folder.path(), &other), None);
        assert_eq!(
            announced_by(folder.path(), &Keyring::new(key())),
            [receiver].into()
        );
        let another = Keyring::new(PrivateKey::from_bytes(&[8; 32]));
        assert!(announced_by(folder.path(), &another).is_empty());
    }

    #[test]
    fn errors_do_not_quote_the_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receiver_1_announced.json");
        for text in ["12345678", "\"a secret\"", "{\"client_id\":[\"a secret\"]}"] {
            fs::write(&path, text).unwrap();
            let error = read(&path, &identity(), &authority())
                .unwrap_err()
                .to_string();
            assert!(
                !error.contains("123") && !error.contains("secret"),
                "{error}"
            );
        }
    }
}
