//! The cipher of payloads, and the header that it authenticates.
//!
//! ```text
//!   ciphertext, tag = AES-256-GCM(session key, nonce, payload, AAD)       NIST SP 800-38D
//!   AAD             = each of these fields, its length before it (32 bits, big-endian):
//!                     "CipherMQ message 1", suite, message_id, sender_client_id, receiver_client_id,
//!                     receiver_key_id, exchange, routing_key, sent_time,
//!                     SHA-256 of the bytes of enc_session_key, content_type, session_time
//! ```
//!
//! Every field is authenticated as the text that the envelope has. The envelope, a JSON object,
//! need not be serialized again to be checked.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ciphermq_protocol::{ExchangeName, MessageId, RoutingKey};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::encoding::put_field;
use crate::suite::SessionKey;

pub(crate) const NONCE_BYTES: usize = 12;
pub(crate) const TAG_BYTES: usize = 16;

const DOMAIN: &[u8] = b"CipherMQ message 1";

/// The header of a message: authenticated, but not secret.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// The message's unique id.
    pub message_id: &'a MessageId,
    /// The exchange of the publication.
    pub exchange: &'a ExchangeName,
    /// The routing key of the publication.
    pub routing_key: &'a RoutingKey,
    /// The payload's media type, for example `text/plain` or `application/json`.
    pub content_type: &'a str,
    /// The time of sealing by the sender's clock; written with milliseconds.
    pub sent_time: Timestamp,
}

/// The authenticated fields, as the envelope's texts.
pub(crate) struct AuthenticatedFields<'a> {
    pub(crate) suite: &'a str,
    pub(crate) message_id: &'a str,
    pub(crate) sender: &'a str,
    pub(crate) receiver: &'a str,
    pub(crate) receiver_key_id: &'a str,
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    pub(crate) sent_time: &'a str,
    pub(crate) enc_session_key_hash: &'a [u8; 32],
    pub(crate) content_type: &'a str,
    pub(crate) session_time: &'a str,
}

impl AuthenticatedFields<'_> {
    /// Writes the additional authenticated data to `out`, replacing its contents.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        put_field(out, DOMAIN);
        put_field(out, self.suite.as_bytes());
        put_field(out, self.message_id.as_bytes());
        put_field(out, self.sender.as_bytes());
        put_field(out, self.receiver.as_bytes());
        put_field(out, self.receiver_key_id.as_bytes());
        put_field(out, self.exchange.as_bytes());
        put_field(out, self.routing_key.as_bytes());
        put_field(out, self.sent_time.as_bytes());
        put_field(out, self.enc_session_key_hash);
        put_field(out, self.content_type.as_bytes());
        put_field(out, self.session_time.as_bytes());
    }
}

pub(crate) fn hash(enc_session_key: &[u8]) -> [u8; 32] {
    Sha256::digest(enc_session_key).into()
}

/// AES-256-GCM with one session key, which is wiped on drop.
pub(crate) struct PayloadCipher(LessSafeKey);

impl PayloadCipher {
    pub(crate) fn new(key: &SessionKey) -> Self {
        // A key of another length is the only error.
        #[expect(clippy::expect_used, reason = "a session key has the cipher's length")]
        let key = UnboundKey::new(&AES_256_GCM, &**key).expect("a key of 32 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Seals `payload` in place; `None` if it is longer than the cipher allows.
    pub(crate) fn seal(
        &self,
        nonce: [u8; NONCE_BYTES],
        aad: &[u8],
        payload: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), payload)
            .ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Opens a ciphertext; `None` if anything was altered.
    pub(crate) fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        aad: &[u8],
        ciphertext: &[u8],
        tag: [u8; TAG_BYTES],
    ) -> Option<Vec<u8>> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let mut payload = vec![0; ciphertext.len()];
        self.0
            .open_separate_gather(nonce, Aad::from(aad), ciphertext, &tag, &mut payload)
            .ok()?;
        Some(payload)
    }
}
