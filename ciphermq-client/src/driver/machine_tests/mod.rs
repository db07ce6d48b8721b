//! The protocol logic against a scripted server: bytes and times in, bytes out.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ciphermq_protocol::envelope::{EnvelopeBytes, EnvelopeReader, OwnPart};
use ciphermq_protocol::hello::{HelloLimits, HelloReply, Packing};
use ciphermq_protocol::{
    ClientId, Command, Envelope, ExchangeName, LineDecoder, MessageId, QueueName, Reply, RoutingKey,
};
use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::acks::AckItem;
use super::delivery_queue::DeliveryQueue;
use super::machine::{ConnectionFault, HIGH_WATER, Machine};
use super::op::{Op, Outgoing, PublisherId, PublisherSetup, Request};
use super::outcome::{OutcomeObserver, Summary};
use super::settings::{BatchLimits, DriverSettings, Retry};
use super::window::Window;
use crate::backoff::Backoff;
use crate::error::{AckError, AckErrorKind, PublishError, PublishErrorKind};

mod connection;
mod consuming;
mod publishing;

const SECOND: Duration = Duration::from_secs(1);

/// A machine, its clock and its output.
struct Test {
    machine: Machine,
    now: Instant,
    decoder: LineDecoder,
    out: BytesMut,
    input: BytesMut,
}

type PublishReceipt = oneshot::Receiver<Result<(), PublishError>>;

impl Test {
    fn new(queued: Option<Arc<DeliveryQueue>>) -> Self {
        let settings = DriverSettings {
            retry: Retry::default(),
            ping_interval: 10 * SECOND,
            stall_timeout: 900 * SECOND,
            backoff: Backoff::default(),
            max_reply_bytes: 1 << 20,
            program: "test".to_owned(),
        };
        let now = Instant::now();
        let machine = Machine::new(&settings, queued, now);
        let mut test = Self {
            machine,
            now,
            decoder: LineDecoder::new(1 << 30),
            out: BytesMut::new(),
            input: BytesMut::new(),
        };
        test.connect(100_000);
        test
    }

    fn connect(&mut self, max_line_bytes: usize) {
        self.connect_waiting(max_line_bytes, 8_000);
    }

    /// Connects to a server that accepts packed batches of this form.
    fn connect_packing(&mut self, packing: Packing) {
        self.greet(100_000, 8_000, packing);
    }

    /// Connects to a server whose commands may wait this long for its store.
    fn connect_waiting(&mut self, max_line_bytes: usize, storage_wait_ms: u64) {
        self.greet(max_line_bytes, storage_wait_ms, Packing::None);
    }

    fn greet(&mut self, max_line_bytes: usize, storage_wait_ms: u64, packing: Packing) {
        let limits = HelloLimits {
            max_line_bytes,
            max_prefetch: 100,
            redelivery_timeout_ms: 30_000,
            storage_wait_ms,
        };
        let hello = HelloReply {
            server: "test".to_owned(),
            version: "1".to_owned(),
            protocol: 1,
            client_id: ClientId::new("me").unwrap(),
            limits,
            packed: packing != Packing::None,
            binary: packing == Packing::Binary,
        };
        (self.out, self.input) = (BytesMut::new(), BytesMut::new());
        self.machine.connected(self.now, &hello);
    }

    fn disconnect(&mut self) {
        self.machine
            .disconnected(self.now, "the cable is out.".to_owned());
    }

    /// Returns the lines that are written now, with only the ids of messages.
    fn sent(&mut self) -> Vec<String> {
        self.machine.produce(self.now, &mut self.out);
        let mut lines = Vec::new();
        while let Some(line) = self.decoder.decode(&mut self.out).unwrap() {
            let ids = |envelopes: Vec<Envelope>| {
                let ids: Vec<_> = envelopes
                    .iter()
                    .map(|envelope| envelope.message_id.to_string())
                    .collect();
                ids.join(" ")
            };
            lines.push(match Command::parse(&line).unwrap() {
                Command::PublishBatch {
                    exchange,
                    routing_key,
                    envelopes,
                } => format!("{exchange} {routing_key} {}", ids(envelopes)),
                Command::PublishPacked {
                    exchange,
                    routing_key,
                    envelopes,
                } => {
                    let is_binary = envelopes[0].raw().is_binary();
                    let form = if is_binary { "binary" } else { "packed" };
                    format!("{exchange} {routing_key} {form} {}", ids(envelopes))
                }
                _ => String::from_utf8(line.to_vec()).unwrap(),
            });
        }
        lines
    }

