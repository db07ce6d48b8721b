//! The route and the envelopes of a publish.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::arguments::{exchange, required, routing_key, split};
use super::{Command, CommandError};
use crate::envelope::packed::SplitError;
use crate::envelope::{Envelope, EnvelopeBytes, EnvelopeError, EnvelopeReader, binary, packed};
use crate::name::{ExchangeName, RoutingKey};
use crate::reply::Missing;

/// Splits a publish into exchange, routing key and envelopes, none of them empty.
pub(super) fn route(rest: &str) -> Result<(&str, &str, &str), CommandError> {
    let (exchange, rest) = split(rest);
    let (routing_key, published) = split(rest);
    Ok((
        required(exchange, Missing::Parameters)?,
        required(routing_key, Missing::Parameters)?,
        required(published.trim_ascii(), Missing::Parameters)?,
    ))
}

pub(super) fn route_names(
    exchange_name: &str,
    routing_key_name: &str,
) -> Result<(ExchangeName, RoutingKey), CommandError> {
    Ok((
        exchange(exchange_name, Missing::Parameters)?,
        routing_key(routing_key_name)?,
    ))
}

/// Checks the names of a batch's route.
///
/// The sender of a batch expects a line for each message, even if the route is invalid.
pub(super) fn batch_route(
    exchange_name: &str,
    routing_key_name: &str,
    envelopes: &[Envelope],
) -> Result<(ExchangeName, RoutingKey), CommandError> {
    route_names(exchange_name, routing_key_name).map_err(|error| match error {
        CommandError::BadName { what, source } => CommandError::BadRoute {
            what,
            source,
            message_ids: envelopes
                .iter()
                .map(|envelope| envelope.message_id.clone())
                .collect(),
        },
        error => error,
    })
}

pub(super) fn batch(line: &Bytes, json: &str) -> Result<Vec<Envelope>, CommandError> {
    let elements: Vec<&RawValue> = serde_json::from_str(json)
        .map_err(|error| CommandError::InvalidBatch(error.to_string()))?;
    if elements.is_empty() {
        return Err(CommandError::InvalidBatch(
            "a batch holds at least one message".to_owned(),
        ));
    }
    let mut envelopes: Vec<Envelope> = Vec::with_capacity(elements.len());
    for (index, element) in elements.iter().enumerate() {
        let text = element.get();
        let raw = line.slice_ref(text.as_bytes());
        let read = Envelope::read_text(raw, text, envelopes.last());
        envelopes.push(in_batch(index, read.map(|(envelope, _)| envelope))?);
    }
    Ok(envelopes)
}

pub(super) fn packed_batch(line: &Bytes, list: &str) -> Result<Vec<Envelope>, CommandError> {
    let parts = match packed::split(line, list.as_bytes()) {
        Ok(parts) => parts,
        Err(SplitError::Own(index)) => return in_batch(index, Err(EnvelopeError::Own)),
        Err(SplitError::Form) => {
            return Err(CommandError::InvalidBatch(
                "a packed batch is a number, so many messages' own parts, and the part that they \
                 share"
                    .to_owned(),
            ));
        }
    };
    read_all(&parts)
}

pub(super) const BINARY_FORM: &str = "a binary batch is a line with the number of bytes after it, the \
                                      route, the number of messages and the part that they share, \
                                      and then the messages' own parts, each after its length";

/// Reads a line, without its ending, and the binary own parts after it.
pub(super) fn publish_binary(
    line: &Bytes,
    header: &[u8],
    own: &[u8],
) -> Result<Command, CommandError> {
    let header = std::str::from_utf8(header).map_err(|_| CommandError::NotUtf8)?;
    let rest = header.strip_prefix(binary::PUBLISH);
    let (bytes, rest) = split(rest.ok_or(CommandError::Unknown)?);
    let (exchange, routing_key, list) = route(rest)?;
    let (count, shared) = split(list);
    let parts = binary::split(line, own, (bytes, count), shared.as_bytes())
        .ok_or_else(|| CommandError::InvalidBatch(BINARY_FORM.to_owned()))?;
    let envelopes = read_all(&parts)?;
    let (exchange, routing_key) = batch_route(exchange, routing_key, &envelopes)?;
    Ok(Command::PublishPacked {
        exchange,
        routing_key,
        envelopes,
    })
}

fn read_all(parts: &[EnvelopeBytes]) -> Result<Vec<Envelope>, CommandError> {
    let mut reader = EnvelopeReader::default();
    let mut envelopes = Vec::with_capacity(parts.len());
    for (index, bytes) in parts.iter().enumerate() {
        let read = reader.read(bytes).map(|(envelope, _)| envelope);
        envelopes.push(in_batch(index, read)?);
    }
    Ok(envelopes)
}

pub(super) fn in_batch<T>(index: usize, read: Result<T, EnvelopeError>) -> Result<T, CommandError> {
    read.map_err(|error| {
        CommandError::InvalidBatch(format!("message {} of the batch: {error}", index + 1))
    })
}
