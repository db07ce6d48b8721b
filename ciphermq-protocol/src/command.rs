//! Commands of the client, one line each: a word and its arguments.
//!
//! Single spaces separate words and arguments; the last argument extends to the end of the line.

mod arguments;
mod batch;
mod error;

use std::num::NonZeroU32;

use bytes::{BufMut as _, Bytes, BytesMut};

use self::arguments::*;
use self::batch::{
    BINARY_FORM, batch, batch_route, packed_batch, publish_binary, route, route_names,
};
pub use self::error::CommandError;
use crate::administration::{ClientsRequest, ConnectionsRequest};
use crate::certificate::{CertificateChain, Fingerprint};
use crate::envelope::{Envelope, EnvelopeBytes, binary, packed};
use crate::hello::HelloRequest;
use crate::name::{ClientId, ExchangeName, MessageId, QueueName, RoutingKey};
use crate::permission::PermissionRequest;
use crate::rejected::RejectedRequest;
use crate::reply::Missing;
use crate::topology::{BindingsRequest, ExchangesRequest, QueuesRequest};
use crate::waiting::WaitingRequest;

/// A command of a client.
///
/// [`Command::parse`] reads it, [`Command::encode`] writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `declare_queue <queue>`: creates the queue unless it exists.
    DeclareQueue {
        /// The queue.
        queue: QueueName,
    },
    /// `declare_exchange <exchange>`: creates the exchange unless it exists.
    DeclareExchange {
        /// The exchange.
        exchange: ExchangeName,
    },
    /// `bind <queue> <exchange> <routing_key>`: routes messages of the exchange with this key to
    /// the queue as well.
    Bind {
        /// The queue.
        queue: QueueName,
        /// The exchange.
        exchange: ExchangeName,
        /// The routing key.
        routing_key: RoutingKey,
    },
    /// `unbind <queue> <exchange> <routing_key>`: removes a binding.
    Unbind {
        /// The queue.
        queue: QueueName,
        /// The exchange.
        exchange: ExchangeName,
        /// The routing key.
        routing_key: RoutingKey,
    },
    /// `delete_queue <queue> [if-empty] [if-unused]`: deletes a queue; its messages are rejected.
    DeleteQueue {
        /// The queue.
        queue: QueueName,
        /// Whether to delete it only if no message waits in it.
        if_empty: bool,
        /// Whether to delete it only if nobody consumes from it.
        if_unused: bool,
    },
    /// `delete_exchange <exchange> [if-unused]`: deletes an exchange with its bindings.
    DeleteExchange {
        /// The exchange.
        exchange: ExchangeName,
        /// Whether to delete it only if no queue is bound to it.
        if_unused: bool,
    },
    /// `purge_queue <queue>`: rejects the messages that wait in a queue.
    PurgeQueue {
        /// The queue.
        queue: QueueName,
    },
    /// `list_queues [<json>]`: asks for queues.
    ListQueues(QueuesRequest),
    /// `list_exchanges [<json>]`: asks for exchanges.
    ListExchanges(ExchangesRequest),
    /// `list_bindings [<json>]`: asks for bindings.
    ListBindings(BindingsRequest),
    /// `publish <exchange> <routing_key> <json>`: publishes one envelope.
    Publish {
        /// The exchange.
        exchange: ExchangeName,
        /// The routing key.
        routing_key: RoutingKey,
        /// The envelope.
        envelope: Envelope,
    },
    /// `publish_batch <exchange> <routing_key> <json array>`: publishes envelopes, each answered by
    /// a line of its own.
    PublishBatch {
        /// The exchange.
        exchange: ExchangeName,
        /// The routing key.
        routing_key: RoutingKey,
        /// The envelopes, at least one.
        envelopes: Vec<Envelope>,
    },
    /// `publish_packed <exchange> <routing_key> <count> <own> ... <own> <shared>`, or
    /// `publish_binary <bytes> <exchange> <routing_key> <count> <shared>` and the own parts after
    /// it: publishes envelopes that share most of their fields.
    ///
    /// The shared fields are sent once. It is binary if the
    /// [form](crate::envelope::EnvelopeBytes::is_binary) of all envelopes is.
    PublishPacked {
        /// The exchange.
        exchange: ExchangeName,
        /// The routing key.
        routing_key: RoutingKey,
        /// The envelopes, at least one. All have the same [shared
        /// part](crate::envelope::EnvelopeBytes::shared).
        envelopes: Vec<Envelope>,
    },
    /// `consume <queue> [prefetch]`: delivers the queue's messages for this client.
    Consume {
        /// The queue.
        queue: QueueName,
        /// The limit of delivered and not yet acknowledged messages; 1 if left out. A number that
        /// does not fit is read as the largest that does.
        prefetch: Option<NonZeroU32>,
    },
    /// `fetch <queue>`: delivers one message if one is waiting.
    Fetch {
        /// The queue.
        queue: QueueName,
    },
    /// `ack <message_id> [<message_id> ...]`: acknowledges messages, each answered by a line of its
    /// own.
    Ack {
        /// The processed messages, at least one.
        message_ids: Vec<MessageId>,
    },
    /// `reject <message_id> <reason>`: sets aside a message that the receiver cannot use.
    Reject {
        /// The message.
        message_id: MessageId,
        /// The reason, for people.
        reason: String,
    },
    /// `resend <message_id>`: asks, as the sender, for redelivery of an unacknowledged message.
    Resend {
        /// The message.
        message_id: MessageId,
    },
    /// `register_public_key <base64 key>`, or `register_key <client_id> <base64 key>`: registers
    /// the client's X25519 key.
    RegisterPublicKey {
        /// The client that the line names; it must be the caller itself.
        client_id: Option<ClientId>,
        /// The key: base64 of 32 bytes.
        key: String,
    },
    /// `get_public_key <client_id>`, or `get_key <client_id>`: asks for a registered key.
    GetPublicKey {
        /// The client that registered it.
        client_id: ClientId,
    },
    /// `register_signed_key <signed key>`: registers the client's signed keys, a compact JWS.
    RegisterSignedKey {
        /// The signed key, without spaces.
        signed_key: String,
    },
    /// `get_signed_key <client_id>`: asks for a registered signed key.
    GetSignedKey {
        /// The client that registered it.
        client_id: ClientId,
    },
    /// `get_certificate <client_id> [<sha256 fingerprint>]`: asks for a certificate chain that the
    /// client has connected with.
    GetCertificate {
        /// The client.
        client_id: ClientId,
        /// The certificate's fingerprint; the last certificate if left out.
        fingerprint: Option<Fingerprint>,
    },
    /// `register_certificate <base64 DER>[,<base64 DER> ...]`: hands in a certificate chain that
    /// the client signs with and does not connect with, its own certificate first.
    RegisterCertificate {
        /// The chain, not verified.
        chain: CertificateChain,
    },
    /// `get_crl`: asks for the certificate revocation lists that the server has loaded.
    GetCrl,
    /// `hello [<json>]`: asks for versions, limits and the identity of this connection.
    Hello(HelloRequest),
    /// `list_rejected [<json>]`: asks for rejected messages that the client sent or was to receive.
    ListRejected(RejectedRequest),
    /// `list_waiting_keys [<json>]`: asks for the keys that the client's waiting messages are
    /// sealed for.
    ListWaitingKeys(WaitingRequest),
    /// `can_i <json>`: asks whether this client may do something.
    CanI(PermissionRequest),
    /// `list_connections [<json>]`: asks, as an administrator, for connections.
    ListConnections(ConnectionsRequest),
    /// `close_connection <number>`: closes, as an administrator, a connection.
    CloseConnection {
        /// The connection's number.
        connection: u64,
    },
    /// `list_clients [<json>]`: asks, as an administrator, for clients.
    ListClients(ClientsRequest),
    /// `block_client <client_id>`: keeps, as an administrator, a client out.
    BlockClient {
        /// The client.
        client_id: ClientId,
    },
    /// `unblock_client <client_id>`: admits, as an administrator, a blocked client again.
    UnblockClient {
        /// The client.
        client_id: ClientId,
    },
    /// `list_ends`: asks when the server's certificate, its authorities and its lists end.
    ListEnds,
    /// `reload`: has, as an administrator, the server read its configuration and certificates
    /// again.
    Reload,
    /// `ping`.
    Ping,
    /// `heartbeat`: the `ping` of older clients.
    Heartbeat,
}

