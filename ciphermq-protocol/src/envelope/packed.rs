//! Packed envelopes of one session: their shared part is sent once.
//!
//! ```text
//!   {"message_id":"…","sent_time":"…","nonce":"…","ciphertext":"…","tag":"…"}  {"receiver_client_id":"…",…}
//!   └──────────────────────────── own, one a message ─────────────────────────┘└── shared, one a line ─────┘
//! ```
//!
//! An envelope is the union of both objects: the own part without its last brace, a comma, and the
//! shared part without its first brace. The own part has these five fields in this order, without
//! white space and without escapes, so no JSON parser is needed to read and check it.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

use super::bytes::same;
use super::fields::Fields;
use super::{Envelope, EnvelopeBytes, EnvelopeError};
use crate::name::{ClientId, ExchangeName, MessageId, RoutingKey};

/// The text before each value of an own part.
const KEYS: [&str; 5] = [
    r#"{"message_id":""#,
    r#"","sent_time":""#,
    r#"","nonce":""#,
    r#"","ciphertext":""#,
    r#"","tag":""#,
];

/// The fields of an own part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Own<'a> {
    /// The message's unique id.
    message_id: &'a str,
    /// The time of sealing.
    sent_time: &'a str,
    /// Base64: the nonce, 12 bytes.
    nonce: &'a str,
    /// Base64: the sealed payload.
    ciphertext: &'a str,
    /// Base64: the tag, 16 bytes.
    tag: &'a str,
}

impl<'a> Own<'a> {
    /// Parses an own part, without its last brace.
    fn read(text: &'a str) -> Option<Self> {
        let mut rest = text;
        let mut value = |key: &str| {
            let after = rest.strip_prefix(key)?;
            let end = memchr::memchr(b'"', after.as_bytes())?;
            let (value, end) = after.split_at_checked(end)?;
            rest = end;
            // No early exit, so that the compiler vectorises the loop.
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

/// Returns whether a byte needs no escape in JSON, and does not end an argument of a line.
fn is_plain(byte: u8) -> bool {
    (byte > b' ') & (byte != b'\\') & (byte != 0x7f)
}

/// Returns whether an envelope with this id can be packed.
#[must_use]
pub fn can_pack(message_id: &MessageId) -> bool {
    message_id
        .as_str()
        .bytes()
        .all(|byte| is_plain(byte) && byte != b'"')
}

/// A parsed shared part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SharedFields {
    bytes: Bytes,
    /// The fields, including the own fields of the envelope that they were parsed from.
    fields: Fields<'static>,
    receiver_client_id: ClientId,
    sender_client_id: Option<ClientId>,
    exchange: Option<ExchangeName>,
    routing_key: Option<RoutingKey>,
}

impl SharedFields {
    /// Parses a shared part together with one of its envelopes.
    ///
    /// So a shared part that repeats an own field is refused.
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

/// A reader of consecutive envelopes, which parses a shared part only when it changes.
#[derive(Debug, Default)]
pub struct EnvelopeReader {
    shared: Option<SharedFields>,
}

impl EnvelopeReader {
    /// Parses an envelope and all its fields.
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

/// Reads the id in an own part, without checking the rest.
pub(crate) fn message_id(own: &Bytes) -> Option<MessageId> {
    let id = own.strip_prefix(KEYS[0].as_bytes())?;
    let id = id.get(..memchr::memchr(b'"', id)?)?;
    MessageId::new(std::str::from_utf8(id).ok()?).ok()
}

/// Splits `<count> <own> ... <own> <shared>`; `None` if the list has another form.
///
/// Own parts share the line's memory and are not checked.
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

/// Appends `<count> <own> ... <own> <shared>`.
///
/// All envelopes must have this shared part.
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
mod tests;
