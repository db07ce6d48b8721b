//! The receiver's side: opening of envelopes.

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;

use ciphermq_protocol::envelope::Fields;
use ciphermq_protocol::name::pattern::Pattern;
use ciphermq_protocol::{ClientId, Envelope, ExchangeName, MessageId, RoutingKey};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use crate::encoding::{array, decode, parse_time, put_field};
use crate::error::OpenError;
use crate::identity::{Authority, Fingerprint};
use crate::keys::{KeyId, Keyring};
use crate::payload::{AuthenticatedFields, PayloadCipher, hash};
use crate::sender::{SenderCertificates, Signature, SignedFields, VerifyError};
use crate::session::{Session, SessionCache, info, is_within_age};
use crate::suite::{Form, OpenKeyError, Suite, open_older};

/// The messages that a receiver admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPolicy {
    /// Whether messages of unknown senders are opened. Default: no.
    ///
    /// These are messages of unsigned sessions, and those of older clients, to which a broker can
    /// also give another id or route. A signature that exists is verified in any case.
    pub unverified_senders: bool,
    /// The only senders whose messages are opened: those that match one of the patterns.
    ///
    /// Without [`unverified_senders`](Self::unverified_senders) every opened message has proved to
    /// be from such a sender; with it, some may only claim it. A message without a sender's name
    /// matches no pattern. Default: `None`, all senders.
    pub senders: Option<Vec<Pattern>>,
    /// The only exchange whose messages are opened.
    ///
    /// Messages of older clients are not checked, since they do not authenticate their exchange.
    pub exchange: Option<ExchangeName>,
    /// The only routing key whose messages are opened.
    ///
    /// Messages of older clients are not checked.
    pub routing_key: Option<RoutingKey>,
    /// Whether messages are opened whose sender's certificate was revoked after the time at which
    /// their session says that it began. Default: no.
    ///
    /// Whoever has stolen the certificate's key can state an earlier time.
    pub before_revocation: bool,
    /// The number of opened session keys to cache. Default: 256.
    pub session_cache: usize,
}

impl Default for OpenPolicy {
    fn default() -> Self {
        Self {
            unverified_senders: false,
            senders: None,
            exchange: None,
            routing_key: None,
            before_revocation: false,
            session_cache: 256,
        }
    }
}

/// An opened message.
///
/// With a suite, every field is authentic; from an older client, only the payload is.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// The payload.
    pub payload: Vec<u8>,
    /// The message's unique id.
    pub message_id: MessageId,
    /// The sender, if verified; otherwise the sender as claimed, which anybody can do.
    pub sender: Option<ClientId>,
    /// Whether the sender's signature of the session was verified.
    pub is_sender_verified: bool,
    /// The suite or older form of the message.
    pub form: Form,
    /// The time of sealing by the sender's clock; `None` if an older client did not state it in RFC
    /// 3339.
    pub sent_time: Option<Timestamp>,
    /// The payload's media type. Older clients do not state it.
    pub content_type: Option<String>,
}

/// An opener of one receiver's messages, which caches their session keys.
///
/// The keys are wiped on drop.
pub struct Opener {
    receiver: ClientId,
    keyring: Keyring,
    policy: OpenPolicy,
    sessions: SessionCache,
    senders: SenderCertificates,
    cache_key: Vec<u8>,
    aad: Vec<u8>,
}

impl Opener {
    /// Creates an opener for the client `receiver` with its private keys, and the authority of its
    /// senders.
    #[must_use]
    pub fn new(
        receiver: ClientId,
        keyring: Keyring,
        authority: Authority,
        policy: OpenPolicy,
    ) -> Self {
        let sessions = SessionCache::new(policy.session_cache);
        let senders = SenderCertificates::new(authority, policy.before_revocation);
        Self {
            receiver,
            keyring,
            policy,
            sessions,
            senders,
            cache_key: Vec::new(),
            aad: Vec::new(),
        }
    }

    /// Returns the keys that it opens with.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Replaces the authority of the senders, by which sessions are verified from now on.
    pub fn set_authority(&mut self, authority: Authority) {
        self.senders.set_authority(authority);
        // Whatever the former authority has verified is verified again.
        self.sessions.clear();
    }

    /// Requires lists of learned authorities that were made within these times, as
    /// [`Authority::require_lists_made_in`] does, also of those that have verified sessions before.
    pub fn require_lists_made_in(&mut self, times: Option<RangeInclusive<Timestamp>>) {
        self.senders.require_lists_made_in(times);
    }

    /// Adds a sender's certificate chain, its own certificate first.
    ///
    /// The source need not be trusted: the chain is verified when a message needs it.
    pub fn add_sender_chain(&mut self, chain: Vec<CertificateDer<'static>>) {
        self.senders.add(chain);
    }

