//! The JSON object that carries a sealed payload.
//!
//! The broker reads a few fields of an envelope and keeps the object byte for byte, unknown fields
//! included. So [`Envelope`] holds the raw bytes, and [`Fields`] is a view of them.
//!
//! - `fields`: all known fields; `encoded`: those that are bytes
//! - `bytes`: [`EnvelopeBytes`], in one part or in two
//! - `own`: the part that differs between messages, as a text or binary
//! - `packed`, `binary`: envelopes of one session in one line, and after one
//! - `reader`: [`EnvelopeReader`], which parses them

pub(crate) mod binary;
mod bytes;
mod encoded;
mod fields;
pub(crate) mod own;
pub(crate) mod packed;
mod reader;

use ::bytes::{BufMut, Bytes, BytesMut};
use serde::de::Error as _;

pub use self::bytes::EnvelopeBytes;
pub use self::encoded::Encoded;
pub use self::fields::Fields;
pub use self::own::{OwnPart, can_pack};
pub use self::reader::EnvelopeReader;
use crate::name::{ClientId, ExchangeName, MessageId, NameError, RoutingKey};

/// The reason why a text is not an envelope.
#[derive(thiserror::Error)]
pub enum EnvelopeError {
    /// The text is not a JSON object, or a field is missing, occurs twice or is not a string.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A field breaks the rule for names.
    #[error("{field}: {source}")]
    Name {
        /// The field.
        field: &'static str,
        /// The violated part of the rule.
        source: NameError,
    },
    /// The own part of an envelope in a packed line is malformed.
    #[error(
        "a message's own part must be an object of message_id, sent_time, nonce, ciphertext and \
         tag, in this order, without white space and without anything escaped, or the binary form \
         of it"
    )]
    Own,
}

crate::debug_as_report!(EnvelopeError);

/// An envelope: its unchanged bytes, and the names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    raw: EnvelopeBytes,
    /// The message's unique id.
    pub message_id: MessageId,
    /// The receiver.
    pub receiver_client_id: ClientId,
    /// The sender, as claimed by the envelope.
    pub sender_client_id: Option<ClientId>,
    /// The exchange of the publication, as claimed by the envelope.
    pub exchange: Option<ExchangeName>,
    /// The routing key of the publication, as claimed by the envelope.
    pub routing_key: Option<RoutingKey>,
    /// Whether the envelope names a suite. Those of older clients do not.
    pub has_suite: bool,
}

/// The names in an envelope that has them all, for [`Envelope::from_parts`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The message's unique id.
    pub message_id: MessageId,
    /// The receiver.
    pub receiver_client_id: ClientId,
    /// The sender.
    pub sender_client_id: ClientId,
    /// The exchange of the publication.
    pub exchange: ExchangeName,
    /// The routing key of the publication.
    pub routing_key: RoutingKey,
}

impl Envelope {
    /// Parses an envelope and keeps its bytes.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`], as of [`Fields::parse`]; or if a field breaks the rule for names.
    pub fn parse(raw: Bytes) -> Result<Self, EnvelopeError> {
        Ok(Self::read(&raw, None)?.0)
    }

