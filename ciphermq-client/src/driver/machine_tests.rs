//! The whole protocol logic against a made-up server: bytes and times in, bytes out.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ciphermq_protocol::hello::{HelloLimits, HelloReply};
use ciphermq_protocol::{
    ClientId, Command, Envelope, ExchangeName, LineDecoder, MessageId, QueueName, Reply, RoutingKey,
};
use futures_util::FutureExt as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::acks::AckItem;
use super::machine::{Broken, HIGH_WATER, Machine};
use super::{Op, Outgoing, PublisherId, PublisherSetup, Request, Retry, Settings};
use crate::backoff::Backoff;
use crate::consumer::Inbox;
use crate::error::{AckError, AckErrorKind, PublishError, PublishErrorKind};
use crate::publisher::{BatchLimits, Observer, Summary, Window};

const SECOND: Duration = Duration::from_secs(1);

/// A machine, the time, and what it has written.
struct Test {
    machine: Machine,
    now: Instant,
    decoder: LineDecoder,
    out: BytesMut,
    input: BytesMut,
}

type PublishReceipt = oneshot::Receiver<Result<(), PublishError>>;

impl Test {
    fn new(inbox: Option<Arc<Inbox>>) -> Self {
        let settings = Settings {
            retry: Retry::default(),
            ping_interval: 10 * SECOND,
            backoff: Backoff::default(),
            max_reply_bytes: 1 << 20,
            program: "test".to_owned(),
        };
        let now = Instant::now();
        let machine = Machine::new(&settings, inbox, now);
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
        let limits = HelloLimits {
            max_line_bytes,
            max_prefetch: 100,
            redelivery_timeout_ms: 30_000,
            storage_wait_ms: 8_000,
        };
        let hello = HelloReply {
            server: "test".to_owned(),
            version: "1".to_owned(),
            protocol: 1,
            client_id: ClientId::new("me").unwrap(),
            limits,
        };
        (self.out, self.input) = (BytesMut::new(), BytesMut::new());
        self.machine.connected(self.now, &hello);
    }

    fn disconnect(&mut self) {
        self.machine
            .disconnected(self.now, "the cable is out.".to_owned());
    }

    /// The commands that are written now. Of messages, the ids alone.
    fn sent(&mut self) -> Vec<String> {
        self.machine.produce(self.now, &mut self.out);
        let mut lines = Vec::new();
        while let Some(line) = self.decoder.decode(&mut self.out).unwrap() {
            lines.push(match Command::parse(&line).unwrap() {
                Command::PublishBatch {
                    exchange,
                    routing_key,
                    envelopes,
                } => {
                    let ids: Vec<_> = envelopes
                        .iter()
                        .map(|envelope| envelope.message_id.as_str())
                        .collect();
                    format!("{exchange} {routing_key} {}", ids.join(" "))
                }
                _ => String::from_utf8(line.to_vec()).unwrap(),
            });
        }
        lines
    }

    fn receive(&mut self, lines: &[&str]) -> Result<(), Broken> {
        for line in lines {
            self.input.extend_from_slice(line.as_bytes());
            self.input.extend_from_slice(b"\n");
        }
        self.machine.receive(self.now, &mut self.input)
    }

