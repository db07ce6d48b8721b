//! The receiver's side: envelopes in, authentic payloads out.

use std::fmt;

use ciphermq_protocol::envelope::Fields;
use ciphermq_protocol::{ClientId, Envelope, ExchangeName, MessageId, RoutingKey};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use crate::encoding::{decode, decode_array, parse_time, put_field};
use crate::error::OpenError;
use crate::identity::{Authority, Fingerprint};
use crate::keys::{KeyId, Keyring};
use crate::payload::{Authenticated, PayloadCipher, hash};
use crate::sender::{Senders, Signature, Signed, Unverified};
use crate::session::{Session, SessionCache, info, is_within_age};
use crate::suite::{Form, Suite, Unopened, open_older};

/// What a receiver admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenPolicy {
    /// Whether messages are opened although nobody can say who sent them: those of sessions that
    /// are not signed, and those of older clients, which a broker can also give another id or send
    /// another way. A signature that stands there is verified all the same. Default: no.
    pub unverified_senders: bool,
    /// Refuse messages that were published to any other exchange. Older clients' messages do not
    /// say so in a way that could be checked, and are not asked.
    pub exchange: Option<ExchangeName>,
    /// Refuse messages that were published by any other routing key. Older clients' messages are
    /// not asked.
    pub routing_key: Option<RoutingKey>,
    /// How many opened session keys are remembered. Default: 256.
    pub session_cache: usize,
}

impl Default for OpenPolicy {
    fn default() -> Self {
        Self {
            unverified_senders: false,
            exchange: None,
            routing_key: None,
            session_cache: 256,
        }
    }
}

/// A message that was opened. With a suite, all of it is as it was sealed; from an older client,
/// the payload alone is.
#[derive(Clone, PartialEq, Eq)]
pub struct Opened {
    /// What was sealed.
    pub payload: Vec<u8>,
    /// What tells the message from all others.
    pub message_id: MessageId,
    /// Who has sent it, if that is verified; else who says so, which is a claim that anybody can
    /// make.
    pub sender: Option<ClientId>,
    /// Whether the sender has signed the message's session with its certificate.
    pub is_sender_verified: bool,
    /// How it was sealed.
    pub form: Form,
    /// When it was sealed, by the sender's clock. `None` if an older client did not say so, or not
    /// in RFC 3339.
    pub sent_time: Option<Timestamp>,
    /// What the payload is, a media type. Older clients do not say so.
    pub content_type: Option<String>,
}

/// Opens the messages of one receiver, and remembers their session keys. They are wiped when it is
/// dropped.
pub struct Opener {
    receiver: ClientId,
    keyring: Keyring,
    policy: OpenPolicy,
    sessions: SessionCache,
    senders: Senders,
    name: Vec<u8>,
    aad: Vec<u8>,
}

impl Opener {
    /// An opener for the client `receiver`, with its private keys, and the authority that names its
    /// senders.
    #[must_use]
    pub fn new(
        receiver: ClientId,
        keyring: Keyring,
        authority: Authority,
        policy: OpenPolicy,
    ) -> Self {
        let sessions = SessionCache::new(policy.session_cache);
        Self {
            receiver,
            keyring,
            policy,
            sessions,
            senders: Senders::new(authority),
            name: Vec::new(),
            aad: Vec::new(),
        }
    }

    /// The keys that it opens with.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Takes note of a sender's certificate chain, its own certificate first. Whoever gave it need
    /// not be trusted: it is verified when a message needs it.
    pub fn learn(&mut self, chain: Vec<CertificateDer<'static>>) {
        self.senders.learn(chain);
    }

    /// Opens a message.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: one and the same, [`OpenError::NotAuthentic`], for whatever was altered.
    /// [`OpenError::CertificateNeeded`] is no refusal: [teach](Opener::learn) the certificate, and
    /// open the message again. If that error comes once more, what was taught was another
    /// certificate.
    pub fn open(&mut self, envelope: &Envelope) -> Result<Opened, OpenError> {
        let fields = envelope.fields().map_err(|_| OpenError::NotAuthentic)?;
        self.open_read(envelope, &fields)
    }

