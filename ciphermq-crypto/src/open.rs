//! The receiver's side: envelopes in, authentic payloads out.

use std::fmt;

use ciphermq_protocol::envelope::Fields;
use ciphermq_protocol::{ClientId, Envelope, ExchangeName, MessageId, RoutingKey};
use jiff::Timestamp;

use crate::encoding::{decode, decode_array, parse_time};
use crate::error::OpenError;
use crate::keys::{KeyId, Keyring};
use crate::payload::{Authenticated, PayloadCipher, hash};
use crate::session::{Session, SessionCache, info, is_within_age};
use crate::suite::{Form, Suite, open_older};

/// What a receiver admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPolicy {
    /// Whether messages of older clients are opened. They say nothing of their sender that could be
    /// checked, and a broker can give them another id or send them another way. Default: no.
    pub older_clients: bool,
    /// Refuse messages that were published to any other exchange. Older clients' messages do not say so in
    /// a way that could be checked, and are not asked.
    pub exchange: Option<ExchangeName>,
    /// Refuse messages that were published by any other routing key. Older clients' messages are not asked.
    pub routing_key: Option<RoutingKey>,
    /// How many opened session keys are remembered. Default: 256.
    pub session_cache: usize,
}

impl Default for OpenPolicy {
    fn default() -> Self {
        Self {
            older_clients: false,
            exchange: None,
            routing_key: None,
            session_cache: 256,
        }
    }
}

/// A message that was opened. With a suite, all of it is as it was sealed; from an older client, the payload
/// alone is.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// What was sealed.
    pub payload: Vec<u8>,
    /// What tells the message from all others.
    pub message_id: MessageId,
    /// Who says to have sealed it. Whoever has the receiver's public key can say so: this is a claim, until
    /// senders sign their sessions.
    pub sender: Option<ClientId>,
    /// How it was sealed.
    pub form: Form,
    /// When it was sealed, by the sender's clock. `None` if an older client did not say so, or not in RFC 3339.
    pub sent_time: Option<Timestamp>,
    /// What the payload is, a media type. Older clients do not say so.
    pub content_type: Option<String>,
}

/// Opens the messages of one receiver, and remembers their session keys. They are wiped when it is dropped.
pub struct Opener {
    receiver: ClientId,
    keyring: Keyring,
    policy: OpenPolicy,
    sessions: SessionCache,
    name: Vec<u8>,
    aad: Vec<u8>,
}

impl Opener {
    /// An opener for the client `receiver`, with its private keys.
    #[must_use]
    pub fn new(receiver: ClientId, keyring: Keyring, policy: OpenPolicy) -> Self {
        let sessions = SessionCache::new(policy.session_cache);
        Self {
            receiver,
            keyring,
            policy,
            sessions,
            name: Vec::new(),
            aad: Vec::new(),
        }
    }

    /// The keys that it opens with.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Opens a message.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: one and the same, [`OpenError::NotAuthentic`], for whatever was altered.
    pub fn open(&mut self, envelope: &Envelope) -> Result<Opened, OpenError> {
        let fields = envelope.fields().map_err(|_| OpenError::NotAuthentic)?;
        if envelope.receiver_client_id != self.receiver {
            return Err(OpenError::OtherReceiver(envelope.receiver_client_id.clone()));
        }
        match &fields.suite {
            Some(name) => {
                let suite = name
                    .parse()
                    .map_err(|_| OpenError::UnknownSuite(name.clone().into_owned()))?;
                self.open_with_suite(suite, envelope, &fields)
            }
            None if self.policy.older_clients => self.open_older(envelope, &fields),
            None => Err(OpenError::OlderClient),
        }
    }