    fn wait(&mut self, duration: Duration) -> Result<(), Broken> {
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
            observer: Observer::default(),
        };
        self.machine.apply(self.now, Op::OpenPublisher(id, setup));
        id
    }

    fn publish(&mut self, publisher: PublisherId, id: &str) -> PublishReceipt {
        self.publish_sized(publisher, id, 4)
    }

    fn publish_sized(&mut self, publisher: PublisherId, id: &str, bytes: usize) -> PublishReceipt {
        let (sender, receipt) = oneshot::channel();
        let envelope = envelope(id, bytes);
        let outgoing = Outgoing {
            envelope,
            weight: 1,
            receipt: Some(sender),
        };
        self.machine.apply(self.now, Op::Publish(publisher, outgoing));
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

fn window() -> Arc<Window> {
    Arc::new(Window::new(1000, 1_000_000))
}

fn kind(receipt: PublishReceipt) -> Option<PublishErrorKind> {
    receipt.now_or_never()?.unwrap().err().map(|error| error.kind())
}

fn is_acknowledged(receipt: PublishReceipt) -> bool {
    matches!(receipt.now_or_never(), Some(Ok(Ok(()))))
}

#[test]
fn commands_are_pipelined_and_answered_in_order() {
    let mut test = Test::new(None);
    let ping = test.request(Command::Ping);
    let window = window();
    let publisher = test.publisher("e", &window);
    let receipts: Vec<_> = ["1", "2", "3", "4"]
        .iter()
        .map(|id| test.publish(publisher, id))
        .collect();
    let (done, flushed) = oneshot::channel();
    test.machine.apply(test.now, Op::Flush(publisher, done));
    let declared = test.request(Command::DeclareQueue {
        queue: QueueName::new("q").unwrap(),
    });
    assert_eq!(
        test.sent(),
        ["ping", "declare_queue q", "e k 1 2 3", "e k 4"],
        "requests go first"
    );
    test.receive(&[
        "PONG",
        "Queue declared",
        "ACK 1",
        "Error: no_route: no queue for message 2",
        "ACK 3",
    ])
    .unwrap();
    assert!(matches!(ping.now_or_never(), Some(Ok(Reply::Pong))));
    assert!(matches!(declared.now_or_never(), Some(Ok(Reply::QueueDeclared))));
    let mut flushed = flushed;
    assert!((&mut flushed).now_or_never().is_none(), "4 has no answer yet");
    test.receive(&["ACK 4"]).unwrap();
    assert_eq!(
        flushed.now_or_never().unwrap().unwrap().unwrap_err().kind(),
        PublishErrorKind::NoRoute
    );
    let mut receipts = receipts.into_iter();
    assert!(is_acknowledged(receipts.next().unwrap()));
    assert_eq!(kind(receipts.next().unwrap()), Some(PublishErrorKind::NoRoute));
    assert!(receipts.all(is_acknowledged));
}

#[test]
fn publishers_take_turns() {
    let mut test = Test::new(None);
    let window = window();
    let (a, b) = (test.publisher("a", &window), test.publisher("b", &window));
    for id in 0..6 {
        drop(test.publish(a, &format!("a{id}")));
        drop(test.publish(b, &format!("b{id}")));
    }
    assert_eq!(
        test.sent(),
        ["a k a0 a1 a2", "b k b0 b1 b2", "a k a3 a4 a5", "b k b3 b4 b5"]
    );
}

#[test]
fn a_new_connection_gets_everything_unanswered_in_order() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let ping = test.request(Command::Ping);
    let receipts: Vec<_> = ["1", "2", "3", "4", "5"]
        .iter()
        .map(|id| test.publish(publisher, id))
        .collect();
    assert_eq!(test.sent(), ["ping", "e k 1 2 3"]);
    test.receive(&["PONG", "ACK 1"]).unwrap();
    let declared = test.request(Command::DeclareQueue {
        queue: QueueName::new("q").unwrap(),
    });
    assert_eq!(test.sent(), ["declare_queue q"]);
    let late = test.request(Command::Ping);
    test.disconnect();
    assert_eq!(test.sent(), [""; 0]);
    test.wait(SECOND).unwrap();
    test.connect(100_000);
    assert_eq!(test.sent(), ["declare_queue q", "ping", "e k 2 3 4", "e k 5"]);
    test.receive(&["Queue declared", "PONG", "ACK 2", "ACK 3", "ACK 4", "ACK 5"])
        .unwrap();
    assert!(receipts.into_iter().all(is_acknowledged));
    assert!(
        [ping, declared, late]
            .into_iter()
            .all(|reply| matches!(reply.now_or_never(), Some(Ok(_))))
    );
}

#[test]
fn a_whole_batch_is_refused_by_one_line() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let first: Vec<_> = ["1", "2", "3"]
        .iter()
        .map(|id| test.publish(publisher, id))
        .collect();
    let second: Vec<_> = ["4", "5", "6"]
        .iter()
        .map(|id| test.publish(publisher, id))
        .collect();
    assert_eq!(test.sent(), ["e k 1 2 3", "e k 4 5 6"]);
    test.receive(&["Invalid batch format: broken", "ACK 4", "ACK 5", "ACK 6"])
        .unwrap();
    assert!(
        first
            .into_iter()
            .all(|receipt| kind(receipt) == Some(PublishErrorKind::Refused))
    );
    assert!(second.into_iter().all(is_acknowledged));
}

