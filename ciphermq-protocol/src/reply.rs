//! Replies of the server, one line each.
//!
//! The texts are fixed: older clients compare them literally.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::administration::{ClientsPage, ConnectionsPage, Reloaded};
use crate::certificate::CertificateChain;
use crate::ends::EndsPage;
use crate::envelope::{
    Envelope, EnvelopeBytes, EnvelopeError, EnvelopeReader, binary, own, packed,
};
use crate::error_code::ErrorCode;
use crate::hello::HelloReply;
use crate::json;
use crate::name::MessageId;
use crate::permission::Permission;
use crate::rejected::RejectedPage;
use crate::revocation::{self, RevocationLists};
use crate::topology::{BindingsPage, ExchangesPage, QueuesPage};
use crate::waiting::WaitingPage;

/// A reply or a delivery.
///
/// [`Reply::encode`] writes it, [`Reply::parse`] reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `Queue declared`
    QueueDeclared,
    /// `Exchange declared`
    ExchangeDeclared,
    /// `Queue bound`
    QueueBound,
    /// `Queue unbound`
    QueueUnbound,
    /// `Queue deleted`
    QueueDeleted,
    /// `Exchange deleted`
    ExchangeDeleted,
    /// `Queue purged`
    QueuePurged,
    /// `Queues: <json>`
    Queues(QueuesPage),
    /// `Exchanges: <json>`
    Exchanges(ExchangesPage),
    /// `Bindings: <json>`
    Bindings(BindingsPage),
    /// `ACK <message_id>`: the message is durable.
    Ack(MessageId),
    /// `Subscribed to queue`
    Subscribed,
    /// `No messages`
    NoMessages,
    /// `Message: <message_id> <json>`: a delivery, or the reply to `fetch`.
    Message(Delivery),
    /// `Messages: <count> <own> ... <own> <shared>`, or `Binary messages: <bytes> <count> <shared>`
    /// and the own parts after it: deliveries whose envelopes share most fields.
    Messages(Vec<Delivery>),
    /// `ACK_CONFIRMED <message_id>`: the message is never delivered again.
    AckConfirmed(MessageId),
    /// `ACK_ALL <count>`: all messages of a command, `count` of them, are durable.
    AckAll(usize),
    /// `ACK_CONFIRMED_ALL <count>`: all messages of a command, `count` of them, are never delivered
    /// again.
    AckConfirmedAll(usize),
    /// `Rejected <message_id>`
    Rejected(MessageId),
    /// `Resend requested`
    ResendRequested,
    /// `Unauthorized resend request`
    UnauthorizedResend,
    /// `Message ID not found`
    MessageIdNotFound,
    /// `Public key registered`
    PublicKeyRegistered,
    /// `Public key: <base64>`
    PublicKey(String),
    /// `Public key not found`
    PublicKeyNotFound,
    /// `Signed key: <signed key>`
    SignedKey(String),
    /// `Certificate: <base64 DER>[,<base64 DER> ...]`, the client's own certificate first.
    Certificate(CertificateChain),
    /// `Certificate not found`
    CertificateNotFound,
    /// `Certificate registered`
    CertificateRegistered,
    /// `Revocation lists: <json array>`: base64 of DER each.
    RevocationLists(RevocationLists),
    /// `Hello: <json>`
    Hello(Box<HelloReply>),
    /// `Rejected messages: <json>`
    RejectedMessages(RejectedPage),
    /// `Waiting keys: <json>`
    WaitingKeys(WaitingPage),
    /// `Permission: <json>`
    Permission(Permission),
    /// `Connections: <json>`
    Connections(ConnectionsPage),
    /// `Connection closed`
    ConnectionClosed,
    /// `Clients: <json>`
    Clients(ClientsPage),
    /// `Client blocked`
    ClientBlocked,
    /// `Client unblocked`
    ClientUnblocked,
    /// `Ends: <json>`
    Ends(EndsPage),
    /// `Reloaded: <json>`
    Reloaded(Reloaded),
    /// `PONG`
    Pong,
    /// `Heartbeat received`: the `PONG` of older clients.
    HeartbeatReceived,
    /// `Unknown command`
    UnknownCommand,
    /// `Missing queue name` and similar: an argument is missing.
    Missing(Missing),
    /// `Invalid message format: <text>`
    InvalidMessageFormat(String),
    /// `Invalid batch format: <text>`: nothing of the batch is stored.
    InvalidBatchFormat(String),
    /// `Error: <code>: <text>[ for message <message_id>]`
    Error(ErrorReply),
}

