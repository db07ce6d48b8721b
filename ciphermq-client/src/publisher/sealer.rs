//! A publisher's session and its place in the stream.

use ciphermq_crypto::identity::IdentityError;
use ciphermq_crypto::{
    Form, Header, Identity, OlderForm, RecipientKey, SealError, SendingSession, seal_older,
};
use ciphermq_protocol::{ClientId, Envelope, ExchangeName, RoutingKey, StreamId};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::client::Client;
use crate::error::{PublishError, PublishErrorKind};
use crate::keys::{self, ReceiverKey};
use crate::publisher::Payload;

/// About how much an envelope has beside its ciphertext, in bytes: names are short, keys and times
/// are fixed.
pub(crate) const HEADER_BYTES: usize = 1024;

/// About how many bytes a payload takes when it is sealed: base64, and the envelope around it.
pub(crate) fn weight(payload: &Payload<'_>) -> usize {
    payload
        .bytes
        .len()
        .div_ceil(3)
        .saturating_mul(4)
        .saturating_add(HEADER_BYTES)
}

/// Seals payloads, one after the other.
#[derive(Debug)]
pub(crate) struct Sealer {
    pub(crate) receiver: ClientId,
    pub(crate) exchange: ExchangeName,
    pub(crate) routing_key: RoutingKey,
    pub(crate) stream: StreamId,
    pub(crate) next: u64,
    pub(crate) key: ReceiverKey,
    /// The key was given by the caller, and the server is never asked.
    pub(crate) key_is_given: bool,
    /// Whether a key is taken that the receiver has not signed, and how it is then sealed.
    pub(crate) unsigned: Option<Form>,
    /// Whether sessions go without a signature if this client cannot sign.
    pub(crate) unsigned_sessions: bool,
    /// When the key was asked for; `None` if it is to be asked for before the next message.
    pub(crate) asked: Option<Instant>,
    pub(crate) session: Option<SendingSession>,
}

impl Sealer {
    /// Sees to it that there is a session that can seal, for a key that is still believed. If the
    /// server cannot be asked for the key now, the known one serves once more.
    pub(crate) async fn refresh(&mut self, client: &Client) -> Result<(), PublishError> {
        let now = Timestamp::now();
        let is_believed = self.key_is_given
            || self
                .asked
                .is_some_and(|asked| asked.elapsed() < client.inner().keys.ttl());
        if is_believed && self.can_seal(now) {
            return Ok(());
        }
        if !is_believed {
            let (unsigned, sessions) = (self.unsigned, self.unsigned_sessions);
            let is_signing = !self.can_seal(now);
            match ask_key(client, &self.receiver, unsigned, sessions, is_signing).await {
                Ok(key) if key == self.key => {}
                Ok(key) => {
                    tracing::info!(receiver = %self.receiver, key_id = %key.key.key_id(), "the \
                        receiver has a new key");
                    self.key = key;
                    self.session = None;
                }
                Err(error) if error.kind() == PublishErrorKind::KeyUnavailable => {
                    tracing::warn!(receiver = %self.receiver, %error, "the receiver's key cannot \
                        be asked for; the known one is used");
                }
                Err(error) => return Err(error),
            }
            self.asked = Some(Instant::now());
        }
        if !self.can_seal(now) {
            let started = match signer(client, self.unsigned_sessions, now)? {
                Some(identity) => {
                    SendingSession::start(identity, &self.receiver, &self.key.key, now)
                }
                None => {
                    SendingSession::start_unsigned(client.id(), &self.receiver, &self.key.key, now)
                }
            };
            self.session = Some(started.map_err(|error| sealing(&error))?);
        }
        Ok(())
    }

    /// Whether receivers would accept what is sent from now on.
    pub(crate) fn check(&self, client: &Client) -> Result<(), PublishError> {
        let now = Timestamp::now();
        if self.can_seal(now) {
            return Ok(());
        }
        signer(client, self.unsigned_sessions, now).map(drop)
    }