#[test]
fn definite_errors_fail_one_message_each_by_their_kind() {
    for (code, expected) in [
        ("no_route", PublishErrorKind::NoRoute),
        ("not_found", PublishErrorKind::NotFound),
        ("id_in_use", PublishErrorKind::IdInUse),
        ("too_large", PublishErrorKind::TooLarge),
        ("sender_mismatch", PublishErrorKind::SenderMismatch),
        ("storage_full", PublishErrorKind::StorageFull),
        ("storage_refused", PublishErrorKind::StorageRefused),
        ("route_mismatch", PublishErrorKind::Refused),
    ] {
        let mut test = Test::new(None);
        let window = window();
        let publisher = test.publisher("e", &window);
        let receipts = ["1", "2", "3"].map(|id| test.publish(publisher, id));
        test.sent();
        test.receive(&["ACK 1", &format!("Error: {code}: why for message 2"), "ACK 3"])
            .unwrap();
        let [first, second, third] = receipts;
        assert!(is_acknowledged(first) && is_acknowledged(third), "{code}");
        assert_eq!(kind(second), Some(expected), "{code}");
    }
}

#[test]
fn an_unknown_outcome_is_tried_three_times() {
    for reply in [
        "Error: storage_unavailable: away for message 1",
        "Error: a_new_code: who knows for message 1",
    ] {
        let mut test = Test::new(None);
        let window = window();
        let publisher = test.publisher("e", &window);
        let receipt = test.publish(publisher, "1");
        for _ in 0..3 {
            assert_eq!(test.sent(), ["e k 1"]);
            test.wait(8 * SECOND).unwrap();
            test.receive(&[reply]).unwrap();
            assert_eq!(test.sent(), [""; 0], "not before the try is over");
            test.wait(2 * SECOND).unwrap();
        }
        assert_eq!(
            test.sent(),
            ["ping"],
            "after the last try there is nothing else to say"
        );
        let expected = if reply.contains("storage") {
            PublishErrorKind::Unavailable
        } else {
            PublishErrorKind::Refused
        };
        assert_eq!(kind(receipt), Some(expected));
    }
}

#[test]
fn the_second_answer_to_a_message_that_was_sent_twice_is_ignored() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let receipt = test.publish(publisher, "1");
    assert_eq!(test.sent(), ["e k 1"]);
    test.wait(10 * SECOND).unwrap();
    assert_eq!(test.sent(), ["e k 1"]);
    let next = test.publish(publisher, "2");
    test.receive(&["ACK 1"]).unwrap();
    assert!(is_acknowledged(receipt));
    test.wait(SECOND).unwrap();
    assert_eq!(test.sent(), ["e k 2"]);
    test.receive(&["ACK 1", "ACK 2"]).unwrap();
    assert!(is_acknowledged(next));
}

#[test]
fn an_answer_about_another_message_breaks_the_connection() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let receipt = test.publish(publisher, "1");
    test.sent();
    assert!(matches!(test.receive(&["ACK 2"]), Err(Broken::Violation(_))));
    test.disconnect();
    test.connect(100_000);
    assert_eq!(test.sent(), ["e k 1"]);
    test.receive(&["ACK 1"]).unwrap();
    assert!(is_acknowledged(receipt));
}

#[test]
fn room_in_the_window_comes_back_with_the_answers() {
    let mut test = Test::new(None);
    let window = Arc::new(Window::new(2, 1_000_000));
    let publisher = test.publisher("e", &window);
    let take = || window.acquire(1).now_or_never().flatten().map(|room| room.keep());
    for id in ["1", "2"] {
        assert_eq!(take(), Some(1));
        drop(test.publish(publisher, id));
    }
    assert_eq!(take(), None);
    assert_eq!(test.sent(), ["e k 1 2"]);
    test.receive(&["Error: storage_unavailable: away for message 1", "ACK 2"])
        .unwrap();
    assert_eq!(take(), None, "2 must not overtake 1 by more than the window");
    test.wait(10 * SECOND).unwrap();
    assert_eq!(test.sent(), ["e k 1"]);
    test.receive(&["ACK 1"]).unwrap();
    assert_eq!((take(), take(), take()), (Some(1), Some(1), None));
}

#[test]
fn nothing_is_produced_while_much_waits_for_the_socket() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    for id in 0..30 {
        drop(test.publish_sized(publisher, &id.to_string(), 50_000));
    }
    test.machine.produce(test.now, &mut test.out);
    let produced = test.out.len();
    assert!(
        (HIGH_WATER..HIGH_WATER + 200_000).contains(&produced),
        "{produced}"
    );
    test.machine.produce(test.now, &mut test.out);
    assert_eq!(test.out.len(), produced);
    assert!(
        test.machine.deadline(produced).unwrap() > test.now,
        "and no timer turns the loop meanwhile"
    );
    let mut sent = 0;
    test.wait(Duration::from_millis(5)).unwrap();
    while let more @ 1.. = test.sent().len() {
        sent += more;
    }
    assert_eq!(
        sent, 30,
        "messages of 50,000 bytes in lines of 100,000: one in each"
    );
}

