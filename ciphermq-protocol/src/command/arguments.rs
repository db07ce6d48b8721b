//! Arguments of a command, with single spaces between them: how they are read and written.

use std::num::NonZeroU32;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::CommandError;
use crate::certificate::Fingerprint;
use crate::name::{ClientId, ExchangeName, MessageId, NameError, QueueName, RoutingKey};
use crate::reply::Missing;
use crate::{json, number};

/// The condition of a deletion that no message waits.
pub(super) const IF_EMPTY: &str = "if-empty";

/// The condition of a deletion that nobody consumes, or that nothing is bound.
pub(super) const IF_UNUSED: &str = "if-unused";

/// Reads flags, in any order. A flag that is not known must not be ignored: it may forbid what
/// would be done without it.
pub(super) fn flags<const N: usize>(
    text: &str,
    known: [&str; N],
) -> Result<[bool; N], CommandError> {
    let mut set = [false; N];
    for word in text.split(' ').filter(|_| !text.is_empty()) {
        let at = known.iter().position(|flag| *flag == word);
        match at.and_then(|at| set.get_mut(at)) {
            Some(flag) => *flag = true,
            None => {
                let text = format!("the conditions are {}", known.join(" and "));
                return Err(CommandError::BadArgument(text));
            }
        }
    }
    Ok(set)
}

/// Reads the arguments of `bind` and `unbind`.
pub(super) fn binding(rest: &str) -> Result<(QueueName, ExchangeName, RoutingKey), CommandError> {
    let (queue_name, rest) = split(rest);
    let (exchange_name, routing_key_name) = split(rest);
    required(routing_key_name, Missing::Parameters)?;
    Ok((
        queue(queue_name)?,
        exchange(exchange_name, Missing::Parameters)?,
        routing_key(routing_key_name)?,
    ))
}

/// Splits a text at the first space.
pub(super) fn split(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

/// Parses the JSON object of an argument that may be left out.
pub(super) fn object<T: DeserializeOwned + Default>(
    command: &str,
    json: &str,
) -> Result<T, CommandError> {
    match json.is_empty() {
        true => Ok(T::default()),
        false => required_object(command, json),
    }
}

/// Parses the JSON object of an argument.
pub(super) fn required_object<T: DeserializeOwned>(
    command: &str,
    json: &str,
) -> Result<T, CommandError> {
    let refused =
        |what: &str| CommandError::BadArgument(format!("{command} takes a JSON object: {what}"));
    let value = serde_json::from_str(json).map_err(|error| refused(&error.to_string()))?;
    // serde accepts an array for a struct as well.
    if json.trim_ascii_start().starts_with('{') {
        Ok(value)
    } else {
        Err(refused("this is none"))
    }
}

pub(super) fn required(text: &str, missing: Missing) -> Result<&str, CommandError> {
    if text.is_empty() {
        Err(CommandError::Missing(missing))
    } else {
        Ok(text)
    }
}

pub(super) fn name<T>(
    text: &str,
    missing: Missing,
    what: &'static str,
    new: fn(&str) -> Result<T, NameError>,
) -> Result<T, CommandError> {
    new(required(text, missing)?).map_err(|source| CommandError::BadName { what, source })
}

pub(super) fn queue(text: &str) -> Result<QueueName, CommandError> {
    name(text, Missing::QueueName, "queue", QueueName::new)
}

pub(super) fn exchange(text: &str, missing: Missing) -> Result<ExchangeName, CommandError> {
    name(text, missing, "exchange", ExchangeName::new)
}

pub(super) fn routing_key(text: &str) -> Result<RoutingKey, CommandError> {
    name(text, Missing::Parameters, "routing key", RoutingKey::new)
}

pub(super) fn message_id(text: &str) -> Result<MessageId, CommandError> {
    name(text, Missing::MessageId, "message id", MessageId::new)
}

pub(super) fn client_id(text: &str) -> Result<ClientId, CommandError> {
    name(text, Missing::ClientId, "client id", ClientId::new)
}

pub(super) fn parse_prefetch(text: &str) -> Result<NonZeroU32, CommandError> {
    number::parse(text).ok_or_else(|| {
        CommandError::BadArgument("prefetch must be a whole number, 1 or more".to_owned())
    })
}

/// Parses the number of a connection.
pub(super) fn connection(text: &str) -> Result<u64, CommandError> {
    number::parse_u64(required(text, Missing::Parameters)?).ok_or_else(|| {
        CommandError::BadArgument("a connection is a number of `list_connections`".to_owned())
    })
}

pub(super) fn parse_fingerprint(text: &str) -> Result<Fingerprint, CommandError> {
    text.to_ascii_lowercase().parse().map_err(|_| {
        CommandError::BadArgument("a fingerprint is SHA-256 in 64 hexadecimal digits".to_owned())
    })
}

pub(super) fn put(out: &mut BytesMut, parts: &[&str]) {
    for part in parts {
        // A line ending must not occur inside a line. Names and JSON contain none; reasons may.
        if part.bytes().any(|byte| matches!(byte, b'\n' | b'\r')) {
            out.extend(part.bytes().map(|byte| {
                if matches!(byte, b'\n' | b'\r') {
                    b' '
                } else {
                    byte
                }
            }));
        } else {
            out.put_slice(part.as_bytes());
        }
    }
}

pub(super) fn put_binding(
    out: &mut BytesMut,
    word: &str,
    queue: &QueueName,
    exchange: &ExchangeName,
    routing_key: &RoutingKey,
) {
    put(out, &[word, queue.as_str(), " ", exchange.as_str()]);
    put(out, &[" ", routing_key.as_str()]);
}

pub(super) fn put_flags(out: &mut BytesMut, flags: &[(&str, bool)]) {
    for (flag, _) in flags.iter().filter(|(_, is_set)| *is_set) {
        put(out, &[" ", flag]);
    }
}

/// Writes the beginning of a publish, up to the envelopes.
pub(super) fn put_route(
    out: &mut BytesMut,
    word: &str,
    exchange: &ExchangeName,
    routing_key: &RoutingKey,
) {
    put(
        out,
        &[word, exchange.as_str(), " ", routing_key.as_str(), " "],
    );
}

pub(super) fn put_json<T: Serialize>(out: &mut BytesMut, word: &str, argument: &T) {
    out.put_slice(word.as_bytes());
    json::put(out, argument);
}