/// A message that the server delivers to a receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The message's id.
    pub message_id: MessageId,
    /// The envelope's bytes, as the sender wrote them.
    pub envelope: EnvelopeBytes,
}

impl Delivery {
    /// Parses the envelope.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] if the server delivered something else.
    pub fn parse_envelope(&self) -> Result<Envelope, EnvelopeError> {
        Ok(EnvelopeReader::default().read(&self.envelope)?.0)
    }

    /// Appends the delivery to `out`, with its line ending.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.envelope.len() + self.message_id.as_str().len() + 11);
        put(out, &["Message: ", self.message_id.as_str(), " "]);
        self.envelope.put(out);
        out.put_u8(b'\n');
    }

    /// Appends deliveries to `out`, packed into as few lines as their envelopes and the client
    /// allow.
    ///
    /// Packed ones are written as [`Reply::Messages`]; in the binary form, if they have it and the
    /// client takes it.
    pub fn encode_packed(mut deliveries: &[Self], taken: PackedLines, out: &mut BytesMut) {
        while let Some(first) = deliveries.first() {
            let Some(shared) = first.envelope.shared() else {
                first.encode(out);
                deliveries = deliveries.get(1..).unwrap_or_default();
                continue;
            };
            let is_binary = |delivery: &Self| taken.binary && delivery.envelope.is_binary();
            let mut bytes = shared.len() + MAX_PACKED_START_BYTES;
            let limit = taken.max_line_bytes.min(bytes + MAX_PACKED_OWN_BYTES);
            let together = deliveries
                .iter()
                .enumerate()
                .take_while(|(index, delivery)| {
                    let form = is_binary(delivery);
                    if form != is_binary(first) || !delivery.envelope.shares_with(&first.envelope) {
                        return false;
                    }
                    bytes += match form {
                        true => delivery.envelope.own().len() + 4,
                        false => delivery.envelope.len() - shared.len() + 2,
                    };
                    *index == 0 || bytes <= limit
                })
                .count();
            let (line, rest) = deliveries.split_at(together);
            let envelopes = line.iter().map(|delivery| &delivery.envelope);
            out.reserve(bytes);
            if is_binary(first) {
                binary::put(binary::DELIVER, "", envelopes, shared, out);
            } else {
                out.put_slice(b"Messages: ");
                packed::put(envelopes, shared, out);
                out.put_u8(b'\n');
            }
            deliveries = rest;
        }
    }
}

/// What a client takes of packed deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedLines {
    /// Whether it takes the binary form.
    pub binary: bool,
    /// The limit for a line with several messages, in bytes, with the bytes after it.
    pub max_line_bytes: usize,
}

impl PackedLines {
    /// Everything, in lines of any length.
    pub const ALL: Self = Self {
        binary: true,
        max_line_bytes: usize::MAX,
    };
}

/// The limit of own parts in a line of packed deliveries, in bytes. Clients limit the length of
/// lines, too.
const MAX_PACKED_OWN_BYTES: usize = 64 * 1024;
/// The bytes of a packed line before its own parts and beside the shared part, at most.
const MAX_PACKED_START_BYTES: usize = 64;

/// A missing argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// `Missing queue name`
    QueueName,
    /// `Missing exchange name`
    ExchangeName,
    /// `Missing parameters`
    Parameters,
    /// `Missing message ID`
    MessageId,
    /// `Missing public key`
    PublicKey,
    /// `Missing client ID`
    ClientId,
}

impl Missing {
    const ALL: [Self; 6] = [
        Self::QueueName,
        Self::ExchangeName,
        Self::Parameters,
        Self::MessageId,
        Self::PublicKey,
        Self::ClientId,
    ];