    /// Older forms need no session.
    fn can_seal(&self, now: Timestamp) -> bool {
        let session = self.session.as_ref();
        self.older_form().is_some() || session.is_some_and(|session| !session.is_exhausted(now))
    }

    /// The older form to write, if the receiver's key is not signed and the caller has named one.
    fn older_form(&self) -> Option<OlderForm> {
        match (self.unsigned, self.key.is_signed) {
            (Some(Form::Older(form)), false) => Some(form),
            _ => None,
        }
    }

    /// The key is asked for again before the next message.
    pub(crate) fn forget_key(&mut self) {
        self.asked = None;
    }

    /// Seals the next message of the stream.
    pub(crate) fn seal(&mut self, payload: &Payload<'_>) -> Result<Envelope, PublishError> {
        let message_id = self.stream.message_id(self.next).ok_or_else(|| {
            PublishError::new(
                PublishErrorKind::StreamEnded,
                "The stream has come to its last position.",
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

    /// The message that was sealed last is not sent: its position is free again.
    pub(crate) fn take_back(&mut self) {
        self.next = self.next.saturating_sub(1);
    }

    /// How long a line with this message alone is.
    pub(crate) fn line_bytes(&self, envelope: &Envelope) -> usize {
        line_overhead(&self.exchange, &self.routing_key) + envelope.raw().len()
    }

    pub(crate) fn position(&self) -> u64 {
        self.next
    }
}

/// Asks for the receiver's key.
///
/// What is wrong with this client's own certificate comes first, at the latest when the receiver's
/// key is refused: a clock that is wrong speaks against both, and it is this machine's.
/// `is_signing`: a session is to begin.
pub(crate) async fn ask_key(
    client: &Client,
    receiver: &ClientId,
    unsigned: Option<Form>,
    unsigned_sessions: bool,
    is_signing: bool,
) -> Result<ReceiverKey, PublishError> {
    let mut own = signer(client, unsigned_sessions, Timestamp::now()).map(drop);
    // Older forms are not signed.
    if is_signing && !matches!(unsigned, Some(Form::Older(_))) {
        own?;
        own = Ok(());
    }
    keys::receiver_key(client, receiver, unsigned.is_some())
        .await
        .map_err(|error| match own {
            Err(own) if error.kind() == PublishErrorKind::KeyNotTrusted => own,
            _ => error,
        })
}

/// Who signs a session that begins now, for whom a receiver looks as of that time; `None` if nobody
/// does, which the caller has asked for. What no receiver would accept is not begun: it would be
/// acknowledged, and set aside by all.
fn signer(
    client: &Client,
    unsigned_sessions: bool,
    now: Timestamp,
) -> Result<Option<&Identity>, PublishError> {
    let inner = client.inner();
    let identity = match inner.identity.as_ref() {
        Ok(identity) => identity,
        Err(_) if unsigned_sessions => return Ok(None),
        Err(error) => return Err(unfit(error, true)),
    };
    match identity.verify(inner.keys.authority(), now) {
        Ok(()) => Ok(Some(identity)),
        Err(error) => Err(unfit(&error, false)),
    }
}

/// How long a `publish_packed` or `publish_batch` line is at most beside its envelopes and what
/// stands between them.
pub(crate) fn line_overhead(exchange: &ExchangeName, routing_key: &RoutingKey) -> usize {
    "publish_packed  65536 {} ".len() + exchange.as_str().len() + routing_key.as_str().len()
}

/// `is_for_ever`: it is no matter of time, and the caller may choose to send unsigned.
fn unfit(error: &IdentityError, is_for_ever: bool) -> PublishError {
    let mut advice = error.advice().to_owned();
    if is_for_ever {
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

fn sealing(error: &SealError) -> PublishError {
    PublishError::new(
        PublishErrorKind::Sealing,
        format!("The message could not be sealed: {error}."),
    )
}