/// The limit of message ids in one `ack`.
///
/// A parsed id takes far more memory than its text in the line.
pub const MAX_ACKS: usize = 16_384;

impl Command {
    /// Reads a line, without its ending, and with the bytes after it if it has any. Envelopes share
    /// the line's memory.
    ///
    /// # Errors
    ///
    /// [`CommandError`], which provides the server's [replies](CommandError::replies).
    pub fn parse(line: &Bytes) -> Result<Self, CommandError> {
        if let Some((header, own)) = binary::split_header(line) {
            return publish_binary(line, header, own);
        }
        let text = std::str::from_utf8(line).map_err(|_| CommandError::NotUtf8)?;
        let (word, rest) = split(text);
        match word {
            "declare_queue" => Ok(Self::DeclareQueue {
                queue: queue(rest)?,
            }),
            "declare_exchange" => Ok(Self::DeclareExchange {
                exchange: exchange(rest, Missing::ExchangeName)?,
            }),
            "bind" => {
                let (queue, exchange, routing_key) = binding(rest)?;
                Ok(Self::Bind {
                    queue,
                    exchange,
                    routing_key,
                })
            }
            "unbind" => {
                let (queue, exchange, routing_key) = binding(rest)?;
                Ok(Self::Unbind {
                    queue,
                    exchange,
                    routing_key,
                })
            }
            "delete_queue" => {
                let (queue_name, conditions) = split(rest);
                let [if_empty, if_unused] = flags(conditions, [IF_EMPTY, IF_UNUSED])?;
                Ok(Self::DeleteQueue {
                    queue: queue(queue_name)?,
                    if_empty,
                    if_unused,
                })
            }
            "delete_exchange" => {
                let (exchange_name, conditions) = split(rest);
                let [if_unused] = flags(conditions, [IF_UNUSED])?;
                Ok(Self::DeleteExchange {
                    exchange: exchange(exchange_name, Missing::ExchangeName)?,
                    if_unused,
                })
            }
            "purge_queue" => Ok(Self::PurgeQueue {
                queue: queue(rest)?,
            }),
            "list_queues" => Ok(Self::ListQueues(object("list_queues", rest)?)),
            "list_exchanges" => Ok(Self::ListExchanges(object("list_exchanges", rest)?)),
            "list_bindings" => Ok(Self::ListBindings(object("list_bindings", rest)?)),
            "publish" => {
                let (exchange, routing_key, json) = route(rest)?;
                let (exchange, routing_key) = route_names(exchange, routing_key)?;
                let raw = line.slice_ref(json.as_bytes());
                let envelope = Envelope::parse(raw).map_err(CommandError::InvalidMessage)?;
                Ok(Self::Publish {
                    exchange,
                    routing_key,
                    envelope,
                })
            }
            "publish_batch" => {
                let (exchange, routing_key, json) = route(rest)?;
                let envelopes = batch(line, json)?;
                let (exchange, routing_key) = batch_route(exchange, routing_key, &envelopes)?;
                Ok(Self::PublishBatch {
                    exchange,
                    routing_key,
                    envelopes,
                })
            }
            "publish_packed" => {
                let (exchange, routing_key, list) = route(rest)?;
                let envelopes = packed_batch(line, list)?;
                let (exchange, routing_key) = batch_route(exchange, routing_key, &envelopes)?;
                Ok(Self::PublishPacked {
                    exchange,
                    routing_key,
                    envelopes,
                })
            }
            // With a length, its own parts would have been read with it.
            "publish_binary" => Err(CommandError::InvalidBatch(BINARY_FORM.to_owned())),
            "consume" => {
                let (queue_name, prefetch) = split(rest);
                let prefetch = if prefetch.is_empty() {
                    None
                } else {
                    Some(parse_prefetch(prefetch)?)
                };
                Ok(Self::Consume {
                    queue: queue(queue_name)?,
                    prefetch,
                })
            }
            "fetch" => Ok(Self::Fetch {
                queue: queue(rest)?,
            }),
            "ack" => {
                required(rest, Missing::MessageId)?;
                if memchr::memchr_iter(b' ', rest.as_bytes()).count() >= MAX_ACKS {
                    let text = format!(
                        "an ack names at most {MAX_ACKS} messages; name the others in another one"
                    );
                    return Err(CommandError::BadArgument(text));
                }
                let message_ids = rest.split(' ').map(message_id).collect::<Result<_, _>>()?;
                Ok(Self::Ack { message_ids })
            }
            "reject" => {
                let (id, reason) = split(rest);
                Ok(Self::Reject {
                    message_id: message_id(id)?,
                    reason: reason.to_owned(),
                })
            }
            "resend" => Ok(Self::Resend {
                message_id: message_id(rest)?,
            }),
            "register_public_key" => Ok(Self::RegisterPublicKey {
                client_id: None,
                key: required(rest, Missing::PublicKey)?.to_owned(),
            }),
            "register_key" => {
                let (client, key) = split(rest);
                let client_id = Some(client_id(client)?);
                Ok(Self::RegisterPublicKey {
                    client_id,
                    key: required(key, Missing::PublicKey)?.to_owned(),
                })
            }
            "get_public_key" | "get_key" => Ok(Self::GetPublicKey {
                client_id: client_id(rest)?,
            }),
            "register_signed_key" => Ok(Self::RegisterSignedKey {
                signed_key: required(rest, Missing::PublicKey)?.to_owned(),
            }),
            "get_signed_key" => Ok(Self::GetSignedKey {
                client_id: client_id(rest)?,
            }),
            "get_certificate" => {
                let (client, fingerprint) = split(rest);
                let fingerprint = if fingerprint.is_empty() {
                    None
                } else {
                    Some(parse_fingerprint(fingerprint)?)
                };
                Ok(Self::GetCertificate {
                    client_id: client_id(client)?,
                    fingerprint,
                })
            }
            "register_certificate" => Ok(Self::RegisterCertificate {
                chain: CertificateChain::from_text(required(rest, Missing::Parameters)?),
            }),
            "get_crl" => Ok(Self::GetCrl),
            "hello" => Ok(Self::Hello(object("hello", rest)?)),
            "list_rejected" => Ok(Self::ListRejected(object("list_rejected", rest)?)),
            "list_waiting_keys" => Ok(Self::ListWaitingKeys(object("list_waiting_keys", rest)?)),
            "can_i" => {
                let json = required(rest, Missing::Parameters)?;
                Ok(Self::CanI(required_object("can_i", json)?))
            }
            "list_connections" => Ok(Self::ListConnections(object("list_connections", rest)?)),
            "close_connection" => Ok(Self::CloseConnection {
                connection: connection(rest)?,
            }),
            "list_clients" => Ok(Self::ListClients(object("list_clients", rest)?)),
            "block_client" => Ok(Self::BlockClient {
                client_id: client_id(rest)?,
            }),
            "unblock_client" => Ok(Self::UnblockClient {
                client_id: client_id(rest)?,
            }),
            "list_ends" => Ok(Self::ListEnds),
            "reload" => Ok(Self::Reload),
            "ping" => Ok(Self::Ping),
            "heartbeat" => Ok(Self::Heartbeat),
            _ => Err(CommandError::Unknown),
        }
    }

