//! The JSON of `hello` and of its reply.

use serde::{Deserialize, Deserializer, Serialize};

use crate::name::ClientId;

/// The JSON object of `hello`: a client's description of itself.
///
/// Unknown fields are ignored, so that newer clients can send more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct HelloRequest {
    /// The id of one consumer across its connections.
    ///
    /// The server first closes an older connection of the same client with the same consumer id,
    /// and returns its leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// The client's program and version, for logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Whether the client understands packed deliveries and replies.
    ///
    /// These are [`Reply::Messages`](crate::Reply::Messages), and one line for a command that
    /// succeeded for all its messages: [`Reply::AckAll`](crate::Reply::AckAll),
    /// [`Reply::AckConfirmedAll`](crate::Reply::AckConfirmedAll).
    #[serde(
        default,
        skip_serializing_if = "std::ops::Not::not",
        deserialize_with = "null_as_default"
    )]
    pub packed: bool,
    /// Whether the client understands packed deliveries in the binary form, too.
    #[serde(
        default,
        skip_serializing_if = "std::ops::Not::not",
        deserialize_with = "null_as_default"
    )]
    pub binary: bool,
}

/// The form of the lines with several messages that a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// A line for each message.
    None,
    /// One line of text for the messages of a session.
    Text,
    /// One line for the messages of a session, in the binary form if they were published in it.
    Binary,
}

impl Packing {
    fn of(packed: bool, binary: bool) -> Self {
        match (packed, binary) {
            (false, _) => Self::None,
            (true, false) => Self::Text,
            (true, true) => Self::Binary,
        }
    }
}

impl HelloRequest {
    /// Returns the form of the lines that the client takes.
    #[must_use]
    pub fn packing(&self) -> Packing {
        Packing::of(self.packed, self.binary)
    }
}

impl HelloReply {
    /// Returns the form of the lines that the server takes.
    #[must_use]
    pub fn packing(&self) -> Packing {
        Packing::of(self.packed, self.binary)
    }
}

/// Reads a value; `null` counts as left out.
fn null_as_default<'a, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'a>,
    D: Deserializer<'a>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The JSON object of the reply to `hello`: a server's description of itself.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// The server's program.
    pub server: String,
    /// The server's version.
    pub version: String,
    /// The protocol's version: 1.
    pub protocol: u32,
    /// The client that the server has identified at this connection.
    pub client_id: ClientId,
    /// The limits in force.
    pub limits: HelloLimits,
    /// Whether the server accepts `publish_packed`, and packs deliveries and replies for clients
    /// that ask for it.
    #[serde(default)]
    pub packed: bool,
    /// Whether the server accepts `publish_binary`, and delivers in the binary form to clients that
    /// ask for it.
    #[serde(default)]
    pub binary: bool,
}

/// A server's limits, as far as clients need them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloLimits {
    /// The limit for a line, in bytes, without its ending.
    pub max_line_bytes: usize,
    /// The largest prefetch; the server reduces a larger one to it.
    pub max_prefetch: u32,
    /// The time after which a silent connection loses its leases, in milliseconds.
    pub redelivery_timeout_ms: u64,
    /// The time that a publish waits for the store before the server replies `storage_unavailable`,
    /// in milliseconds.
    pub storage_wait_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_counts_as_left_out() {
        for text in [
            "{}",
            r#"{"packed":null,"consumer":null,"client":null,"other":null}"#,
        ] {
            let request: HelloRequest = serde_json::from_str(text).unwrap();
            assert_eq!(request, HelloRequest::default(), "{text}");
        }
        let request: HelloRequest = serde_json::from_str(r#"{"packed":true}"#).unwrap();
        assert!(request.packed);
    }
}