    /// Opens a message.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: the same one, [`OpenError::NotAuthentic`], for any alteration. After
    /// [`OpenError::CertificateNeeded`], [add](Opener::add_sender_chain) the certificate and open
    /// the message again. If the error recurs, another certificate was added.
    pub fn open(&mut self, envelope: &Envelope) -> Result<Opened, OpenError> {
        let fields = envelope.fields().map_err(|_| OpenError::NotAuthentic)?;
        self.open_parsed(envelope, &fields)
    }

    /// Opens a message whose fields, which must be those of `envelope`, were parsed before.
    ///
    /// # Errors
    ///
    /// As [`Opener::open`].
    pub fn open_parsed(
        &mut self,
        envelope: &Envelope,
        fields: &Fields<'_>,
    ) -> Result<Opened, OpenError> {
        if envelope.receiver_client_id != self.receiver {
            return Err(OpenError::OtherReceiver(
                envelope.receiver_client_id.clone(),
            ));
        }
        self.check_sender(envelope.sender_client_id.as_ref())?;
        match &fields.suite {
            Some(name) => {
                let suite = name
                    .parse()
                    .map_err(|_| OpenError::UnknownSuite(name.clone().into_owned()))?;
                self.open_with_suite(suite, envelope, fields)
            }
            None if self.policy.unverified_senders => self.open_older(envelope, fields),
            None => Err(OpenError::OlderClient),
        }
    }

    /// Checks the sender that an envelope names. It is the one that the message proves to be from,
    /// if it proves any; so messages of others cost neither their opening nor a certificate.
    fn check_sender(&self, sender: Option<&ClientId>) -> Result<(), OpenError> {
        let Some(admitted) = &self.policy.senders else {
            return Ok(());
        };
        let sender = sender.ok_or(OpenError::NoSender)?;
        match admitted
            .iter()
            .any(|pattern| pattern.matches(sender.as_str()))
        {
            true => Ok(()),
            false => Err(OpenError::OtherSender(sender.clone())),
        }
    }

    fn open_with_suite(
        &mut self,
        suite: Suite,
        envelope: &Envelope,
        fields: &Fields<'_>,
    ) -> Result<Opened, OpenError> {
        let message = MessageFields::decode(fields).ok_or(OpenError::NotAuthentic)?;
        if message.session.signature.is_none() && !self.policy.unverified_senders {
            return Err(OpenError::UnsignedSession);
        }

        // The cache key covers the signature: the same session with another one must be verified
        // anew.
        message.session.write_cache_key(suite, &mut self.cache_key);
        let session = self
            .sessions
            .find_or_open(&self.cache_key, || {
                let decoded = message.session.decode().ok_or(OpenError::NotAuthentic)?;
                let info = info(
                    suite.as_str(),
                    message.session.sender,
                    self.receiver.as_str(),
                    message.session.receiver_key_id,
                    message.session.time,
                );
                let session_key = suite
                    .open_session_key(
                        &self.keyring,
                        decoded.key_id,
                        &info,
                        &decoded.enc_session_key,
                    )
                    .map_err(|error| match error {
                        OpenKeyError::NoPrivateKey => OpenError::NoPrivateKey(decoded.key_id),
                        OpenKeyError::NotAuthentic => OpenError::NotAuthentic,
                    })?;
                let mut issuers = Vec::new();
                if let Some(signature) = &decoded.signature {
                    let signed = SignedFields {
                        suite: suite.as_str(),
                        sender: message.session.sender,
                        receiver: self.receiver.as_str(),
                        receiver_key_id: message.session.receiver_key_id,
                        session_time: message.session.time,
                        enc_session_key: &decoded.enc_session_key,
                    };
                    issuers = self
                        .senders
                        .verify(&signed, decoded.time, signature)
                        .map_err(|error| match error {
                            VerifyError::CertificateNeeded => {
                                certificate_needed(envelope, signature.certificate)
                            }
                            VerifyError::Forged => OpenError::NotAuthentic,
                            VerifyError::Sender(error) => OpenError::Sender(error),
                        })?;
                }
                Ok::<_, OpenError>(Session {
                    cipher: PayloadCipher::new(&session_key),
                    time: decoded.time,
                    enc_session_key_hash: hash(&decoded.enc_session_key),
                    is_verified: decoded.signature.is_some(),
                    issuers,
                })
            })?
            .ok_or(OpenError::NotAuthentic)?;
        self.senders.check_lists_of(&session.issuers)?;

        AuthenticatedFields {
            suite: suite.as_str(),
            message_id: &fields.message_id,
            sender: message.session.sender,
            receiver: self.receiver.as_str(),
            receiver_key_id: message.session.receiver_key_id,
            exchange: message.exchange,
            routing_key: message.routing_key,
            sent_time: message.sent_time_text,
            enc_session_key_hash: &session.enc_session_key_hash,
            content_type: message.content_type,
            session_time: message.session.time,
        }
        .write(&mut self.aad);
        let payload = session
            .cipher
            .open(message.nonce, &self.aad, &message.ciphertext, message.tag)
            .ok_or(OpenError::NotAuthentic)?;

        // The message is authentic from here on; what remains is policy.
        if !is_within_age(session.time, message.sent_time) {
            return Err(OpenError::OutsideSession);
        }
        if let (Some(expected), Some(exchange)) = (&self.policy.exchange, &envelope.exchange)
            && expected != exchange
        {
            return Err(OpenError::OtherExchange(exchange.clone()));
        }
        if let (Some(expected), Some(routing_key)) =
            (&self.policy.routing_key, &envelope.routing_key)
            && expected != routing_key
        {
            return Err(OpenError::OtherRoutingKey(routing_key.clone()));
        }
        Ok(Opened {
            payload,
            message_id: envelope.message_id.clone(),
            sender: envelope.sender_client_id.clone(),
            is_sender_verified: session.is_verified,
            form: Form::Suite(suite),
            sent_time: Some(message.sent_time),
            content_type: Some(message.content_type.to_owned()),
        })
    }