#[test]
fn a_server_with_a_lower_limit_gets_no_line_that_is_too_long() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let (small, large) = (
        test.publish(publisher, "1"),
        test.publish_sized(publisher, "2", 5_000),
    );
    let last = test.publish(publisher, "3");
    test.disconnect();
    test.connect(1_000);
    test.wait(Duration::from_millis(5)).unwrap();
    assert_eq!(test.sent(), ["e k 1", "e k 3"]);
    assert_eq!(kind(large), Some(PublishErrorKind::TooLarge));
    test.receive(&["ACK 1", "ACK 3"]).unwrap();
    assert!(is_acknowledged(small) && is_acknowledged(last));
}

#[test]
fn a_finished_publisher_tells_what_became_of_its_messages() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let observed = outcomes.clone();
    let observer = Observer(Some(Arc::new(move |outcome| {
        observed
            .lock()
            .unwrap()
            .push((outcome.message_id.to_string(), outcome.result.is_ok()));
    })));
    let other = PublisherId::next();
    let setup = PublisherSetup {
        exchange: ExchangeName::new("o").unwrap(),
        routing_key: RoutingKey::new("k").unwrap(),
        limits: BatchLimits::default(),
        window: window.clone(),
        observer,
    };
    test.machine.apply(test.now, Op::OpenPublisher(other, setup));
    for id in ["1", "2"] {
        drop(test.publish(other, id));
    }
    drop(test.publish(publisher, "x"));
    let (done, summary) = oneshot::channel::<Summary>();
    test.machine.apply(test.now, Op::Finish(other, done));
    test.sent();
    test.receive(&["ACK x", "ACK 1", "Error: no_route: none for message 2"])
        .unwrap();
    let summary = summary.now_or_never().unwrap().unwrap();
    assert_eq!((summary.acknowledged, summary.unacknowledged), (1, 1));
    assert_eq!(summary.failures[0].0.as_str(), "2");
    assert_eq!(
        *outcomes.lock().unwrap(),
        [("1".to_owned(), true), ("2".to_owned(), false)]
    );
}

#[test]
fn deliveries_go_to_the_inbox_and_a_lost_connection_empties_it() {
    let inbox = Arc::new(Inbox::new(10));
    let mut test = Test::new(Some(inbox.clone()));
    test.receive(&["Message: 1 {}", "Message: 2 {}"]).unwrap();
    assert_eq!(inbox.pop().unwrap().message_id.as_str(), "1");
    test.disconnect();
    assert!(inbox.pop().is_none());
    test.connect(100_000);
    test.receive(&["Message: 1 {}", "Message: 2 {}"]).unwrap();
    assert_eq!(
        inbox.pop().unwrap().message_id.as_str(),
        "2",
        "1 is in the application's hands"
    );
    assert!(inbox.pop().is_none());
}

