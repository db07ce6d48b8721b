//! Messages of one session, packed: what they share is said once.
//!
//! ```text
//!   {"message_id":"…","sent_time":"…","nonce":"…","ciphertext":"…","tag":"…"}  {"receiver_client_id":"…",…}
//!   └──────────────────────────── own, one a message ─────────────────────────┘└── shared, one a line ─────┘
//! ```
//!
//! The envelope is the one object of both: the own part without its last brace, a comma, and the
//! shared part without its first brace. The own part has these five fields in this order, without
//! white space and with nothing escaped: so it is read and checked without a JSON parser.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use super::bytes::same;
use super::fields::Fields;
use super::{Envelope, EnvelopeBytes, EnvelopeError};
use crate::name::{ClientId, ExchangeName, MessageId, RoutingKey};

/// What stands before each value of an own part.
const KEYS: [&str; 5] = [
    r#"{"message_id":""#,
    r#"","sent_time":""#,
    r#"","nonce":""#,
    r#"","ciphertext":""#,
    r#"","tag":""#,
];

/// The values of an own part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Own<'a> {
    /// What tells the message from all others.
    message_id: &'a str,
    /// When it was sealed.
    sent_time: &'a str,
    /// Base64: 12 bytes.
    nonce: &'a str,
    /// Base64: the sealed payload.
    ciphertext: &'a str,
    /// Base64: 16 bytes.
    tag: &'a str,
}

impl<'a> Own<'a> {
    /// Reads an own part, without its last brace.
    fn read(text: &'a str) -> Option<Self> {
        let mut rest = text;
        let mut value = |key: &str| {
            let after = rest.strip_prefix(key)?;
            let end = memchr::memchr(b'"', after.as_bytes())?;
            let (value, end) = after.split_at_checked(end)?;
            rest = end;
            // All of them are looked at, so that many are at once.
            let plain = value
                .bytes()
                .fold(true, |plain, byte| plain & is_plain(byte));
            plain.then_some(value)
        };
        let [message_id, sent_time, nonce, ciphertext, tag] = KEYS;
        let own = Self {
            message_id: value(message_id)?,
            sent_time: value(sent_time)?,
            nonce: value(nonce)?,
            ciphertext: value(ciphertext)?,
            tag: value(tag)?,
        };
        (rest == "\"").then_some(own)
    }
}

/// Whether a byte of a value means itself in JSON, and does not end an argument of a line.
fn is_plain(byte: u8) -> bool {
    (byte > b' ') & (byte != b'\\') & (byte != 0x7f)
}

/// Whether a text can stand in an own part.
#[must_use]
pub fn can_pack(message_id: &MessageId) -> bool {
    message_id
        .as_str()
        .bytes()
        .all(|byte| is_plain(byte) && byte != b'"')
}

/// What the messages of a packed line share, read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SharedFields {
    bytes: Bytes,
    /// With the own fields of whatever message it was read with.
    fields: Fields<'static>,
    receiver_client_id: ClientId,
    sender_client_id: Option<ClientId>,
    exchange: Option<ExchangeName>,
    routing_key: Option<RoutingKey>,
}

impl SharedFields {
    /// Reads it together with one of the messages: it must not name again what is the message's
    /// own.
    fn read(bytes: &EnvelopeBytes, shared: &Bytes) -> Result<Self, EnvelopeError> {
        let whole = bytes.to_bytes();
        let (envelope, fields) = Envelope::read(&whole, None)?;
        Ok(Self {
            bytes: shared.clone(),
            fields: fields.into_owned(),
            receiver_client_id: envelope.receiver_client_id,
            sender_client_id: envelope.sender_client_id,
            exchange: envelope.exchange,
            routing_key: envelope.routing_key,
        })
    }

