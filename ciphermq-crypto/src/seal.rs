//! The sender's side: sessions that seal envelopes for one receiver.

use std::fmt;

use bytes::Bytes;
use ciphermq_protocol::envelope::{EnvelopeBytes, Names, OwnPart};
use ciphermq_protocol::{ClientId, Envelope, ExchangeName, RoutingKey};
use jiff::Timestamp;
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::encoding::{format_time, put_base64, put_json};
use crate::error::SealError;
use crate::identity::Identity;
use crate::keys::RecipientKey;
use crate::payload::{AuthenticatedFields, Header, NONCE_BYTES, PayloadCipher, hash};
use crate::random;
use crate::sender::{Signature, SignedFields};
use crate::session::{MAX_MESSAGES, info_of, is_within_age};
use crate::suite::{SESSION_KEY_BYTES, SessionKey, Suite, seal_session_key};

/// A session of a sender with one receiver, which seals messages.
///
/// Its key is wiped on drop.
pub struct SendingSession {
    suite: Suite,
    sender: ClientId,
    receiver: ClientId,
    receiver_key_id: String,
    start: Timestamp,
    session_time: String,
    enc_session_key_hash: [u8; 32],
    cipher: PayloadCipher,
    sealed: u32,
    shared: SharedFields,
    aad: Vec<u8>,
    ciphertext: Vec<u8>,
}

/// The shared part of a session's envelopes: the end of the JSON object, after a message's own
/// fields.
struct SharedFields {
    /// The bytes up to the exchange.
    start: Vec<u8>,
    /// The bytes after the content type.
    end: Vec<u8>,
    /// The whole part for the last route and content type, which rarely change.
    last: Option<CachedShared>,
}

struct CachedShared {
    exchange: ExchangeName,
    routing_key: RoutingKey,
    content_type: String,
    bytes: Bytes,
}

impl SendingSession {
    /// Starts a session with a random session key, sealed for the receiver's key and signed by the
    /// sender.
    ///
    /// # Errors
    ///
    /// [`SealError::ReceiverKey`] if no secret can be agreed with that key, [`SealError::Random`],
    /// [`SealError::Sign`].
    pub fn start(
        sender: &Identity,
        receiver: &ClientId,
        key: &RecipientKey,
        now: Timestamp,
    ) -> Result<Self, SealError> {
        let start = SessionStart::fresh(sender.client_id(), receiver, key, now)?;
        let certificate = sender.fingerprint();
        let signature = sender.sign(&start.signed().bytes(certificate))?;
        Ok(start.session(Some(&Signature {
            certificate,
            signature,
        })))
    }

    /// Starts a session without a signature, for senders whose certificates' keys cannot sign.
    ///
    /// Anybody with the receiver's public key could have made it, so receivers refuse its messages
    /// unless they admit unverified senders.
    ///
    /// # Errors
    ///
    /// As [`SendingSession::start`].
    pub fn start_unsigned(
        sender: &ClientId,
        receiver: &ClientId,
        key: &RecipientKey,
        now: Timestamp,
    ) -> Result<Self, SealError> {
        Ok(SessionStart::fresh(sender, receiver, key, now)?.session(None))
    }

    /// Returns the suite of the session.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Returns whether the session cannot seal a message at `now`, so that a new one is needed.
    #[must_use]
    pub fn is_exhausted(&self, now: Timestamp) -> bool {
        self.sealed >= MAX_MESSAGES || !is_within_age(self.start, now)
    }

    /// Seals a payload into an envelope, with a random nonce.
    ///
    /// # Errors
    ///
    /// [`SealError::SessionExhausted`] if [`SendingSession::is_exhausted`] at the header's
    /// `sent_time`, [`SealError::PayloadTooLong`], [`SealError::Random`].
    pub fn seal(&mut self, header: &Header<'_>, payload: &[u8]) -> Result<Envelope, SealError> {
        if self.is_exhausted(header.sent_time) {
            return Err(SealError::SessionExhausted);
        }
        self.sealed += 1;
        let mut nonce = [0; NONCE_BYTES];
        random::fill(&mut nonce)?;
        self.seal_with_nonce(header, payload, nonce)
    }