#[test]
fn a_server_that_ignores_the_prefetch_is_left() {
    let mut test = Test::new(Some(Arc::new(Inbox::new(1))));
    let lines: Vec<String> = (0..20).map(|id| format!("Message: {id} {{}}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert!(matches!(test.receive(&lines), Err(Broken::Violation(_))));
}

#[test]
fn acks_gather_while_others_are_under_way() {
    let mut test = Test::new(Some(Arc::new(Inbox::new(10))));
    let first = test.ack("1");
    assert_eq!(test.sent(), ["ack 1"], "an ack that is alone goes at once");
    let rest = ["2", "3"].map(|id| test.ack(id));
    assert_eq!(test.sent(), [""; 0]);
    assert_eq!(
        test.machine.deadline(0),
        Some(test.now + Duration::from_millis(2))
    );
    test.wait(Duration::from_millis(2)).unwrap();
    assert_eq!(test.sent(), ["ack 2 3"]);
    test.receive(&[
        "ACK_CONFIRMED 1",
        "Message: 9 {}",
        "ACK_CONFIRMED 2",
        "Error: not_found: unknown for message 3",
    ])
    .unwrap();
    assert!(matches!(first.now_or_never(), Some(Ok(Ok(())))));
    let [second, third] = rest.map(|result| result.now_or_never().unwrap().unwrap());
    assert!(second.is_ok());
    assert_eq!(third.unwrap_err().kind(), AckErrorKind::NotFound);
}

#[test]
fn many_acks_go_in_lines_of_512() {
    let mut test = Test::new(Some(Arc::new(Inbox::new(10))));
    let items = (0..1100).map(|id| AckItem::later(MessageId::new(&format!("m{id}")).unwrap()));
    test.machine.push_acks(test.now, items);
    let (done, summary) = oneshot::channel();
    test.machine.apply(test.now, Op::FlushAcks(done));
    let sent = test.sent();
    let ids: Vec<usize> = sent.iter().map(|line| line.split(' ').count() - 1).collect();
    assert_eq!(ids, [512, 512, 76]);
    for id in 0..1100 {
        test.receive(&[&format!("ACK_CONFIRMED m{id}")]).unwrap();
    }
    assert_eq!(summary.now_or_never().unwrap().unwrap().confirmed, 1100);
}

#[test]
fn acks_are_sent_again_after_a_loss_and_given_up_after_three_tries() {
    let mut test = Test::new(Some(Arc::new(Inbox::new(10))));
    let result = test.ack("1");
    assert_eq!(test.sent(), ["ack 1"]);
    test.disconnect();
    test.wait(SECOND).unwrap();
    test.connect(100_000);
    assert_eq!(test.sent(), ["ack 1"]);
    for _ in 0..2 {
        test.wait(10 * SECOND).unwrap();
        assert!(test.sent().contains(&"ack 1".to_owned()));
        // Other things come in, so the connection is alive.
        test.receive(&["Message: 9 {}"]).unwrap();
    }
    test.wait(10 * SECOND).unwrap();
    assert_eq!(
        result.now_or_never().unwrap().unwrap().unwrap_err().kind(),
        AckErrorKind::TimedOut
    );
}

#[test]
fn a_silent_client_pings_and_a_silent_server_is_left() {
    let mut test = Test::new(None);
    assert_eq!(test.machine.deadline(0), Some(test.now + 10 * SECOND));
    test.wait(10 * SECOND).unwrap();
    assert_eq!(test.sent(), ["ping"]);
    assert_eq!(test.sent(), [""; 0]);
    test.receive(&["PONG"]).unwrap();
    test.wait(10 * SECOND).unwrap();
    assert_eq!(test.sent(), ["ping"]);
    test.wait(9 * SECOND).unwrap();
    assert_eq!(test.sent(), [""; 0]);
    assert_eq!(test.machine.deadline(0), Some(test.now + SECOND));
    assert_eq!(test.wait(SECOND), Err(Broken::Silent(20 * SECOND)));
}

#[test]
fn without_a_connection_messages_fail_after_all_tries_and_say_why() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    test.disconnect();
    let receipt = test.publish(publisher, "1");
    test.wait(29 * SECOND).unwrap();
    assert_eq!(test.machine.deadline(0), Some(test.now + SECOND));
    test.wait(SECOND).unwrap();
    let error = receipt.now_or_never().unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::Disconnected);
    assert!(error.to_string().contains("the cable is out"), "{error}");
}

#[test]
fn the_end_waits_for_what_was_handed_over() {
    let mut test = Test::new(None);
    let window = window();
    let publisher = test.publisher("e", &window);
    let receipt = test.publish(publisher, "1");
    let (done, mut ended) = oneshot::channel();
    test.machine.apply(test.now, Op::Close(done));
    assert!(!test.machine.is_done());
    assert_eq!(test.sent(), ["e k 1"]);
    test.receive(&["ACK 1"]).unwrap();
    assert!(test.machine.is_done() && is_acknowledged(receipt));
    assert!((&mut ended).now_or_never().is_none());
    let late = test.publish(publisher, "2");
    test.machine.close();
    assert!(matches!(ended.now_or_never(), Some(Ok(()))));
    assert_eq!(kind(late), Some(PublishErrorKind::Closed));
    assert!(
        window.acquire(1).now_or_never().unwrap().is_none(),
        "and the window is closed"
    );
}

#[test]
fn requests_that_nobody_waits_for_do_not_pile_up() {
    let mut test = Test::new(None);
    test.disconnect();
    for _ in 0..100 {
        drop(test.request(Command::Ping));
    }
    let waiting = test.request(Command::Ping);
    test.connect(100_000);
    assert_eq!(test.sent(), ["ping"]);
    test.receive(&["PONG"]).unwrap();
    assert!(matches!(waiting.now_or_never(), Some(Ok(Reply::Pong))));
}