    fn open_with_suite(
        &mut self,
        suite: Suite,
        envelope: &Envelope,
        fields: &Fields<'_>,
    ) -> Result<Opened, OpenError> {
        let stated = Stated::read(fields).ok_or(OpenError::NotAuthentic)?;
        let key = self
            .keyring
            .find(stated.key_id)
            .ok_or(OpenError::NoPrivateKey(stated.key_id))?;

        let mut session_info = info(
            suite.as_str(),
            stated.sender,
            self.receiver.as_str(),
            stated.receiver_key_id,
            stated.session_time_text,
        );
        let info_length = session_info.len();
        session_info.extend_from_slice(&stated.enc_session_key);
        self.name = session_info;
        let session = self
            .sessions
            .find_or_open(&self.name, || {
                let info = self.name.get(..info_length)?;
                let session_key = suite.open_session_key(key, info, &stated.enc_session_key)?;
                Some(Session::new(
                    PayloadCipher::new(&session_key),
                    hash(&stated.enc_session_key),
                ))
            })
            .ok_or(OpenError::NotAuthentic)?;

        Authenticated {
            suite: suite.as_str(),
            message_id: &fields.message_id,
            sender: stated.sender,
            receiver: self.receiver.as_str(),
            receiver_key_id: stated.receiver_key_id,
            exchange: stated.exchange,
            routing_key: stated.routing_key,
            sent_time: stated.sent_time_text,
            enc_session_key_hash: &session.enc_session_key_hash,
            content_type: stated.content_type,
            session_time: stated.session_time_text,
        }
        .write(&mut self.aad);
        let mut payload = stated.ciphertext;
        session
            .cipher
            .open(stated.nonce, &self.aad, &mut payload, stated.tag)
            .ok_or(OpenError::NotAuthentic)?;

        // From here on the message is what its sender sealed; the question is whether we want it.
        if !is_within_age(stated.session_time, stated.sent_time) {
            return Err(OpenError::OutsideSession);
        }
        if let (Some(expected), Some(exchange)) = (&self.policy.exchange, &envelope.exchange)
            && expected != exchange
        {
            return Err(OpenError::OtherExchange(exchange.clone()));
        }
        if let (Some(expected), Some(routing_key)) = (&self.policy.routing_key, &envelope.routing_key)
            && expected != routing_key
        {
            return Err(OpenError::OtherRoutingKey(routing_key.clone()));
        }
        Ok(Opened {
            payload,
            message_id: envelope.message_id.clone(),
            sender: envelope.sender_client_id.clone(),
            form: Form::Suite(suite),
            sent_time: Some(stated.sent_time),
            content_type: Some(stated.content_type.to_owned()),
        })
    }

    fn open_older(&self, envelope: &Envelope, fields: &Fields<'_>) -> Result<Opened, OpenError> {
        let (payload, form) = open_older(&self.keyring, fields).ok_or(OpenError::NotAuthentic)?;
        Ok(Opened {
            payload,
            message_id: envelope.message_id.clone(),
            sender: envelope.sender_client_id.clone(),
            form: Form::Older(form),
            sent_time: fields.sent_time.as_deref().and_then(|time| time.parse().ok()),
            content_type: fields.content_type.as_deref().map(str::to_owned),
        })
    }
}

/// What an envelope with a suite states, each field in its one spelling.
struct Stated<'a> {
    key_id: KeyId,
    receiver_key_id: &'a str,
    sender: &'a str,
    exchange: &'a str,
    routing_key: &'a str,
    content_type: &'a str,
    sent_time_text: &'a str,
    sent_time: Timestamp,
    session_time_text: &'a str,
    session_time: Timestamp,
    enc_session_key: Vec<u8>,
    nonce: [u8; crate::payload::NONCE_BYTES],
    ciphertext: Vec<u8>,
    tag: [u8; crate::payload::TAG_BYTES],
}

impl<'a> Stated<'a> {
    fn read(fields: &'a Fields<'_>) -> Option<Self> {
        let receiver_key_id = fields.receiver_key_id.as_deref()?;
        let sent_time_text = fields.sent_time.as_deref()?;
        let session_time_text = fields.session_time.as_deref()?;
        Some(Self {
            key_id: receiver_key_id.parse().ok()?,
            receiver_key_id,
            sender: fields.sender_client_id.as_deref()?,
            exchange: fields.exchange.as_deref()?,
            routing_key: fields.routing_key.as_deref()?,
            content_type: fields.content_type.as_deref()?,
            sent_time_text,
            sent_time: parse_time(sent_time_text)?,
            session_time_text,
            session_time: parse_time(session_time_text)?,
            enc_session_key: decode(&fields.enc_session_key)?,
            nonce: decode_array(&fields.nonce)?,
            ciphertext: decode(&fields.ciphertext)?,
            tag: decode_array(fields.tag.as_deref()?)?,
        })
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("receiver", &self.receiver)
            .field("keyring", &self.keyring)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// The payload is not printed: logs are not the place for it.
impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("message_id", &self.message_id)
            .field("sender", &self.sender)
            .field("form", &self.form)
            .field("sent_time", &self.sent_time)
            .field("content_type", &self.content_type)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}