    /// Seals with a given nonce and without limits, for reproducible test vectors.
    ///
    /// A nonce must never be used twice with the same session key.
    pub(crate) fn seal_with_nonce(
        &mut self,
        header: &Header<'_>,
        payload: &[u8],
        nonce: [u8; NONCE_BYTES],
    ) -> Result<Envelope, SealError> {
        let sent_time = format_time(header.sent_time);
        self.write_aad(header, &sent_time);
        self.ciphertext.clear();
        self.ciphertext.extend_from_slice(payload);
        let tag = self
            .cipher
            .seal(nonce, &self.aad, &mut self.ciphertext)
            .ok_or(SealError::PayloadTooLong)?;

        let shared = self.shared.bytes(header);
        let own = OwnPart {
            message_id: header.message_id,
            sent_time: &sent_time,
            nonce: &nonce,
            ciphertext: &self.ciphertext,
            tag: &tag,
        };
        let raw = match own.to_binary() {
            Some(own) => EnvelopeBytes::packed(own, shared),
            // An id with escapes.
            None => Bytes::from([&own.to_json()[..], &shared].concat()).into(),
        };
        let names = Names {
            message_id: header.message_id.clone(),
            receiver_client_id: self.receiver.clone(),
            sender_client_id: self.sender.clone(),
            exchange: header.exchange.clone(),
            routing_key: header.routing_key.clone(),
        };
        Ok(Envelope::from_parts(raw, names))
    }

    pub(crate) fn write_aad(&mut self, header: &Header<'_>, sent_time: &str) {
        AuthenticatedFields {
            suite: self.suite.as_str(),
            message_id: header.message_id.as_str(),
            sender: self.sender.as_str(),
            receiver: self.receiver.as_str(),
            receiver_key_id: &self.receiver_key_id,
            exchange: header.exchange.as_str(),
            routing_key: header.routing_key.as_str(),
            sent_time,
            enc_session_key_hash: &self.enc_session_key_hash,
            content_type: header.content_type,
            session_time: &self.session_time,
        }
        .write(&mut self.aad);
    }

    #[cfg(test)]
    pub(crate) fn last_aad(&self) -> &[u8] {
        &self.aad
    }
}

/// A session whose key is sealed, but which is not signed yet.
pub(crate) struct SessionStart<'a> {
    suite: Suite,
    sender: &'a ClientId,
    receiver: &'a ClientId,
    receiver_key_id: String,
    time: Timestamp,
    session_time: String,
    session_key: SessionKey,
    enc_session_key: Vec<u8>,
}

impl<'a> SessionStart<'a> {
    pub(crate) fn fresh(
        sender: &'a ClientId,
        receiver: &'a ClientId,
        key: &RecipientKey,
        now: Timestamp,
    ) -> Result<Self, SealError> {
        let mut session_key = Zeroizing::new([0; SESSION_KEY_BYTES]);
        random::fill(&mut *session_key)?;
        Self::with_key(
            sender,
            receiver,
            key,
            now,
            session_key,
            &mut random::generator()?,
        )
    }

    /// Starts a session with a given key and randomness, for reproducible test vectors.
    pub(crate) fn with_key(
        sender: &'a ClientId,
        receiver: &'a ClientId,
        key: &RecipientKey,
        now: Timestamp,
        session_key: SessionKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, SealError> {
        let info = info_of(key.suite(), sender, receiver, key.key_id(), now);
        let enc_session_key =
            seal_session_key(key, &info, &session_key, rng).map_err(|_| SealError::ReceiverKey)?;
        Ok(Self {
            suite: key.suite(),
            sender,
            receiver,
            receiver_key_id: key.key_id().to_string(),
            time: now,
            session_time: format_time(now),
            session_key,
            enc_session_key,
        })
    }

    /// Returns the fields that the sender signs.
    pub(crate) fn signed(&self) -> SignedFields<'_> {
        SignedFields {
            suite: self.suite.as_str(),
            sender: self.sender.as_str(),
            receiver: self.receiver.as_str(),
            receiver_key_id: &self.receiver_key_id,
            session_time: &self.session_time,
            enc_session_key: &self.enc_session_key,
        }
    }

    pub(crate) fn session(self, signature: Option<&Signature>) -> SendingSession {
        SendingSession {
            suite: self.suite,
            shared: SharedFields::new(&self.signed(), signature),
            sender: self.sender.clone(),
            receiver: self.receiver.clone(),
            start: self.time,
            enc_session_key_hash: hash(&self.enc_session_key),
            cipher: PayloadCipher::new(&self.session_key),
            sealed: 0,
            aad: Vec::with_capacity(512),
            ciphertext: Vec::new(),
            receiver_key_id: self.receiver_key_id,
            session_time: self.session_time,
        }
    }
}

impl SharedFields {
    fn new(session: &SignedFields<'_>, signature: Option<&Signature>) -> Self {
        let mut start = b",\"receiver_client_id\":".to_vec();
        put_json(&mut start, session.receiver);
        start.extend_from_slice(b",\"enc_session_key\":\"");
        put_base64(&mut start, session.enc_session_key);
        start.extend_from_slice(b"\",\"suite\":");
        put_json(&mut start, session.suite);
        start.extend_from_slice(b",\"sender_client_id\":");
        put_json(&mut start, session.sender);
        start.extend_from_slice(b",\"receiver_key_id\":");
        put_json(&mut start, session.receiver_key_id);
        start.extend_from_slice(b",\"exchange\":");
        let mut end = b",\"session_time\":".to_vec();
        put_json(&mut end, session.session_time);
        if let Some(Signature {
            certificate,
            signature,
        }) = signature
        {
            end.extend_from_slice(b",\"sender_certificate\":");
            put_json(&mut end, &certificate.to_string());
            end.extend_from_slice(b",\"sender_signature\":\"");
            put_base64(&mut end, signature);
            end.push(b'"');
        }
        end.push(b'}');
        Self {
            start,
            end,
            last: None,
        }
    }