    /// Appends the command to `out`, with its line ending.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::DeclareQueue { queue } => put(out, &["declare_queue ", queue.as_str()]),
            Self::DeclareExchange { exchange } => {
                put(out, &["declare_exchange ", exchange.as_str()]);
            }
            Self::Bind {
                queue,
                exchange,
                routing_key,
            } => {
                put_binding(out, "bind ", queue, exchange, routing_key);
            }
            Self::Unbind {
                queue,
                exchange,
                routing_key,
            } => {
                put_binding(out, "unbind ", queue, exchange, routing_key);
            }
            Self::DeleteQueue {
                queue,
                if_empty,
                if_unused,
            } => {
                put(out, &["delete_queue ", queue.as_str()]);
                put_flags(out, &[(IF_EMPTY, *if_empty), (IF_UNUSED, *if_unused)]);
            }
            Self::DeleteExchange {
                exchange,
                if_unused,
            } => {
                put(out, &["delete_exchange ", exchange.as_str()]);
                put_flags(out, &[(IF_UNUSED, *if_unused)]);
            }
            Self::PurgeQueue { queue } => put(out, &["purge_queue ", queue.as_str()]),
            Self::ListQueues(request) => put_json(out, "list_queues ", request),
            Self::ListExchanges(request) => put_json(out, "list_exchanges ", request),
            Self::ListBindings(request) => put_json(out, "list_bindings ", request),
            Self::Publish {
                exchange,
                routing_key,
                envelope,
            } => {
                put_route(out, "publish ", exchange, routing_key);
                envelope.raw().put(out);
            }
            Self::PublishBatch {
                exchange,
                routing_key,
                envelopes,
            } => {
                put_route(out, "publish_batch ", exchange, routing_key);
                let mut before = b'[';
                for envelope in envelopes {
                    out.put_u8(before);
                    envelope.raw().put(out);
                    before = b',';
                }
                out.put_u8(b']');
            }
            Self::PublishPacked {
                exchange,
                routing_key,
                envelopes,
            } => {
                let raw = envelopes.iter().map(Envelope::raw);
                let shared = envelopes.first().and_then(|first| first.raw().shared());
                if let Some(shared) = shared
                    && raw.clone().all(EnvelopeBytes::is_binary)
                {
                    let route = format!("{exchange} {routing_key} ");
                    return binary::put(binary::PUBLISH, &route, raw, shared, out);
                }
                put_route(out, "publish_packed ", exchange, routing_key);
                if let Some(shared) = shared {
                    packed::put(raw, shared, out);
                }
            }
            Self::Consume {
                queue,
                prefetch: None,
            } => put(out, &["consume ", queue.as_str()]),
            Self::Consume {
                queue,
                prefetch: Some(prefetch),
            } => {
                put(
                    out,
                    &["consume ", queue.as_str(), " ", &prefetch.to_string()],
                );
            }
            Self::Fetch { queue } => put(out, &["fetch ", queue.as_str()]),
            Self::Ack { message_ids } => {
                put(out, &["ack"]);
                for id in message_ids {
                    put(out, &[" ", id.as_str()]);
                }
            }
            Self::Reject { message_id, reason } => {
                put(out, &["reject ", message_id.as_str(), " ", reason]);
            }
            Self::Resend { message_id } => put(out, &["resend ", message_id.as_str()]),
            Self::RegisterPublicKey {
                client_id: None,
                key,
            } => put(out, &["register_public_key ", key]),
            Self::RegisterPublicKey {
                client_id: Some(client_id),
                key,
            } => {
                put(out, &["register_key ", client_id.as_str(), " ", key]);
            }
            Self::GetPublicKey { client_id } => put(out, &["get_public_key ", client_id.as_str()]),
            Self::RegisterSignedKey { signed_key } => {
                put(out, &["register_signed_key ", signed_key]);
            }
            Self::GetSignedKey { client_id } => put(out, &["get_signed_key ", client_id.as_str()]),
            Self::GetCertificate {
                client_id,
                fingerprint: None,
            } => put(out, &["get_certificate ", client_id.as_str()]),
            Self::GetCertificate {
                client_id,
                fingerprint: Some(fingerprint),
            } => {
                let fingerprint = fingerprint.to_string();
                put(
                    out,
                    &["get_certificate ", client_id.as_str(), " ", &fingerprint],
                );
            }
            Self::RegisterCertificate { chain } => {
                put(out, &["register_certificate ", &chain.to_string()]);
            }
            Self::GetCrl => put(out, &["get_crl"]),
            Self::Hello(request) => put_json(out, "hello ", request),
            Self::ListRejected(request) => put_json(out, "list_rejected ", request),
            Self::ListWaitingKeys(request) => put_json(out, "list_waiting_keys ", request),
            Self::CanI(request) => put_json(out, "can_i ", request),
            Self::ListConnections(request) => put_json(out, "list_connections ", request),
            Self::CloseConnection { connection } => {
                put(out, &["close_connection ", &connection.to_string()]);
            }
            Self::ListClients(request) => put_json(out, "list_clients ", request),
            Self::BlockClient { client_id } => put(out, &["block_client ", client_id.as_str()]),
            Self::UnblockClient { client_id } => put(out, &["unblock_client ", client_id.as_str()]),
            Self::ListEnds => put(out, &["list_ends"]),
            Self::Reload => put(out, &["reload"]),
            Self::Ping => put(out, &["ping"]),
            Self::Heartbeat => put(out, &["heartbeat"]),
        }
        out.put_u8(b'\n');
    }

    /// Returns the number of lines that answer the command when the server carries it out.
    ///
    /// A command that is refused as a whole gets one line.
    #[must_use]
    pub fn reply_lines(&self) -> usize {
        match self {
            Self::PublishBatch { envelopes, .. } | Self::PublishPacked { envelopes, .. } => {
                envelopes.len()
            }
            Self::Ack { message_ids } => message_ids.len(),
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests;
