//! The first exchange on a new connection: hello and the set-up commands, in one write.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use ciphermq_protocol::hello::{HelloReply, HelloRequest};
use ciphermq_protocol::{
    CertificateChain, Command, DEFAULT_MAX_LINE_BYTES, ErrorCode, ErrorReply, LineDecoder, Reply,
};

use rustls_pki_types::CertificateDer;

use super::ending;
use super::settings::Setup;
use crate::error::{ConnectError, ConnectErrorKind};

/// The command by which the server learns of a certificate that signs, without its argument.
const REGISTER_CERTIFICATE: &str = "register_certificate";

/// The protocol version of this client.
const PROTOCOL: u32 = 1;

/// The exchange that waits for the replies to hello and to the set-up commands.
#[derive(Debug)]
pub(crate) struct Opening {
    decoder: LineDecoder,
    hello: Option<HelloReply>,
    /// Why the server has refused the chain that signs.
    signing_refused: Option<String>,
    /// The unanswered commands, as they were written.
    waiting: VecDeque<String>,
}

impl Opening {
    /// Writes hello and the set-up commands to `out`. The server is told of a chain that signs and
    /// does not connect, which receivers ask it for.
    pub(crate) fn new(
        setup: &Setup,
        signing_chain: Option<&[CertificateDer<'_>]>,
        program: &str,
        out: &mut BytesMut,
    ) -> Result<Self, ConnectError> {
        let request = HelloRequest {
            consumer: setup.consumer.clone(),
            client: Some(program.to_owned()),
            packed: true,
            binary: true,
        };
        Command::Hello(request).encode(out);
        let mut waiting = VecDeque::new();
        if let Some(chain) = signing_chain {
            let chain = CertificateChain::from_der(chain);
            Command::RegisterCertificate { chain }.encode(out);
            waiting.push_back(REGISTER_CERTIFICATE.to_owned());
        }
        for command in &setup.commands {
            let start = out.len();
            with_prefetch(command, setup).encode(out);
            let line = out.get(start..).unwrap_or_default();
            waiting.push_back(String::from_utf8_lossy(line).trim_end().to_owned());
        }
        // Set-up replies are short, but the first delivery may already follow them.
        Ok(Self {
            decoder: LineDecoder::new(DEFAULT_MAX_LINE_BYTES),
            hello: None,
            signing_refused: None,
            waiting,
        })
    }

    /// Returns why the server has refused the chain that signs; `None` if it has not.
    pub(crate) fn signing_refused(&mut self) -> Option<String> {
        self.signing_refused.take()
    }

    /// Reads replies from the front of `buffer`; returns the server's hello once all have come.
    /// Bytes that follow the last reply stay in the buffer.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut BytesMut,
    ) -> Result<Option<HelloReply>, ConnectError> {
        loop {
            let line = self
                .decoder
                .decode(buffer)
                .map_err(|error| protocol(&error.to_string()).caused_by(error))?;
            let Some(line) = line else { return Ok(None) };
            let reply = Reply::parse(&line)
                .map_err(|error| protocol(&error.to_string()).caused_by(error))?;
            if self.hello.is_none() {
                self.hello = Some(read_hello(reply)?);
            } else if let Some(command) = self.waiting.pop_front() {
                match signing_refusal(&command, &reply) {
                    None => check(&command, &reply)?,
                    reason => self.signing_refused = reason,
                }
            }
            if self.waiting.is_empty() && self.hello.is_some() {
                return Ok(self.hello.take());
            }
        }
    }
}

/// Returns why the server refuses a certificate that signs: the connection does without it.
fn signing_refusal(command: &str, reply: &Reply) -> Option<String> {
    if command != REGISTER_CERTIFICATE {
        return None;
    }
    match reply {
        Reply::UnknownCommand => Some("it does not know such certificates".to_owned()),
        Reply::Error(ErrorReply {
            code: Some(ErrorCode::BadKey | ErrorCode::BadArgument | ErrorCode::NotAuthorized),
            text,
            ..
        }) => Some(text.clone()),
        _ => None,
    }
}

/// Returns the command with the current prefetch.
fn with_prefetch(command: &Command, setup: &Setup) -> Command {
    let now = setup
        .prefetch
        .as_ref()
        .map(|now| now.load(Ordering::Relaxed));
    match (command, now.and_then(NonZeroU32::new)) {
        (Command::Consume { queue, .. }, Some(now)) => Command::Consume {
            queue: queue.clone(),
            prefetch: Some(now),
        },
        _ => command.clone(),
    }
}

fn read_hello(reply: Reply) -> Result<HelloReply, ConnectError> {
    let hello = match reply {
        Reply::Hello(hello) => *hello,
        Reply::UnknownCommand => return Err(protocol("it does not know the command `hello`")),
        Reply::Error(error) => return Err(refused("hello", &error)),
        other => return Err(protocol(&format!("it answers `hello` with {other:?}"))),
    };
    if hello.protocol != PROTOCOL {
        return Err(protocol(&format!(
            "it speaks version {} of the protocol, this client version {PROTOCOL}",
            hello.protocol
        )));
    }
    Ok(hello)
}