    fn receive(&mut self, lines: &[&str]) -> Result<(), ConnectionFault> {
        for line in lines {
            self.input.extend_from_slice(line.as_bytes());
            self.input.extend_from_slice(b"\n");
        }
        self.machine.receive(self.now, &mut self.input)
    }

    fn wait(&mut self, duration: Duration) -> Result<(), ConnectionFault> {
        self.now += duration;
        self.machine.tick(self.now)
    }

    fn request(&mut self, command: Command) -> oneshot::Receiver<Reply> {
        let (answer, reply) = oneshot::channel();
        self.machine
            .apply(self.now, Op::Request(Request { command, answer }));
        reply
    }

    fn publisher(&mut self, exchange: &str, window: &Arc<Window>) -> PublisherId {
        let id = PublisherId::next();
        let setup = PublisherSetup {
            exchange: ExchangeName::new(exchange).unwrap(),
            routing_key: RoutingKey::new("k").unwrap(),
            limits: BatchLimits {
                messages: 3,
                ..BatchLimits::default()
            },
            window: window.clone(),
            observer: OutcomeObserver::default(),
        };
        self.machine.apply(self.now, Op::OpenPublisher(id, setup));
        id
    }

    fn publish(&mut self, publisher: PublisherId, id: &str) -> PublishReceipt {
        self.publish_sized(publisher, id, 4)
    }

    fn publish_sized(&mut self, publisher: PublisherId, id: &str, bytes: usize) -> PublishReceipt {
        self.publish_envelope(publisher, envelope(id, bytes))
    }

    fn publish_envelope(&mut self, publisher: PublisherId, envelope: Envelope) -> PublishReceipt {
        let (sender, receipt) = oneshot::channel();
        let outgoing = Outgoing {
            envelope,
            weight: 1,
            receipt: Some(sender),
        };
        self.machine
            .apply(self.now, Op::Publish(publisher, outgoing));
        receipt
    }

    fn ack(&mut self, id: &str) -> oneshot::Receiver<Result<(), AckError>> {
        let (item, result) = AckItem::awaited(MessageId::new(id).unwrap());
        self.machine.push_acks(self.now, [item]);
        result
    }
}

fn envelope(id: &str, bytes: usize) -> Envelope {
    let ciphertext = "A".repeat(bytes);
    let json = format!(
        r#"{{"message_id":"{id}","receiver_client_id":"r","enc_session_key":"","nonce":"","ciphertext":"{ciphertext}"}}"#
    );
    Envelope::parse(Bytes::from(json)).unwrap()
}

/// Creates an envelope that shares everything but its own part with others for this receiver.
fn packed(id: &str, receiver: &str) -> Envelope {
    let own =
        format!(r#"{{"message_id":"{id}","sent_time":"t","nonce":"","ciphertext":"","tag":"""#);
    let shared = format!(r#","receiver_client_id":"{receiver}","enc_session_key":""}}"#);
    let bytes = EnvelopeBytes::packed(own.into(), shared.into());
    EnvelopeReader::default().read(&bytes).unwrap().0
}

/// Creates such an envelope in the binary form.
fn binary(id: &str, receiver: &str) -> Envelope {
    let own = OwnPart {
        message_id: &MessageId::new(id).unwrap(),
        sent_time: "t",
        nonce: &[10; 12],
        ciphertext: b"\n",
        tag: &[10; 16],
    };
    let shared = packed(id, receiver).raw().shared().unwrap().clone();
    let bytes = EnvelopeBytes::packed(own.to_binary().unwrap(), shared);
    EnvelopeReader::default().read(&bytes).unwrap().0
}

fn window() -> Arc<Window> {
    Arc::new(Window::new(1000, 1_000_000))
}

fn kind(receipt: PublishReceipt) -> Option<PublishErrorKind> {
    receipt
        .now_or_never()?
        .unwrap()
        .err()
        .map(|error| error.kind())
}

fn is_acknowledged(receipt: PublishReceipt) -> bool {
    matches!(receipt.now_or_never(), Some(Ok(Ok(()))))
}