    /// Parses an envelope and returns all its fields, too.
    ///
    /// Names that equal those of `like` share their memory: envelopes of one batch mostly differ
    /// only in their ids.
    ///
    /// # Errors
    ///
    /// As [`Envelope::parse`].
    pub fn read<'a>(
        raw: &'a Bytes,
        like: Option<&Self>,
    ) -> Result<(Self, Fields<'a>), EnvelopeError> {
        Self::read_text(raw.clone(), utf8(raw)?, like)
    }

    /// Parses an envelope from bytes that are known to be `text`.
    pub(crate) fn read_text<'a>(
        raw: Bytes,
        text: &'a str,
        like: Option<&Self>,
    ) -> Result<(Self, Fields<'a>), EnvelopeError> {
        let fields = Fields::parse(text)?;
        let receiver = (
            &*fields.receiver_client_id,
            like.map(|like| &like.receiver_client_id),
        );
        let envelope = Self {
            raw: raw.into(),
            message_id: named("message_id", MessageId::new(&fields.message_id))?,
            receiver_client_id: shared("receiver_client_id", receiver, ClientId::new)?,
            sender_client_id: optional(
                "sender_client_id",
                fields.sender_client_id.as_deref(),
                like.and_then(|like| like.sender_client_id.as_ref()),
                ClientId::new,
            )?,
            exchange: optional(
                "exchange",
                fields.exchange.as_deref(),
                like.and_then(|like| like.exchange.as_ref()),
                ExchangeName::new,
            )?,
            routing_key: optional(
                "routing_key",
                fields.routing_key.as_deref(),
                like.and_then(|like| like.routing_key.as_ref()),
                RoutingKey::new,
            )?,
            has_suite: fields.suite.is_some(),
        };
        Ok((envelope, fields))
    }

    /// Creates an envelope from bytes and the names in them, without parsing.
    ///
    /// [`Envelope::parse`] must read exactly these names from `raw`, and a `suite`. Debug
    /// assertions check it.
    #[must_use]
    pub fn from_parts(raw: EnvelopeBytes, names: Names) -> Self {
        let Names {
            message_id,
            receiver_client_id,
            sender_client_id,
            exchange,
            routing_key,
        } = names;
        let envelope = Self {
            raw,
            message_id,
            receiver_client_id,
            sender_client_id: Some(sender_client_id),
            exchange: Some(exchange),
            routing_key: Some(routing_key),
            has_suite: true,
        };
        debug_assert_eq!(
            EnvelopeReader::default()
                .read(&envelope.raw)
                .ok()
                .map(|(envelope, _)| envelope)
                .as_ref(),
            Some(&envelope),
            "the names are not those in the bytes"
        );
        envelope
    }

    /// Serializes fields into an envelope.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError::Name`] if a field breaks the rule for names.
    pub fn build(fields: &Fields<'_>) -> Result<Self, EnvelopeError> {
        let length = fields.enc_session_key.len() + fields.ciphertext.text().len() + 768;
        let mut raw = BytesMut::with_capacity(length).writer();
        serde_json::to_writer(&mut raw, fields)?;
        Self::parse(raw.into_inner().freeze())
    }

    /// Returns the envelope's bytes: of a JSON object without white space around it.
    #[must_use]
    pub fn raw(&self) -> &EnvelopeBytes {
        &self.raw
    }

    /// Returns the same envelope with its own part as a text.
    #[must_use]
    pub fn with_text(&self) -> Self {
        Self {
            raw: self.raw.with_text(),
            ..self.clone()
        }
    }

    /// Parses all fields.
    ///
    /// # Errors
    ///
    /// None for an envelope that was parsed; the `Result` is that of parsing again.
    pub fn fields(&self) -> Result<Fields<'_>, EnvelopeError> {
        match self.raw.shared() {
            None => Fields::parse(utf8(self.raw.own())?),
            Some(_) => Ok(Fields::parse(utf8(&self.raw.to_bytes())?)?.into_owned()),
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, EnvelopeError> {
    Ok(std::str::from_utf8(bytes).map_err(serde_json::Error::custom)?)
}

fn named<T>(field: &'static str, name: Result<T, NameError>) -> Result<T, EnvelopeError> {
    name.map_err(|source| EnvelopeError::Name { field, source })
}

/// Returns a name; a clone of `like` if it is the same.
fn shared<T: Clone + AsRef<str>>(
    field: &'static str,
    (text, like): (&str, Option<&T>),
    name: fn(&str) -> Result<T, NameError>,
) -> Result<T, EnvelopeError> {
    match like {
        Some(like) if like.as_ref() == text => Ok(like.clone()),
        _ => named(field, name(text)),
    }
}

fn optional<T: Clone + AsRef<str>>(
    field: &'static str,
    text: Option<&str>,
    like: Option<&T>,
    name: fn(&str) -> Result<T, NameError>,
) -> Result<Option<T>, EnvelopeError> {
    text.map(|text| shared(field, (text, like), name))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"message_id":"m-1","receiver_client_id":"receiver_1","enc_session_key":"YQ==","nonce":"Yg==","ciphertext":"Yw==","sent_time":"2025-09-08T07:03:00Z","extra":{"a":[1,2]}}"#;

    fn parse(text: &str) -> Result<Envelope, EnvelopeError> {
        Envelope::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn keeps_the_bytes_unchanged() {
        let spaced = OLD.replace(':', " : ");
        assert_eq!(parse(&spaced).unwrap().raw().to_bytes(), spaced.as_bytes());
    }

    #[test]
    fn reads_an_older_clients_envelope() {
        let envelope = parse(OLD).unwrap();
        assert_eq!(envelope.message_id.as_str(), "m-1");
        assert_eq!(envelope.receiver_client_id.as_str(), "receiver_1");
        assert_eq!(
            (envelope.sender_client_id.clone(), envelope.has_suite),
            (None, false)
        );
        assert_eq!(
            envelope.fields().unwrap().sent_time.as_deref(),
            Some("2025-09-08T07:03:00Z")
        );
    }

    #[test]
    fn null_is_a_missing_field() {
        let envelope = parse(&OLD.replace("\"extra\"", "\"tag\":null,\"extra\"")).unwrap();
        assert_eq!(envelope.fields().unwrap().tag, None);
    }

    #[test]
    fn errors_name_the_missing_field() {
        for field in [
            "message_id",
            "receiver_client_id",
            "enc_session_key",
            "nonce",
            "ciphertext",
        ] {
            let text = OLD.replace(&format!("\"{field}\""), "\"other\"");
            assert!(
                parse(&text)
                    .unwrap_err()
                    .to_string()
                    .contains(&format!("missing field `{field}`")),
                "{field}"
            );
        }
    }

    #[test]
    fn refuses_duplicate_fields() {
        for (twice, field) in [
            ("\"nonce\":\"x\",", "nonce"),
            ("\"extra\":1,", "extra"),
            ("\"n\\u006fnce\":\"x\",", "nonce"),
        ] {
            let text = OLD.replacen('{', &format!("{{{twice}"), 1);
            let error = parse(&text).unwrap_err().to_string();
            assert!(
                error.contains("duplicate field") && error.contains(field),
                "{error}"
            );
        }
    }

    #[test]
    fn refuses_other_json() {
        for text in [
            "",
            "null",
            "[]",
            "{}",
            "{",
            "\"x\"",
            "1",
            "{} {}",
            "{\"message_id\":1}",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&OLD.replace("\"m-1\"", "7")).is_err());
        assert!(
            parse(&OLD.replace("m-1", "m 1"))
                .unwrap_err()
                .to_string()
                .starts_with("message_id:")
        );
        assert!(
            parse(&OLD.replace("receiver_1", ""))
                .unwrap_err()
                .to_string()
                .starts_with("receiver_client_id:")
        );
        assert!(Envelope::parse(Bytes::from_static(b"{\"a\":\"\xff\"}")).is_err());
    }

    #[test]
    fn from_parts_equals_the_parsed_envelope() {
        let text = OLD.replace(
            "\"extra\"",
            "\"suite\":\"s\",\"sender_client_id\":\"a\",\"exchange\":\"e\",\"routing_key\":\"k\",\"extra\"",
        );
        let parsed = parse(&text).unwrap();
        let names = Names {
            message_id: parsed.message_id.clone(),
            receiver_client_id: parsed.receiver_client_id.clone(),
            sender_client_id: ClientId::new("a").unwrap(),
            exchange: ExchangeName::new("e").unwrap(),
            routing_key: RoutingKey::new("k").unwrap(),
        };
        assert_eq!(Envelope::from_parts(parsed.raw().clone(), names), parsed);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "the names are not those in the bytes")]
    fn from_parts_panics_on_wrong_names_in_debug_builds() {
        let names = Names {
            message_id: MessageId::new("m-1").unwrap(),
            receiver_client_id: ClientId::new("receiver_1").unwrap(),
            sender_client_id: ClientId::new("somebody").unwrap(),
            exchange: ExchangeName::new("e").unwrap(),
            routing_key: RoutingKey::new("k").unwrap(),
        };
        let _ = Envelope::from_parts(Bytes::from_static(OLD.as_bytes()).into(), names);
    }

    #[test]
    fn every_truncation_is_refused() {
        for end in 0..OLD.len() {
            assert!(parse(&OLD[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn fields_are_written_in_order_and_round_trip() {
        let old = parse(OLD).unwrap();
        let mut fields = old.fields().unwrap();
        fields.suite = Some("X25519-AES256GCM".into());
        fields.sender_client_id = Some("sender_1".into());
        let envelope = Envelope::build(&fields).unwrap();
        assert_eq!(
            envelope.raw().to_bytes(),
            &br#"{"message_id":"m-1","receiver_client_id":"receiver_1","enc_session_key":"YQ==","nonce":"Yg==","ciphertext":"Yw==","suite":"X25519-AES256GCM","sender_client_id":"sender_1","sent_time":"2025-09-08T07:03:00Z"}"#[..]
        );
        assert_eq!(envelope.fields().unwrap(), fields);
        assert!(envelope.has_suite);
    }
}
