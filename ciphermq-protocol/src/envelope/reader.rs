//! Parsing of envelopes that share most of their fields.

use std::borrow::Cow;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::bytes::same;
use super::own::{KEYS, Own};
use super::{Envelope, EnvelopeBytes, EnvelopeError, Fields, named};
use crate::name::{ClientId, ExchangeName, MessageId, RoutingKey};

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
    /// Parses a shared part together with an own part that has no values but its id.
    ///
    /// So a shared part that repeats an own field is refused.
    fn read(own: &Own<'_>, shared: &Bytes) -> Result<Self, EnvelopeError> {
        let mut whole = BytesMut::with_capacity(256 + shared.len());
        for (key, value) in KEYS.iter().zip([own.message_id, "", "", "", ""]) {
            whole.put_slice(key.as_bytes());
            whole.put_slice(value.as_bytes());
        }
        whole.put_u8(b'"');
        whole.put_slice(shared);
        let whole = whole.freeze();
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

    fn fields<'a>(&'a self, own: Own<'a>) -> Fields<'a> {
        Fields {
            message_id: Cow::Borrowed(own.message_id),
            sent_time: Some(Cow::Borrowed(own.sent_time)),
            nonce: own.nonce,
            ciphertext: own.ciphertext,
            tag: Some(own.tag),
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
        let own = Own::read(bytes.own()).ok_or(EnvelopeError::Own)?;
        let known = self
            .shared
            .take()
            .filter(|shared| same(&shared.bytes, shared_bytes));
        let shared = match known {
            Some(shared) => shared,
            None => SharedFields::read(&own, shared_bytes)?,
        };
        let shared = self.shared.insert(shared);
        let envelope = Envelope {
            raw: bytes.clone(),
            message_id: named("message_id", MessageId::new(own.message_id))?,
            receiver_client_id: shared.receiver_client_id.clone(),
            sender_client_id: shared.sender_client_id.clone(),
            exchange: shared.exchange.clone(),
            routing_key: shared.routing_key.clone(),
            has_suite: shared.fields.suite.is_some(),
        };
        let fields = shared.fields(own);
        Ok((envelope, fields))
    }
}