    /// Returns the reply's text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueName => "Missing queue name",
            Self::ExchangeName => "Missing exchange name",
            Self::Parameters => "Missing parameters",
            Self::MessageId => "Missing message ID",
            Self::PublicKey => "Missing public key",
            Self::ClientId => "Missing client ID",
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `Error: <code>: <text>[ for message <message_id>]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply {
    /// The code; `None` if this version does not know it, which leaves the outcome unknown.
    pub code: Option<ErrorCode>,
    /// The description, for people. An unknown code is at its beginning.
    pub text: String,
    /// The message of a batch that the error is about.
    pub message_id: Option<MessageId>,
}

/// What precedes the number of milliseconds in a `rate_limited` error.
const RETRY_IN: &str = "; retry in ";

impl ErrorReply {
    /// Creates an error about a whole command.
    #[must_use]
    pub fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self {
            code: Some(code),
            text: text.into(),
            message_id: None,
        }
    }

    /// Creates a `rate_limited` error, which ends in `; retry in <n> ms`.
    ///
    /// [`ErrorReply::retry_after`] returns the pause, rounded up to a millisecond.
    #[must_use]
    pub fn rate_limited(text: &str, pause: Duration) -> Self {
        let milliseconds = pause.as_nanos().div_ceil(1_000_000).max(1);
        let text = format!("{text}{RETRY_IN}{milliseconds} ms");
        Self::new(ErrorCode::RateLimited, text)
    }

    /// Returns the pause after which the same may be sent again, if the error is `rate_limited`.
    ///
    /// A text without a pause counts as one second.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if self.code != Some(ErrorCode::RateLimited) {
            return None;
        }
        let pause = self
            .text
            .rsplit_once(RETRY_IN)
            .and_then(|(_, pause)| pause.strip_suffix(" ms")?.parse().ok());
        Some(Duration::from_millis(pause.unwrap_or(1000)))
    }

    /// Limits the error to one message of a batch.
    #[must_use]
    pub fn for_message(self, message_id: MessageId) -> Self {
        Self {
            message_id: Some(message_id),
            ..self
        }
    }

    /// Returns whether the command certainly had no effect.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        self.code.is_some_and(ErrorCode::is_definite)
    }

    fn parse(rest: &str) -> Self {
        let (rest, message_id) = match rest.rsplit_once(" for message ") {
            Some((before, id)) => match MessageId::new(id) {
                Ok(id) => (before, Some(id)),
                Err(_) => (rest, None),
            },
            None => (rest, None),
        };
        let coded = rest
            .split_once(": ")
            .and_then(|(code, text)| Some((code.parse().ok()?, text)));
        match coded {
            Some((code, text)) => Self {
                code: Some(code),
                text: text.to_owned(),
                message_id,
            },
            None => Self {
                code: None,
                text: rest.to_owned(),
                message_id,
            },
        }
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = self.code {
            write!(f, "{code}: ")?;
        }
        f.write_str(&self.text)?;
        match &self.message_id {
            Some(id) => write!(f, " for message {id}"),
            None => Ok(()),
        }
    }
}

impl From<ErrorReply> for Reply {
    fn from(error: ErrorReply) -> Self {
        Self::Error(error)
    }
}

/// An error about a line that is not a reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no reply of the protocol: {line:?}")]
pub struct ReplyError {
    /// The beginning of the line.
    pub line: String,
}

impl Reply {
    /// Parses a line, without its ending.
    ///
    /// A delivery's envelope shares the line's memory and is not parsed.
    ///
    /// # Errors
    ///
    /// [`ReplyError`] if it is not a reply.
    pub fn parse(line: &Bytes) -> Result<Self, ReplyError> {
        // Deliveries are long, so only their ids are checked here, not their envelopes.
        if let Some(rest) = line.strip_prefix(b"Message: ") {
            return parse_delivery(line, rest).ok_or_else(|| reply_error(line));
        }
        if let Some(rest) = line.strip_prefix(b"Messages: ") {
            let envelopes = packed::split(line, rest).ok();
            return parse_deliveries(envelopes).ok_or_else(|| reply_error(line));
        }
        if let Some(rest) = line.strip_prefix(binary::DELIVER.as_bytes()) {
            let envelopes = split_binary(line, rest);
            return parse_deliveries(envelopes).ok_or_else(|| reply_error(line));
        }
        let text = std::str::from_utf8(line).map_err(|_| reply_error(line))?;
        parse_text(text).ok_or_else(|| reply_error(line))
    }

    /// Appends the reply to `out`, with its line ending.
    ///
    /// Control characters inside texts become spaces.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Message(delivery) => return delivery.encode(out),
            Self::Messages(deliveries) => {
                return Delivery::encode_packed(deliveries, PackedLines::ALL, out);
            }
            Self::Ack(id) => put(out, &["ACK ", id.as_str()]),
            Self::AckConfirmed(id) => put(out, &["ACK_CONFIRMED ", id.as_str()]),
            Self::AckAll(count) => put(out, &["ACK_ALL ", &count.to_string()]),
            Self::AckConfirmedAll(count) => put(out, &["ACK_CONFIRMED_ALL ", &count.to_string()]),
            Self::Rejected(id) => put(out, &["Rejected ", id.as_str()]),
            Self::PublicKey(key) => put(out, &["Public key: ", key]),
            Self::SignedKey(key) => put(out, &["Signed key: ", key]),
            Self::Certificate(chain) => put(out, &["Certificate: ", &chain.to_string()]),
            Self::RevocationLists(lists) => put_json(out, revocation::PREFIX, lists),
            Self::Hello(reply) => put_json(out, "Hello: ", reply),
            Self::RejectedMessages(page) => put_json(out, "Rejected messages: ", page),
            Self::WaitingKeys(page) => put_json(out, "Waiting keys: ", page),
            Self::Queues(page) => put_json(out, "Queues: ", page),
            Self::Exchanges(page) => put_json(out, "Exchanges: ", page),
            Self::Bindings(page) => put_json(out, "Bindings: ", page),
            Self::Connections(page) => put_json(out, "Connections: ", page),
            Self::Clients(page) => put_json(out, "Clients: ", page),
            Self::Ends(page) => put_json(out, "Ends: ", page),
            Self::Reloaded(reloaded) => put_json(out, "Reloaded: ", reloaded),
            Self::Permission(permission) => put_json(out, "Permission: ", permission),
            Self::Missing(missing) => put(out, &[missing.as_str()]),
            Self::InvalidMessageFormat(text) => put_text(out, "Invalid message format: ", text),
            Self::InvalidBatchFormat(text) => put_text(out, "Invalid batch format: ", text),
            Self::Error(error) => put_text(out, "Error: ", &error.to_string()),
            fixed => put(out, &[fixed.fixed_text().unwrap_or_default()]),
        }
        out.put_u8(b'\n');
    }

    fn fixed_text(&self) -> Option<&'static str> {
        FIXED_REPLIES
            .iter()
            .find(|(reply, _)| reply == self)
            .map(|(_, text)| *text)
    }
}

/// The replies without arguments, with their texts.
const FIXED_REPLIES: &[(Reply, &str)] = &[
    (Reply::QueueDeclared, "Queue declared"),
    (Reply::ExchangeDeclared, "Exchange declared"),
    (Reply::QueueBound, "Queue bound"),
    (Reply::QueueUnbound, "Queue unbound"),
    (Reply::QueueDeleted, "Queue deleted"),
    (Reply::ExchangeDeleted, "Exchange deleted"),
    (Reply::QueuePurged, "Queue purged"),
    (Reply::ConnectionClosed, "Connection closed"),
    (Reply::ClientBlocked, "Client blocked"),
    (Reply::ClientUnblocked, "Client unblocked"),
    (Reply::Subscribed, "Subscribed to queue"),
    (Reply::NoMessages, "No messages"),
    (Reply::ResendRequested, "Resend requested"),
    (Reply::UnauthorizedResend, "Unauthorized resend request"),
    (Reply::MessageIdNotFound, "Message ID not found"),
    (Reply::PublicKeyRegistered, "Public key registered"),
    (Reply::PublicKeyNotFound, "Public key not found"),
    (Reply::CertificateNotFound, "Certificate not found"),
    (Reply::CertificateRegistered, "Certificate registered"),
    (Reply::Pong, "PONG"),
    (Reply::HeartbeatReceived, "Heartbeat received"),
    (Reply::UnknownCommand, "Unknown command"),
];

fn parse_delivery(line: &Bytes, rest: &[u8]) -> Option<Reply> {
    let end = memchr::memchr(b' ', rest)?;
    let (id, envelope) = rest.split_at_checked(end)?;
    let message_id = MessageId::new(std::str::from_utf8(id).ok()?).ok()?;
    let envelope = EnvelopeBytes::from(line.slice_ref(envelope.get(1..)?));
    (!envelope.is_empty()).then_some(Reply::Message(Delivery {
        message_id,
        envelope,
    }))
}

fn parse_deliveries(envelopes: Option<Vec<EnvelopeBytes>>) -> Option<Reply> {
    let delivery = |envelope: EnvelopeBytes| {
        let message_id = own::message_id(envelope.own())?;
        Some(Delivery {
            message_id,
            envelope,
        })
    };
    let deliveries = envelopes?.into_iter().map(delivery);
    deliveries.collect::<Option<_>>().map(Reply::Messages)
}

/// Splits `<bytes> <count> <shared>` and the own parts after it.
fn split_binary(frame: &Bytes, rest: &[u8]) -> Option<Vec<EnvelopeBytes>> {
    let (header, own) = binary::split_header(rest)?;
    let mut words = std::str::from_utf8(header).ok()?.splitn(3, ' ');
    let (bytes, count, shared) = (words.next()?, words.next()?, words.next()?);
    binary::split(frame, own, (bytes, count), shared.as_bytes())
}

fn parse_text(text: &str) -> Option<Reply> {
    let id = |id: &str| MessageId::new(id).ok();
    if let Some(rest) = text.strip_prefix("ACK ") {
        return Some(Reply::Ack(id(rest)?));
    }
    if let Some(rest) = text.strip_prefix("ACK_CONFIRMED ") {
        return Some(Reply::AckConfirmed(id(rest)?));
    }
    if let Some(rest) = text.strip_prefix("ACK_ALL ") {
        return Some(Reply::AckAll(rest.parse().ok()?));
    }
    if let Some(rest) = text.strip_prefix("ACK_CONFIRMED_ALL ") {
        return Some(Reply::AckConfirmedAll(rest.parse().ok()?));
    }
    if let Some((fixed, _)) = FIXED_REPLIES.iter().find(|(_, fixed)| *fixed == text) {
        return Some(fixed.clone());
    }
    if let Some(missing) = Missing::ALL
        .into_iter()
        .find(|missing| missing.as_str() == text)
    {
        return Some(Reply::Missing(missing));
    }
    if let Some(rest) = text.strip_prefix("Error: ") {
        return Some(Reply::Error(ErrorReply::parse(rest)));
    }
    if let Some(rest) = text.strip_prefix("Rejected messages: ") {
        return parse_json(rest).map(Reply::RejectedMessages);
    }
    if let Some(rest) = text.strip_prefix("Rejected ") {
        return Some(Reply::Rejected(id(rest)?));
    }
    if let Some(rest) = text.strip_prefix(revocation::PREFIX) {
        return parse_json(rest).map(Reply::RevocationLists);
    }
    if let Some(rest) = text.strip_prefix("Hello: ") {
        return parse_json(rest).map(Reply::Hello);
    }
    if let Some(rest) = text.strip_prefix("Waiting keys: ") {
        return parse_json(rest).map(Reply::WaitingKeys);
    }
    if let Some(rest) = text.strip_prefix("Queues: ") {
        return parse_json(rest).map(Reply::Queues);
    }
    if let Some(rest) = text.strip_prefix("Exchanges: ") {
        return parse_json(rest).map(Reply::Exchanges);
    }
    if let Some(rest) = text.strip_prefix("Bindings: ") {
        return parse_json(rest).map(Reply::Bindings);
    }
    if let Some(rest) = text.strip_prefix("Connections: ") {
        return parse_json(rest).map(Reply::Connections);
    }
    if let Some(rest) = text.strip_prefix("Clients: ") {
        return parse_json(rest).map(Reply::Clients);
    }
    if let Some(rest) = text.strip_prefix("Ends: ") {
        return parse_json(rest).map(Reply::Ends);
    }
    if let Some(rest) = text.strip_prefix("Reloaded: ") {
        return parse_json(rest).map(Reply::Reloaded);
    }
    if let Some(rest) = text.strip_prefix("Permission: ") {
        return parse_json(rest).map(Reply::Permission);
    }
    if let Some(rest) = text.strip_prefix("Certificate: ") {
        return Some(Reply::Certificate(CertificateChain::from_text(rest)));
    }
    let after = |prefix: &str| text.strip_prefix(prefix).map(str::to_owned);
    let reply = after("Public key: ").map(Reply::PublicKey);
    let reply = reply.or_else(|| after("Signed key: ").map(Reply::SignedKey));
    let reply =
        reply.or_else(|| after("Invalid message format: ").map(Reply::InvalidMessageFormat));
    reply.or_else(|| after("Invalid batch format: ").map(Reply::InvalidBatchFormat))
}

fn parse_json<T: DeserializeOwned>(json: &str) -> Option<T> {
    serde_json::from_str(json).ok()
}

fn reply_error(line: &Bytes) -> ReplyError {
    let start = line.get(..line.len().min(120)).unwrap_or_default();
    ReplyError {
        line: String::from_utf8_lossy(start).into_owned(),
    }
}

fn put(out: &mut BytesMut, parts: &[&str]) {
    for part in parts {
        out.put_slice(part.as_bytes());
    }
}

fn put_json<T: Serialize>(out: &mut BytesMut, prefix: &str, value: &T) {
    out.put_slice(prefix.as_bytes());
    json::put(out, value);
}

/// Writes a text for people, which may quote a client's input.
fn put_text(out: &mut BytesMut, prefix: &str, text: &str) {
    out.put_slice(prefix.as_bytes());
    if text.chars().any(char::is_control) {
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        out.put_slice(clean.as_bytes());
    } else {
        out.put_slice(text.as_bytes());
    }
}

#[cfg(test)]
mod tests;
