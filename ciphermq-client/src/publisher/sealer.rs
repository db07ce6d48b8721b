//! A publisher's encryption session and stream position.

use std::sync::Arc;

use ciphermq_certificates::flaw::for_client;
use ciphermq_crypto::identity::IdentityError;
use ciphermq_crypto::{
    Form, Header, Identity, OlderForm, RecipientKey, SealError, SendingSession, seal_older,
};
use ciphermq_protocol::{ClientId, Envelope, ExchangeName, RoutingKey, StreamId};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::client_core::ClientCore;
use crate::credentials::{Credentials, Trust};
use crate::driver::line_overhead;
use crate::error::{ConnectError, PublishError, PublishErrorKind};
use crate::keys::ReceiverKey;
use crate::publisher::Payload;

/// Estimated size of an envelope without its ciphertext, in bytes: names are short, keys and times
/// have fixed lengths.
pub(crate) const HEADER_BYTES: usize = 1024;

/// Returns the estimated size of a sealed payload, in bytes: base64, and the envelope around it.
pub(crate) fn weight(payload: &Payload<'_>) -> usize {
    payload
        .bytes
        .len()
        .div_ceil(3)
        .saturating_mul(4)
        .saturating_add(HEADER_BYTES)
}

/// Seals payloads in the order of the stream.
#[derive(Debug)]
pub(crate) struct Sealer {
    pub(crate) receiver: ClientId,
    pub(crate) exchange: ExchangeName,
    pub(crate) routing_key: RoutingKey,
    pub(crate) stream: StreamId,
    pub(crate) next: u64,
    pub(crate) key: ReceiverKey,
    /// The caller provided the key, so the server is never asked.
    pub(crate) key_is_given: bool,
    /// The form for a key that the receiver has not signed, if such keys are accepted.
    pub(crate) unsigned: Option<Form>,
    /// Whether sessions are unsigned if this client cannot sign.
    pub(crate) unsigned_sessions: bool,
    /// The time at which the key was fetched; `None` to fetch it before the next message.
    pub(crate) asked: Option<Instant>,
    /// The key is not used again before the server has been asked for it.
    pub(crate) must_ask: bool,
    pub(crate) session: Option<SendingSession>,
    /// The authorities in use, by which the key is verified.
    pub(crate) trust: Trust,
    /// What signs the sessions.
    pub(crate) credentials: Arc<Credentials>,
}

impl Sealer {
    /// Ensures that there is a usable session, for a key that is still trusted. If the server
    /// cannot be asked for the key now, the known one is used once more.
    pub(crate) async fn refresh(&mut self, core: &ClientCore) -> Result<(), PublishError> {
        let now = Timestamp::now();
        self.learn_credentials(core, now);
        if self.trust.check_lists(now).is_err() {
            // A newer one may have been there for a while.
            core.lists.renew(&core.handle).await;
            let checked = self.trust.check_lists(Timestamp::now());
            checked.map_err(|error| old_lists(&error))?;
        }
        let has_changed = self.trust.changed().is_some();
        if has_changed || !self.trust.has_lists_of(&self.key.issuers, now) {
            // What verified the key may be revoked.
            self.must_ask = !self.key_is_given;
            core.keys.forget(&self.receiver);
            self.forget_key();
        }
        let is_believed = self.key_is_given
            || self
                .asked
                .is_some_and(|asked| asked.elapsed() < core.keys.ttl());
        if is_believed && self.can_seal(now) {
            return Ok(());
        }
        if !is_believed {
            let (unsigned, sessions) = (self.unsigned, self.unsigned_sessions);
            let starts_session = !self.can_seal(now);
            match fetch_key(
                core,
                &self.credentials,
                &self.receiver,
                unsigned,
                sessions,
                starts_session,
            )
            .await
            {
                Ok(key) if key == self.key => self.must_ask = false,
                Ok(key) => {
                    tracing::info!(receiver = %self.receiver, key_id = %key.key.key_id(), "The \
                        receiver has a new key");
                    self.key = key;
                    self.must_ask = false;
                    self.session = None;
                }
                Err(error)
                    if error.kind() == PublishErrorKind::KeyUnavailable && !self.must_ask =>
                {
                    tracing::warn!(receiver = %self.receiver, %error, "The receiver's key cannot \
                        be fetched; the known one is used");
                }
                Err(error) => return Err(error),
            }
            self.asked = Some(Instant::now());
        }
        if !self.can_seal(now) {
            let started = match self.signer(now)? {
                Some(identity) => {
                    SendingSession::start(&identity, &self.receiver, &self.key.key, now)
                }
                None => {
                    SendingSession::start_unsigned(&core.id, &self.receiver, &self.key.key, now)
                }
            };
            self.session = Some(started.map_err(|error| sealing(&error))?);
        }
        Ok(())
    }

    /// Checks that receivers would accept messages from now on.
    pub(crate) fn check(&self) -> Result<(), PublishError> {
        let now = Timestamp::now();
        if self.can_seal(now) {
            return Ok(());
        }
        self.signer(now).map(drop)
    }

    fn signer(&self, now: Timestamp) -> Result<Option<Arc<Identity>>, PublishError> {
        signer(&self.credentials, self.unsigned_sessions, now)
    }