    /// Returns the shared part for a message's route and content type.
    fn bytes(&mut self, header: &Header<'_>) -> Bytes {
        let last = self.last.as_ref().filter(|last| {
            last.exchange == *header.exchange
                && last.routing_key == *header.routing_key
                && last.content_type == header.content_type
        });
        if let Some(last) = last {
            return last.bytes.clone();
        }
        let mut bytes = self.start.clone();
        put_json(&mut bytes, header.exchange.as_str());
        bytes.extend_from_slice(b",\"routing_key\":");
        put_json(&mut bytes, header.routing_key.as_str());
        bytes.extend_from_slice(b",\"content_type\":");
        put_json(&mut bytes, header.content_type);
        bytes.extend_from_slice(&self.end);
        let bytes = Bytes::from(bytes);
        self.last = Some(CachedShared {
            exchange: header.exchange.clone(),
            routing_key: header.routing_key.clone(),
            content_type: header.content_type.to_owned(),
            bytes: bytes.clone(),
        });
        bytes
    }
}

impl fmt::Debug for SendingSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendingSession")
            .field("suite", &self.suite)
            .field("sender", &self.sender)
            .field("receiver", &self.receiver)
            .field("receiver_key_id", &self.receiver_key_id)
            .field("session_time", &self.session_time)
            .field("sealed", &self.sealed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{PrivateKey, PublicKey};
    use crate::vector_tests::{header, name};
    use std::time::Duration;

    fn session(start: Timestamp) -> SendingSession {
        let key = PrivateKey::generate().unwrap();
        SendingSession::start_unsigned(
            &name("sender_1"),
            &name("receiver_1"),
            &(*key.public_key()).into(),
            start,
        )
        .unwrap()
    }

    #[test]
    fn a_session_seals_at_most_max_messages() {
        let start = Timestamp::from_second(1_757_314_980).unwrap();
        let mut session = session(start);
        let message_id = name("m-1");
        for _ in 0..MAX_MESSAGES {
            assert!(!session.is_exhausted(start));
            session.seal(&header(&message_id, start), b"").unwrap();
        }
        assert!(session.is_exhausted(start));
        assert!(matches!(
            session.seal(&header(&message_id, start), b""),
            Err(SealError::SessionExhausted)
        ));
    }

    #[test]
    fn a_session_ends_at_max_age() {
        let start = Timestamp::from_second(1_757_314_980).unwrap();
        let mut session = session(start);
        let message_id = name("m-1");
        let end = start + Duration::from_secs(600);
        session.seal(&header(&message_id, end), b"").unwrap();
        for outside in [
            end + Duration::from_millis(1),
            start - Duration::from_millis(1),
        ] {
            assert!(session.is_exhausted(outside));
            let sealed = session.seal(&header(&message_id, outside), b"");
            assert!(matches!(sealed, Err(SealError::SessionExhausted)));
        }
    }

    #[test]
    fn nonces_and_session_keys_differ() {
        let start = Timestamp::from_second(1_757_314_980).unwrap();
        let mut session = session(start);
        let message_id = name("m-1");
        let [one, other] = [(); 2].map(|()| {
            session
                .seal(&header(&message_id, start), b"the same")
                .unwrap()
        });
        let (one, other) = (one.fields().unwrap(), other.fields().unwrap());
        assert_ne!(one.nonce, other.nonce);
        assert_ne!(one.ciphertext, other.ciphertext);
        assert_eq!(one.enc_session_key, other.enc_session_key);
        let next = super::tests::session(start)
            .seal(&header(&message_id, start), b"the same")
            .unwrap();
        assert_ne!(next.fields().unwrap().enc_session_key, one.enc_session_key);
    }

    #[test]
    fn a_receivers_key_of_small_order_is_refused() {
        let zeros = PublicKey::from_bytes([0; 32]).into();
        let started =
            SendingSession::start_unsigned(&name("s"), &name("r"), &zeros, Timestamp::UNIX_EPOCH);
        assert!(matches!(started, Err(SealError::ReceiverKey)));
    }

    #[test]
    fn debug_omits_the_session_key() {
        let printed = format!("{:?}", session(Timestamp::UNIX_EPOCH));
        assert!(
            printed.contains("sender_1") && printed.ends_with(".. }"),
            "{printed}"
        );
    }
}