    /// Opens a message whose fields were read already: they must be the envelope's own.
    ///
    /// # Errors
    ///
    /// As [`Opener::open`].
    pub fn open_read(
        &mut self,
        envelope: &Envelope,
        fields: &Fields<'_>,
    ) -> Result<Opened, OpenError> {
        if envelope.receiver_client_id != self.receiver {
            return Err(OpenError::OtherReceiver(
                envelope.receiver_client_id.clone(),
            ));
        }
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

    fn open_with_suite(
        &mut self,
        suite: Suite,
        envelope: &Envelope,
        fields: &Fields<'_>,
    ) -> Result<Opened, OpenError> {
        let stated = Stated::read(fields).ok_or(OpenError::NotAuthentic)?;
        if stated.session.signature.is_none() && !self.policy.unverified_senders {
            return Err(OpenError::UnsignedSession);
        }

        // A session is known by all that it was opened with: the same one with another signature
        // must be verified anew.
        stated.session.write(suite, &mut self.name);
        let session = self
            .sessions
            .find_or_open(&self.name, || {
                let opening = stated.session.read().ok_or(OpenError::NotAuthentic)?;
                let info = info(
                    suite.as_str(),
                    stated.session.sender,
                    self.receiver.as_str(),
                    stated.session.receiver_key_id,
                    stated.session.time,
                );
                let session_key = suite
                    .open_session_key(
                        &self.keyring,
                        opening.key_id,
                        &info,
                        &opening.enc_session_key,
                    )
                    .map_err(|error| match error {
                        Unopened::NoPrivateKey => OpenError::NoPrivateKey(opening.key_id),
                        Unopened::NotAuthentic => OpenError::NotAuthentic,
                    })?;
                if let Some(signature) = &opening.signature {
                    let signed = Signed {
                        suite: suite.as_str(),
                        sender: stated.session.sender,
                        receiver: self.receiver.as_str(),
                        receiver_key_id: stated.session.receiver_key_id,
                        session_time: stated.session.time,
                        enc_session_key: &opening.enc_session_key,
                    };
                    self.senders
                        .verify(&signed, opening.time, signature)
                        .map_err(|error| match error {
                            Unverified::CertificateNeeded => {
                                certificate_needed(envelope, signature.certificate)
                            }
                            Unverified::Forged => OpenError::NotAuthentic,
                            Unverified::Sender(error) => OpenError::Sender(error),
                        })?;
                }
                Ok::<_, OpenError>(Session {
                    cipher: PayloadCipher::new(&session_key),
                    time: opening.time,
                    enc_session_key_hash: hash(&opening.enc_session_key),
                    is_verified: opening.signature.is_some(),
                })
            })?
            .ok_or(OpenError::NotAuthentic)?;

        Authenticated {
            suite: suite.as_str(),
            message_id: &fields.message_id,
            sender: stated.session.sender,
            receiver: self.receiver.as_str(),
            receiver_key_id: stated.session.receiver_key_id,
            exchange: stated.exchange,
            routing_key: stated.routing_key,
            sent_time: stated.sent_time_text,
            enc_session_key_hash: &session.enc_session_key_hash,
            content_type: stated.content_type,
            session_time: stated.session.time,
        }
        .write(&mut self.aad);
        let mut payload = stated.ciphertext;
        session
            .cipher
            .open(stated.nonce, &self.aad, &mut payload, stated.tag)
            .ok_or(OpenError::NotAuthentic)?;

        // From here on the message is what its sender sealed; the question is whether we want it.
        if !is_within_age(session.time, stated.sent_time) {
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

/// What an envelope with a suite states, each field in its one spelling.
struct Stated<'a> {
    session: StatedSession<'a>,
    exchange: &'a str,
    routing_key: &'a str,
    content_type: &'a str,
    sent_time_text: &'a str,
    sent_time: Timestamp,
    nonce: [u8; crate::payload::NONCE_BYTES],
    ciphertext: Vec<u8>,
    tag: [u8; crate::payload::TAG_BYTES],
}

/// What it states of its session. Many messages state the same, so it is read once for all of them.
struct StatedSession<'a> {
    receiver_key_id: &'a str,
    sender: &'a str,
    time: &'a str,
    enc_session_key: &'a str,
    /// The certificate's fingerprint, and the signature.
    signature: Option<(&'a str, &'a str)>,
}

/// A session to open.
struct Opening {
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

impl<'a> Stated<'a> {
    fn read(fields: &'a Fields<'_>) -> Option<Self> {
        let sent_time_text = fields.sent_time.as_deref()?;
        Some(Self {
            session: StatedSession {
                receiver_key_id: fields.receiver_key_id.as_deref()?,
                sender: fields.sender_client_id.as_deref()?,
                time: fields.session_time.as_deref()?,
                enc_session_key: &fields.enc_session_key,
                signature: match (&fields.sender_certificate, &fields.sender_signature) {
                    (Some(certificate), Some(signature)) => Some((certificate, signature)),
                    (None, None) => None,
                    // One without the other is neither signed nor unsigned.
                    _ => return None,
                },
            },
            exchange: fields.exchange.as_deref()?,
            routing_key: fields.routing_key.as_deref()?,
            content_type: fields.content_type.as_deref()?,
            sent_time_text,
            sent_time: parse_time(sent_time_text)?,
            nonce: decode_array(&fields.nonce)?,
            ciphertext: decode(&fields.ciphertext)?,
            tag: decode_array(fields.tag.as_deref()?)?,
        })
    }
}

impl StatedSession<'_> {
    /// Writes all of it over what is in `out`.
    fn write(&self, suite: Suite, out: &mut Vec<u8>) {
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

    fn read(&self) -> Option<Opening> {
        let signature = match self.signature {
            Some((certificate, signature)) => Some(Signature {
                certificate: certificate.parse().ok()?,
                signature: decode(signature)?,
            }),
            None => None,
        };
        Some(Opening {
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
