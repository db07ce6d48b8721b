//! This client's own keys, signed.

use std::time::Duration;

use ciphermq_crypto::signed_key::AnnouncementError;
use ciphermq_crypto::{Announcement, Keyring, signed_key};
use jiff::Timestamp;

use crate::client::Client;
use crate::error::{RequestError, RequestErrorKind};

/// How long announced keys are good for, at most as long as the certificate that signs them: long enough for a receiver
/// that is away for months, since nobody can send to it any more after that.
pub const ANNOUNCEMENT_VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why this client's keys were not announced.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The server did not answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The certificate cannot sign them.
    #[error("the keys cannot be signed: {0}")]
    Sign(#[from] AnnouncementError),
}

ciphermq_protocol::debug_as_report!(AnnounceError);

/// The signed key to register for a keyring: the one that the server has, if it says the same and is good for long
/// enough, else a new one, of a higher epoch. `None` if this client's certificate cannot sign (an RSA key).
pub(crate) async fn announcement(
    client: &Client,
    keyring: &Keyring,
) -> Result<Option<String>, AnnounceError> {
    let inner = client.inner();
    let Some(identity) = inner.identity.as_deref() else {
        return Ok(None);
    };
    let now = Timestamp::now();
    let known = match client.signed_key(client.id()).await {
        Ok(known) => known,
        // An older server keeps bare keys only.
        Err(error) if error.kind() == RequestErrorKind::Unsupported => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let keys = keyring.recipient_keys();
    let mut after = None;
    if let Some(text) = known
        && let Ok(verified) = signed_key::verify(&text, client.id(), inner.keys.authority(), now)
    {
        let announced = &verified.announcement;
        let is_good_for_long = announced.not_after == identity.not_after()
            || announced.not_after.duration_since(now).unsigned_abs() > ANNOUNCEMENT_VALIDITY / 2;
        let is_ours = verified.certificate.fingerprint() == identity.fingerprint() && announced.keys == keys;
        if is_ours && is_good_for_long {
            return Ok(Some(text));
        }
        if !announced.keys.iter().any(|key| keyring.holds(key.key_id())) {
            tracing::warn!(
                client = %client.id(),
                "the server has keys of this client that are not in its keyring: what was sealed for them cannot be opened here"
            );
        }
        after = Some(announced.epoch);
    }
    let announcement = Announcement::new(identity, keys, now, ANNOUNCEMENT_VALIDITY, after);
    Ok(Some(announcement.sign(identity)?))
}
