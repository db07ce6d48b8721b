//! Executes commands. Every command of every client passes through [`ClientSession::execute`],
//! and there through [`ClientSession::authorize`]; its handlers are grouped as in
//! `docs/protocol.md`.

use std::num::NonZeroU32;

use ciphermq_protocol::{Command, Envelope, ErrorCode, ErrorReply, Reply};

use super::ClientSession;
use super::answer::Answer;
use super::authorization::Verdict;

impl ClientSession {
    /// Executes one command, or submits it to the store.
    ///
    /// Everything that may change the meaning of later commands has happened when this returns;
    /// publishes and acks are only submitted.
    ///
    /// # Errors
    ///
    /// The reason for closing the connection.
    pub(crate) async fn execute(&mut self, command: Command) -> Result<Answer, ErrorCode> {
        let refusals = match self.authorize(&command) {
            Verdict::Allowed(refusals) => refusals,
            Verdict::Refused(answer) => return Ok(answer),
        };
        let reply = match command {
            Command::DeclareQueue { queue } => self.declare_queue(&queue).await,
            Command::DeclareExchange { exchange } => self.declare_exchange(exchange).await,
            Command::Bind {
                queue,
                exchange,
                routing_key,
            } => self.bind(&queue, exchange, routing_key).await,
            Command::Unbind {
                queue,
                exchange,
                routing_key,
            } => self.unbind(&queue, exchange, routing_key).await,
            Command::DeleteQueue {
                queue,
                if_empty,
                if_unused,
            } => self.delete_queue(queue, if_empty, if_unused).await,
            Command::DeleteExchange {
                exchange,
                if_unused,
            } => self.delete_exchange(exchange, if_unused).await,
            Command::PurgeQueue { queue } => self.purge_queue(queue).await,
            Command::ListQueues(request) => self.list_queues(request).await,
            Command::ListExchanges(request) => self.list_exchanges(request).await,
            Command::ListBindings(request) => self.list_bindings(request).await,

            Command::Publish {
                exchange,
                routing_key,
                envelope,
            } => {
                let publishing = self
                    .publish(&exchange, &routing_key, vec![envelope], refusals, false)
                    .await;
                return Ok(Answer::Publishing(publishing));
            }
            Command::PublishPacked { envelopes, .. } if self.is_too_long(&envelopes) => {
                return Err(ErrorCode::LineTooLong);
            }
            Command::PublishBatch {
                exchange,
                routing_key,
                envelopes,
            }
            | Command::PublishPacked {
                exchange,
                routing_key,
                envelopes,
            } => {
                let publishing = self
                    .publish(&exchange, &routing_key, envelopes, refusals, true)
                    .await;
                return Ok(Answer::Publishing(publishing));
            }
            Command::Resend { message_id } => self.resend(&message_id).await,

            Command::Consume { queue, prefetch } => {
                let consume = self.consume(&queue, prefetch.map(NonZeroU32::get)).await;
                return Ok(consume.map_or_else(refusal, Answer::Subscribed));
            }
            Command::Fetch { queue } => self.fetch(&queue).await,
            Command::Ack { message_ids } => {
                let outcomes = self.ack(&message_ids).await;
                return Ok(Answer::Acks {
                    message_ids,
                    outcomes,
                });
            }
            Command::Reject { message_id, reason } => {
                return Ok(Answer::Rejecting(self.reject(message_id, &reason).await));
            }
            Command::ListRejected(request) => self.rejected(request).await,

            Command::RegisterPublicKey { client_id, key } => {
                self.register_public_key(client_id.as_ref(), &key).await
            }
            Command::GetPublicKey { client_id } => self.public_key(&client_id).await,
            Command::RegisterSignedKey { signed_key } => {
                self.register_signed_key(&signed_key).await
            }
            Command::GetSignedKey { client_id } => self.signed_key(&client_id).await,
            Command::GetCertificate {
                client_id,
                fingerprint,
            } => self.certificate(&client_id, fingerprint.as_ref()).await,
            Command::ListWaitingKeys(request) => self.waiting_keys(request).await,
            Command::RegisterCertificate { chain } => self.register_certificate(&chain).await,
            Command::GetCrl => self.revocation_lists(),
            Command::ListEnds => Ok(self.list_ends()),

            Command::ListConnections(request) => Ok(self.list_connections(&request)),
            Command::CloseConnection { connection } => self.close_connection(connection),
            Command::ListClients(request) => Ok(self.list_clients(&request)),
            Command::BlockClient { client_id } => self.block_client(client_id).await,
            Command::UnblockClient { client_id } => self.unblock_client(client_id).await,
            Command::Reload => self.reload().await,

            Command::Hello(request) => {
                return Ok(self.hello(request).unwrap_or_else(refusal));
            }
            Command::CanI(request) => Ok(self.can_i(&request)),
            Command::Ping => Ok(self.ping()),
            Command::Heartbeat => Ok(Reply::HeartbeatReceived),
        };
        Ok(Answer::Ready(reply.unwrap_or_else(Reply::Error)))
    }

    /// Whether the messages of a packed line would be too long for a line if each were repeated
    /// with the shared piece. Otherwise what is bounded by the length of a line would not be
    /// bounded.
    fn is_too_long(&self, envelopes: &[Envelope]) -> bool {
        let bytes: usize = envelopes.iter().map(|envelope| envelope.raw().len()).sum();
        bytes > self.broker.limits.max_line_bytes
    }
}

fn refusal(error: ErrorReply) -> Answer {
    Answer::Ready(error.into())
}