    /// Signs with the credentials of the last connection from now on.
    ///
    /// Receivers ask the server for a sender's certificate, and it knows those that clients have
    /// connected with. If the last one has ended meanwhile, the next connection is made with a new
    /// one, if there is one.
    fn learn_credentials(&mut self, core: &ClientCore, now: Timestamp) {
        if core.handle.was_made_with(&self.credentials) && self.can_seal(now) {
            return;
        }
        let connected = core.handle.credentials();
        let credentials = match connected.check_signer(now) {
            Ok(()) => connected,
            Err(_) => {
                let current = core.credentials.get();
                // The server has not been told of another one that signs.
                match current.signing_chain {
                    None => current,
                    Some(_) => connected,
                }
            }
        };
        if Arc::ptr_eq(&self.credentials, &credentials) {
            return;
        }
        self.credentials = credentials;
        // The receiver's key is asked for again: other authorities may be trusted.
        self.session = None;
        core.keys.forget(&self.receiver);
        self.forget_key();
    }

    /// Whether a message can be sealed without a new session. Older forms need no session.
    fn can_seal(&self, now: Timestamp) -> bool {
        let session = self.session.as_ref();
        self.older_form().is_some() || session.is_some_and(|session| !session.is_exhausted(now))
    }

    /// Returns the older form to use, if the receiver's key is unsigned and the caller has named
    /// one.
    fn older_form(&self) -> Option<OlderForm> {
        match (self.unsigned, self.key.is_signed) {
            (Some(Form::Older(form)), false) => Some(form),
            _ => None,
        }
    }

    /// Fetches the key again before the next message.
    pub(crate) fn forget_key(&mut self) {
        self.asked = None;
    }

    /// Seals the next message of the stream.
    pub(crate) fn seal(&mut self, payload: &Payload<'_>) -> Result<Envelope, PublishError> {
        let message_id = self.stream.message_id(self.next).ok_or_else(|| {
            PublishError::new(
                PublishErrorKind::StreamEnded,
                "The stream has no further position.",
            )
            .advise("Start a new stream.")
        })?;
        let header = Header {
            message_id: &message_id,
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            content_type: payload.content_type,
            sent_time: Timestamp::now(),
        };
        let sealed = match (self.older_form(), &self.key.key, &mut self.session) {
            (Some(form), RecipientKey::X25519(key), _) => {
                seal_older(form, &self.receiver, key, &header, payload.bytes)
            }
            (None, _, Some(session)) => session.seal(&header, payload.bytes),
            _ => Err(SealError::SessionExhausted),
        };
        let envelope = sealed.map_err(|error| sealing(&error))?;
        self.next += 1;
        Ok(envelope)
    }

    /// Frees the position of the last sealed message, which is not sent.
    pub(crate) fn rewind(&mut self) {
        self.next = self.next.saturating_sub(1);
    }

    /// Returns the length of a line with this message alone.
    pub(crate) fn line_bytes(&self, envelope: &Envelope) -> usize {
        line_overhead(&self.exchange, &self.routing_key) + envelope.raw().len()
    }

    pub(crate) fn position(&self) -> u64 {
        self.next
    }
}

/// Fetches the receiver's key. `starts_session`: a session starts with it.
///
/// An error of this client's own certificate takes precedence: it is returned before the key is
/// fetched if a session must be signed, and otherwise instead of an untrusted key's. A wrong clock
/// breaks both checks, and it is this machine's.
pub(crate) async fn fetch_key(
    core: &ClientCore,
    credentials: &Credentials,
    receiver: &ClientId,
    unsigned: Option<Form>,
    unsigned_sessions: bool,
    starts_session: bool,
) -> Result<ReceiverKey, PublishError> {
    let own_error = signer(credentials, unsigned_sessions, Timestamp::now()).err();
    // Older forms are not signed.
    let must_sign = starts_session && !matches!(unsigned, Some(Form::Older(_)));
    if must_sign && let Some(error) = own_error {
        return Err(error);
    }
    core.keys
        .receiver_key(&core.handle, &core.lists, receiver, unsigned.is_some())
        .await
        .map_err(|error| match own_error {
            Some(own_error) if error.kind() == PublishErrorKind::KeyNotTrusted => own_error,
            _ => error,
        })
}

/// Returns the identity that signs a session starting now; `None` if the caller allows unsigned
/// sessions and this client cannot sign. Receivers verify the certificate as of that time.
///
/// A session that no receiver would accept is not started: its messages would be acknowledged, and
/// rejected by every receiver.
fn signer(
    credentials: &Credentials,
    unsigned_sessions: bool,
    now: Timestamp,
) -> Result<Option<Arc<Identity>>, PublishError> {
    let unusable =
        |error, is_permanent| unusable_certificate(&credentials.client_id, error, is_permanent);
    let identity = match &credentials.identity {
        Ok(identity) => identity,
        Err(_) if unsigned_sessions => return Ok(None),
        Err(error) => return Err(unusable(error, true)),
    };
    match identity.verify(&credentials.authority, now) {
        Ok(()) => Ok(Some(Arc::clone(identity))),
        Err(error) => Err(unusable(&error, false)),
    }
}

/// `is_permanent`: time will not help, and the caller may choose to send unsigned.
fn unusable_certificate(
    client: &ClientId,
    error: &IdentityError,
    is_permanent: bool,
) -> PublishError {
    let mut advice = for_client(error.advice(), client);
    if is_permanent {
        advice.push_str(
            "\nIf the receiver admits unverified senders (`receive --allow-unverified-senders`), \
             send without a \
             signature: --allow-unsigned-sessions.",
        );
    }
    PublishError::new(
        PublishErrorKind::SenderCertificate,
        format!("No receiver would accept what this client sends: {error}."),
    )
    .advise(advice)
    .caused_by(error.clone())
}

fn old_lists(error: &ConnectError) -> PublishError {
    PublishError::new(PublishErrorKind::OldRevocationList, error.to_string())
        .advise_if(error.advice())
        .caused_by(error.clone())
}

fn sealing(error: &SealError) -> PublishError {
    PublishError::new(
        PublishErrorKind::Sealing,
        format!("The message could not be sealed: {error}."),
    )
}