    fn open_older(&self, envelope: &Envelope, fields: &Fields<'_>) -> Result<Opened, OpenError> {
        let (payload, form) = open_older(&self.keyring, fields).ok_or(OpenError::NotAuthentic)?;
        Ok(Opened {
            payload,
            message_id: envelope.message_id.clone(),
            sender: envelope.sender_client_id.clone(),
            is_sender_verified: false,
            form: Form::Older(form),
            sent_time: fields
                .sent_time
                .as_deref()
                .and_then(|time| time.parse().ok()),
            content_type: fields.content_type.as_deref().map(str::to_owned),
        })
    }
}

/// The decoded fields of an envelope with a suite.
struct MessageFields<'a> {
    session: SessionFields<'a>,
    exchange: &'a str,
    routing_key: &'a str,
    content_type: &'a str,
    sent_time_text: &'a str,
    sent_time: Timestamp,
    nonce: [u8; crate::payload::NONCE_BYTES],
    ciphertext: Cow<'a, [u8]>,
    tag: [u8; crate::payload::TAG_BYTES],
}

/// The undecoded fields of an envelope's session.
///
/// Messages of a session have the same ones, so they are decoded once per session.
struct SessionFields<'a> {
    receiver_key_id: &'a str,
    sender: &'a str,
    time: &'a str,
    enc_session_key: &'a str,
    /// The certificate's fingerprint and the signature.
    signature: Option<(&'a str, &'a str)>,
}

/// The decoded fields of an envelope's session.
struct DecodedSession {
    key_id: KeyId,
    time: Timestamp,
    enc_session_key: Vec<u8>,
    signature: Option<Signature>,
}

fn certificate_needed(envelope: &Envelope, fingerprint: Fingerprint) -> OpenError {
    match &envelope.sender_client_id {
        Some(sender) => OpenError::CertificateNeeded {
            sender: sender.clone(),
            fingerprint,
        },
        None => OpenError::NotAuthentic,
    }
}

impl<'a> MessageFields<'a> {
    fn decode(fields: &'a Fields<'_>) -> Option<Self> {
        let sent_time_text = fields.sent_time.as_deref()?;
        Some(Self {
            session: SessionFields {
                receiver_key_id: fields.receiver_key_id.as_deref()?,
                sender: fields.sender_client_id.as_deref()?,
                time: fields.session_time.as_deref()?,
                enc_session_key: &fields.enc_session_key,
                signature: match (&fields.sender_certificate, &fields.sender_signature) {
                    (Some(certificate), Some(signature)) => Some((certificate, signature)),
                    (None, None) => None,
                    // With only one of them, the session is neither signed nor unsigned.
                    _ => return None,
                },
            },
            exchange: fields.exchange.as_deref()?,
            routing_key: fields.routing_key.as_deref()?,
            content_type: fields.content_type.as_deref()?,
            sent_time_text,
            sent_time: parse_time(sent_time_text)?,
            nonce: array(&fields.nonce)?,
            ciphertext: fields.ciphertext.bytes()?,
            tag: array(fields.tag.as_ref()?)?,
        })
    }
}

impl SessionFields<'_> {
    /// Writes the cache key to `out`, replacing its contents.
    fn write_cache_key(&self, suite: Suite, out: &mut Vec<u8>) {
        out.clear();
        for text in [
            suite.as_str(),
            self.receiver_key_id,
            self.sender,
            self.time,
            self.enc_session_key,
        ] {
            put_field(out, text.as_bytes());
        }
        if let Some((certificate, signature)) = self.signature {
            put_field(out, certificate.as_bytes());
            put_field(out, signature.as_bytes());
        }
    }

    fn decode(&self) -> Option<DecodedSession> {
        let signature = match self.signature {
            Some((certificate, signature)) => Some(Signature {
                certificate: certificate.parse().ok()?,
                signature: decode(signature)?,
            }),
            None => None,
        };
        Some(DecodedSession {
            key_id: self.receiver_key_id.parse().ok()?,
            time: parse_time(self.time)?,
            enc_session_key: decode(self.enc_session_key)?,
            signature,
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

/// Omits the payload, which does not belong in logs.
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

#[cfg(test)]
mod tests;
