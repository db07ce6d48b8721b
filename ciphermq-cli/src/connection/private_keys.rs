//! The private keys that open messages, and whether another client's is among them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ciphermq_client::text::shown;
use ciphermq_client::{Client, ClientId, ClientIdFrom, Keyring, PrivateKey, keys};
use ciphermq_files::{is_same_file, parent};

use super::{ConnectionSettings, Identity, PRIVATE_KEY};
use crate::console;
use crate::exit::{Failure, key_file_failure};

impl ConnectionSettings {
    /// Reads the private keys. The first one is the current one; the X-Wing key beside it, and
    /// older keys that `keygen rotate` has kept there, belong to it.
    ///
    /// # Errors
    ///
    /// [`Failure`] if a file cannot be read, is not private, or holds no key; or if the key was not
    /// named explicitly and belongs to another client.
    pub(crate) fn keyring(&self) -> Result<Keyring, Failure> {
        let (newest, older) = &self.private_keys;
        if self.needs_own_private_key && !newest.exists() {
            return Err(self.no_private_key(newest));
        }
        let keyring = keys::read_keyring(newest).map_err(key_file_failure)?;
        self.check_owner(&keyring)?;
        older.iter().try_fold(keyring, |keyring, path| {
            let key = read_private_key(path)?;
            self.check_older(path, &key);
            Ok(keyring.with_older(key))
        })
    }

    /// Refuses another client's private key: clients that share a private key can read each other's
    /// messages. Only warns if the key was named explicitly, or is this client's as well.
    fn check_owner(&self, keyring: &Keyring) -> Result<(), Failure> {
        let (newest, _) = &self.private_keys;
        let Some(client) = keys::client_id_of(&self.cert, self.client_id_from) else {
            return Ok(());
        };
        let private_key = shown(newest);
        let (others, is_own) = self.other_owners(&client, keyring);
        let may_share = is_own || self.is_private_key_named;
        match others {
            None => Ok(()),
            Some(Others::Clients(owners)) if may_share => {
                warn_shared(newest, &owners);
                Ok(())
            }
            Some(Others::Clients(owners)) => Err(Failure::new(
                format!(
                    "The private key {private_key} belongs to {}, and the certificate {} to the \
                     client {client}: each of them could read what is sent to the others.",
                    named(&owners),
                    shown(&self.cert)
                ),
                format!(
                    "Make a key for {client} in a folder of its own: ciphermq-cli keygen --out \
                     FOLDER, and name it: --private-key FOLDER/{}. To share the key on purpose, \
                     name it: --private-key {private_key}",
                    keys::PRIVATE_KEY_FILE
                ),
            )),
            Some(Others::Unreadable(record)) => {
                let doubt = format!(
                    "The private key {private_key} may be another client's: the record {} of what \
                     that has announced cannot be read",
                    shown(&record)
                );
                if may_share {
                    console::warning(doubt);
                    return Ok(());
                }
                Err(Failure::new(
                    format!("{doubt}."),
                    format!(
                        "Restore the record, or remove it if that client no longer exists. If the \
                         key is {client}'s, name it: --private-key {private_key}"
                    ),
                ))
            }
        }
    }

    /// The other owners of the private key, as far as the local files show, and whether this client
    /// is one of them, too.
    ///
    /// Whoever shares a key announces it, so this client's own record shows only that it has used
    /// the key, and hides no other owner.
    fn other_owners(&self, client: &ClientId, keyring: &Keyring) -> (Option<Others>, bool) {
        let (newest, _) = &self.private_keys;
        let default_cert = Path::new(Identity::Receiver.certificate());
        let mut owners = keys::announced_by(self.keys_folder(), keyring);
        let mut is_own = owners.remove(client);
        if is_same_file(newest, PRIVATE_KEY.as_ref()) {
            match keys::client_id_of(default_cert, self.client_id_from) {
                // The owner of the default key is known without an announcement.
                Some(owner) if owner != *client => {
                    owners.insert(owner);
                }
                // A second certificate confirms the owner: the default one was not replaced by
                // another client's.
                Some(_) if !is_same_file(&self.cert, default_cert) => is_own = true,
                _ => {}
            }
        }
        let others = if owners.is_empty() {
            keys::unreadable_announcement(self.keys_folder(), client).map(Others::Unreadable)
        } else {
            Some(Others::Clients(owners))
        };
        (others, is_own)
    }

    /// Warns if an older private key, which is always named, is another client's.
    fn check_older(&self, path: &Path, key: &PrivateKey) {
        let Some(client) = keys::client_id_of(&self.cert, self.client_id_from) else {
            return;
        };
        let mut owners = keys::announced_by(parent(path), &Keyring::new(key.clone()));
        owners.remove(&client);
        if !owners.is_empty() {
            warn_shared(path, &owners);
        }
    }

    /// The error if this client has no private key. Another client's is not used instead, because
    /// clients that share a private key can read each other's messages.
    fn no_private_key(&self, expected: &Path) -> Failure {
        let identity = Client::builder(&self.server)
            .ca_file(&self.ca)
            .identity_files(&self.cert, &self.key)
            .client_id_from(self.client_id_from);
        // The certificate names the client, so its errors are reported first.
        if let Err(error) = identity.check_identity() {
            return error.into();
        }
        let folder = expected
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        Failure::new(
            format!(
                "There is no private key for the client of {}: {} does not exist.",
                shown(&self.cert),
                shown(expected)
            ),
            format!(
                "Make one: ciphermq-cli keygen --out {}\nIf another file is this client's, name it \
                 with --private-key. {PRIVATE_KEY} is not used by default, because it is another \
                 client's.",
                shown(folder.unwrap_or(Path::new(".")))
            ),
        )
    }
}

/// Other clients that a private key belongs to.
enum Others {
    /// The clients that have announced the key.
    Clients(BTreeSet<ClientId>),
    /// Perhaps a client whose record, at this path, cannot be read.
    Unreadable(PathBuf),
}

fn warn_shared(private_key: &Path, owners: &BTreeSet<ClientId>) {
    console::warning(format_args!(
        "The private key {} is also that of {}: each of them can read what is sent to the others",
        shown(private_key),
        named(owners)
    ));
}

/// Names clients in a sentence.
fn named(clients: &BTreeSet<ClientId>) -> String {
    let names: Vec<&str> = clients.iter().map(AsRef::as_ref).collect();
    match names.len() {
        1 => format!("the client {}", names.concat()),
        _ => format!("the clients {}", names.join(", ")),
    }
}

/// Whether two files are certificates of the same client: the same path, or the same client id.
pub(super) fn is_same_client(one: &Path, other: &Path, from: ClientIdFrom) -> bool {
    if one == other {
        return true;
    }
    let client = keys::client_id_of(one, from);
    client.is_some() && client == keys::client_id_of(other, from)
}

fn read_private_key(path: &Path) -> Result<PrivateKey, Failure> {
    keys::read_private(path).map_err(key_file_failure)
}