    fn fields<'a>(&'a self, own: &Own<'a>) -> Fields<'a> {
        Fields {
            message_id: Cow::Borrowed(own.message_id),
            sent_time: Some(Cow::Borrowed(own.sent_time)),
            nonce: Cow::Borrowed(own.nonce),
            ciphertext: Cow::Borrowed(own.ciphertext),
            tag: Some(Cow::Borrowed(own.tag)),
            ..self.fields.borrowed()
        }
    }
}

/// Reads envelopes that come one after the other. What packed ones share is read once, as long as
/// it stays the same.
#[derive(Debug, Default)]
pub struct EnvelopeReader {
    shared: Option<SharedFields>,
}

impl EnvelopeReader {
    /// Reads an envelope with all its fields.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`], as of [`Envelope::parse`]; or [`EnvelopeError::Own`].
    pub fn read<'a>(
        &'a mut self,
        bytes: &'a EnvelopeBytes,
    ) -> Result<(Envelope, Fields<'a>), EnvelopeError> {
        let Some(shared_bytes) = bytes.shared() else {
            return Envelope::read(bytes.own(), None);
        };
        let text = std::str::from_utf8(bytes.own()).map_err(|_| EnvelopeError::Own)?;
        let own = Own::read(text).ok_or(EnvelopeError::Own)?;
        let known = self
            .shared
            .take()
            .filter(|shared| same(&shared.bytes, shared_bytes));
        let shared = match known {
            Some(shared) => shared,
            None => SharedFields::read(bytes, shared_bytes)?,
        };
        let shared = self.shared.insert(shared);
        let envelope = Envelope {
            raw: bytes.clone(),
            message_id: super::named("message_id", MessageId::new(own.message_id))?,
            receiver_client_id: shared.receiver_client_id.clone(),
            sender_client_id: shared.sender_client_id.clone(),
            exchange: shared.exchange.clone(),
            routing_key: shared.routing_key.clone(),
            has_suite: shared.fields.suite.is_some(),
        };
        let fields = shared.fields(&own);
        Ok((envelope, fields))
    }
}

/// The id in an own part; nothing else of it is looked at.
pub(crate) fn message_id(own: &Bytes) -> Option<MessageId> {
    let id = own.strip_prefix(KEYS[0].as_bytes())?;
    let id = id.get(..memchr::memchr(b'"', id)?)?;
    MessageId::new(std::str::from_utf8(id).ok()?).ok()
}

/// Takes `<count> <own> ... <own> <shared>` apart; `None` if it is not of that form. Own parts
/// share the line's memory and are not looked into.
pub(crate) fn split(line: &Bytes, list: &[u8]) -> Option<Vec<EnvelopeBytes>> {
    let mut rest = list;
    let mut next = || {
        let (part, after) = rest.split_at_checked(memchr::memchr(b' ', rest)?)?;
        rest = after.get(1..)?;
        Some(part)
    };
    let count: usize = std::str::from_utf8(next()?).ok()?.parse().ok()?;
    let mut own = Vec::new();
    for _ in 0..count {
        own.push(line.slice_ref(next()?.strip_suffix(b"}")?));
    }
    let mut shared = BytesMut::with_capacity(rest.len());
    shared.put_u8(b',');
    shared.put_slice(rest.strip_prefix(b"{")?);
    let shared = shared.freeze();
    let pack = |own| EnvelopeBytes::packed(own, shared.clone());
    (count > 0).then(|| own.into_iter().map(pack).collect())
}

/// Appends `<count> <own> ... <own> <shared>`. All of them must share the same piece.
pub(crate) fn put<'a>(
    envelopes: impl ExactSizeIterator<Item = &'a EnvelopeBytes>,
    shared: &Bytes,
    out: &mut BytesMut,
) {
    out.put_slice(envelopes.len().to_string().as_bytes());
    for envelope in envelopes {
        out.reserve(envelope.own().len() + 2);
        out.put_u8(b' ');
        out.put_slice(envelope.own());
        out.put_u8(b'}');
    }
    out.put_slice(b" {");
    out.put_slice(shared.get(1..).unwrap_or_default());
}

#[cfg(test)]
#[path = "packed_tests.rs"]
mod tests;