fn check(command: &str, reply: &Reply) -> Result<(), ConnectError> {
    match reply {
        Reply::QueueDeclared
        | Reply::ExchangeDeclared
        | Reply::QueueBound
        | Reply::PublicKeyRegistered
        | Reply::CertificateRegistered
        | Reply::Subscribed => Ok(()),
        Reply::Error(error) => Err(refused(command, error)),
        other => {
            let what = format!("The server refused `{command}`: {other:?}.");
            Err(ConnectError::new(ConnectErrorKind::Rejected, what))
        }
    }
}

fn protocol(what: &str) -> ConnectError {
    ConnectError::new(
        ConnectErrorKind::Protocol,
        format!("The server speaks TLS, but not this protocol: {what}."),
    )
    .advise(
        "Name the address of a CipherMQ server, and use a client and a server that fit each other.",
    )
}

fn refused(command: &str, error: &ErrorReply) -> ConnectError {
    let kind = match error.code {
        Some(ErrorCode::Blocked) => return ending::blocked(&error.text),
        Some(ErrorCode::NotAuthorized) => ConnectErrorKind::NotAuthorized,
        Some(
            ErrorCode::StorageUnavailable
            | ErrorCode::StorageFull
            | ErrorCode::Overloaded
            | ErrorCode::ConnectionClosed
            | ErrorCode::ShuttingDown,
        ) => ConnectErrorKind::Unavailable,
        _ => ConnectErrorKind::Rejected,
    };
    let refused = ConnectError::new(kind, format!("The server refused `{command}`: {error}."));
    match kind {
        ConnectErrorKind::NotAuthorized => refused.advise(
            "Ask the server's operator to allow it: `ciphermq-cli can-i` shows what this client \
             may do.",
        ),
        _ => refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ciphermq_protocol::QueueName;

    const HELLO: &str = r#"Hello: {"server":"s","version":"1","protocol":1,"client_id":"c","limits":{"max_line_bytes":100,"max_prefetch":5,"redelivery_timeout_ms":1,"storage_wait_ms":1}}"#;

    fn opening(commands: Vec<Command>) -> (Opening, String) {
        let mut out = BytesMut::new();
        let setup = Setup {
            consumer: Some("u".to_owned()),
            commands,
            prefetch: None,
        };
        let opening = Opening::new(&setup, None, "p 1", &mut out).unwrap();
        (opening, String::from_utf8(out.to_vec()).unwrap())
    }

    fn consume() -> Vec<Command> {
        let queue = QueueName::new("q").unwrap();
        vec![
            Command::DeclareQueue {
                queue: queue.clone(),
            },
            Command::Consume {
                queue,
                prefetch: None,
            },
        ]
    }

    #[test]
    fn set_up_is_one_write_and_later_bytes_stay_in_the_buffer() {
        let (mut opening, sent) = opening(consume());
        assert_eq!(
            sent,
            "hello {\"consumer\":\"u\",\"client\":\"p 1\",\"packed\":true,\"binary\":true}\ndeclare_queue \
             q\nconsume q\n"
        );
        let replies = format!("{HELLO}\nQueue declared\nSubscribed to queue\nMessage: m {{}}\n");
        let mut buffer = BytesMut::new();
        for (index, byte) in replies.bytes().enumerate() {
            buffer.extend_from_slice(&[byte]);
            let done = opening.receive(&mut buffer).unwrap();
            if let Some(hello) = done {
                assert_eq!(hello.limits.max_line_bytes, 100);
                buffer.extend_from_slice(&replies.as_bytes()[index + 1..]);
                break;
            }
        }
        assert_eq!(buffer, "Message: m {}\n");
    }

    #[test]
    fn other_servers_are_detected() {
        for (reply, kind) in [
            ("HTTP/1.1 400 Bad Request", ConnectErrorKind::Protocol),
            ("Unknown command", ConnectErrorKind::Protocol),
            ("Hello: {}", ConnectErrorKind::Protocol),
            ("Error: shutting_down: bye", ConnectErrorKind::Unavailable),
            ("Error: connection_closed: x", ConnectErrorKind::Unavailable),
            ("Error: blocked: by x", ConnectErrorKind::Blocked),
            ("Error: not_authorized: no", ConnectErrorKind::NotAuthorized),
            (
                &HELLO.replace("\"protocol\":1", "\"protocol\":2"),
                ConnectErrorKind::Protocol,
            ),
        ] {
            let mut buffer = BytesMut::from(format!("{reply}\n").as_bytes());
            assert_eq!(
                opening(Vec::new())
                    .0
                    .receive(&mut buffer)
                    .unwrap_err()
                    .kind(),
                kind,
                "{reply}"
            );
        }
    }

    #[test]
    fn a_refused_command_is_named() {
        let mut buffer = BytesMut::from(
            format!("{HELLO}\nQueue declared\nError: storage_unavailable: no\n").as_bytes(),
        );
        let error = opening(consume()).0.receive(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::Unavailable);
        assert!(error.to_string().contains("`consume q`"), "{error}");
    }
}
