//! The two JSON objects of `hello`.

use serde::{Deserialize, Deserializer, Serialize};

use crate::name::ClientId;

/// What a client says of itself. Unknown fields are ignored, so that newer clients can say more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(expecting = "an object")]
pub struct HelloRequest {
    /// Names one consumer across its connections: an older connection of the same client with the
    /// same consumer id is ended first, and its leases return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// The client's program and version, for logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The client takes deliveries in [`Reply::Messages`](crate::Reply::Messages), and one line for
    /// a command of which everything was done: [`Reply::AckAll`](crate::Reply::AckAll),
    /// [`Reply::AckConfirmedAll`](crate::Reply::AckConfirmedAll).
    #[serde(
        default,
        skip_serializing_if = "std::ops::Not::not",
        deserialize_with = "null_as_default"
    )]
    pub packed: bool,
}

/// Reads a value; `null` counts as left out.
fn null_as_default<'a, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'a>,
    D: Deserializer<'a>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a server says of itself. Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// The server's program.
    pub server: String,
    /// The server's version.
    pub version: String,
    /// The protocol's version: 1.
    pub protocol: u32,
    /// Who the server takes this connection for.
    pub client_id: ClientId,
    /// The limits in force.
    pub limits: HelloLimits,
    /// The server knows `publish_packed`, and delivers and answers packed to those who ask for it.
    #[serde(default)]
    pub packed: bool,
}

/// The limits that a client should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloLimits {
    /// The longest line, in bytes, without its ending.
    pub max_line_bytes: usize,
    /// The largest prefetch; larger ones are cut to it.
    pub max_prefetch: u32,
    /// After how many milliseconds of silence a connection loses its leases.
    pub redelivery_timeout_ms: u64,
    /// How many milliseconds a publish waits for the store before it is answered
    /// `storage_unavailable`.
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
