//! Several messages with one id, some of them forged: the genuine one arrives, whatever is
//! delivered before or after it, and is not rejected at the server together with a forged one.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciphermq_client::dedup::Durable;
use ciphermq_client::{
    ConsumeError, Consumer, Identity, Message, RecipientKey, Rejection, Timestamp, Unopenable,
};
use ciphermq_crypto::{Header, SendingSession};
use ciphermq_tests::Server;
use ciphermq_tests::malicious::fixture::{expect_texts, next, opened, text, unopenable};
use ciphermq_tests::malicious::{MaliciousBroker, MaliciousBrokerFixture};
use ciphermq_tests::server::Options;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::published_through;
use ciphermq_tests::workspace::Workspace;

/// The envelope with an altered ciphertext, different for each number.
fn altered(envelope: &str, number: u16) -> String {
    let mut fields: Value = serde_json::from_str(envelope).unwrap();
    let mut bytes = BASE64_STANDARD
        .decode(fields["ciphertext"].as_str().unwrap())
        .unwrap();
    let [high, low] = (number + 1).to_be_bytes();
    bytes[0] ^= high;
    bytes[1] ^= low;
    fields["ciphertext"] = BASE64_STANDARD.encode(bytes).into();
    fields.to_string()
}

/// The envelope with a certificate that the server does not have.
fn of_an_unknown_certificate(envelope: &str) -> String {
    let mut fields: Value = serde_json::from_str(envelope).unwrap();
    fields["sender_certificate"] = "ab".repeat(32).into();
    fields.to_string()
}

/// A message with the same id that `sender` has sealed, and signed if `is_signed`.
fn of_another(
    fixture: &MaliciousBrokerFixture,
    envelope: &str,
    sender: &str,
    is_signed: bool,
) -> String {
    let fields: Value = serde_json::from_str(envelope).unwrap();
    let key: RecipientKey = (*fixture.private_key().public_key()).into();
    let (receiver, now) = (fixture.receiver.id(), Timestamp::now());
    let files = fixture.server.pki().client(sender);
    let certificate = CertificateDer::from_pem_file(files.certificate).unwrap();
    let key_of_sender = PrivateKeyDer::from_pem_file(files.key).unwrap();
    let identity = Identity::new(vec![certificate], &key_of_sender).unwrap();
    let mut session = match is_signed {
        true => SendingSession::start(&identity, receiver, &key, now).unwrap(),
        false => SendingSession::start_unsigned(fixture.sender.id(), receiver, &key, now).unwrap(),
    };
    let header = Header {
        message_id: &fields["message_id"].as_str().unwrap().parse().unwrap(),
        exchange: &fields["exchange"].as_str().unwrap().parse().unwrap(),
        routing_key: &fields["routing_key"].as_str().unwrap().parse().unwrap(),
        content_type: "text/plain",
        sent_time: now,
    };
    let sealed = session.seal(&header, b"forged").unwrap();
    String::from_utf8(sealed.raw().to_bytes().to_vec()).unwrap()
}

/// Makes the broker replace every delivery to the receiver by the envelopes that `copies` returns,
/// with the same id.
fn copy(broker: &MaliciousBroker, copies: impl Fn(&str) -> Vec<String> + Send + Sync + 'static) {
    broker.intercept(move |line| match line.delivery_to("receiver") {
        Some((id, envelope)) => copies(envelope)
            .iter()
            .map(|copy| format!("Message: {id} {copy}"))
            .collect(),
        None => line.honest(),
    });
}

/// Number of messages that the server keeps as rejected.
async fn rejections(server: &Server) -> i64 {
    let database = server.database().await;
    database
        .number("SELECT count(*) FROM rejected_messages")
        .await
}

/// Takes `count` items from a consumer. Returns the messages, and those that could not be opened.
async fn take(consumer: &mut Consumer, count: usize) -> (Vec<Message>, Vec<Unopenable>) {
    let (mut messages, mut refused) = (Vec::new(), Vec::new());
    for _ in 0..count {
        match next(consumer).await {
            Ok(message) => messages.push(message),
            Err(ConsumeError::Unopenable(unopenable)) => refused.push(unopenable),
            Err(error) => panic!("{error}"),
        }
    }
    (messages, refused)
}

/// Function from the genuine envelope to the envelopes that are delivered in its place.
type Copies = fn(&str) -> Vec<String>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_copies_before_and_after_the_genuine_message() {
    let fixture = MaliciousBrokerFixture::new().await;
    let orders: [(&str, Copies, usize); 6] = [
        (
            "before",
            |genuine| vec![altered(genuine, 1), genuine.to_owned()],
            1,
        ),
        (
            "after",
            |genuine| vec![genuine.to_owned(), altered(genuine, 1)],
            1,
        ),
        (
            "not an envelope",
            |genuine| vec!["{}".to_owned(), genuine.to_owned()],
            1,
        ),
        (
            "unknown certificate",
            |genuine| vec![of_an_unknown_certificate(genuine), genuine.to_owned()],
            1,
        ),
        (
            "repeated",
            |genuine| {
                let forged = altered(genuine, 1);
                vec![
                    forged.clone(),
                    genuine.to_owned(),
                    forged,
                    genuine.to_owned(),
                ]
            },
            1,
        ),
        (
            "many",
            |genuine| {
                let mut copies: Vec<String> =
                    (1..1000).map(|number| altered(genuine, number)).collect();
                copies.insert(700, genuine.to_owned());
                copies
            },
            999,
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let record = || Durable::open(&folder.path().join("processed")).unwrap();
    for (what, copies, forged) in orders {
        fixture.broker.stop_intercepting();
        fixture.publish([what]).await;
        copy(&fixture.broker, copies);
        let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
        let (mut messages, refused) = take(&mut consumer, forged + 1).await;
        let message = messages.pop().expect(what);
        assert_eq!(
            (text(&message), messages.len(), refused.len()),
            (what, 0, forged)
        );
        assert_eq!(message.verified_sender(), Some(fixture.sender.id()));
        for unopenable in refused {
            assert_eq!(
                unopenable.reject(None).await.unwrap(),
                Rejection::Copy,
                "{what}"
            );
        }
        message.ack().await.unwrap();
        fixture.broker.stop_intercepting();
        fixture
            .honest_traffic_arrives(&mut consumer, "beside")
            .await;
        consumer.close().await;
        assert_eq!(rejections(&fixture.server).await, 0, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_copy_of_a_processed_message_is_not_rejected() {
    let fixture = MaliciousBrokerFixture::new().await;
    let folder = tempfile::tempdir().unwrap();
    let record = || Durable::open(&folder.path().join("processed")).unwrap();
    let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
    let id = fixture.publish(["once"]).await.remove(0);
    opened(&mut consumer).await.ack().await.unwrap();
    consumer.close().await;
    // To a new process, which recognises the message only by its record.
    let envelope = published_through(&fixture.broker, "sender").remove(0);
    let forged = envelope.replace("\"sender\"", "\"mallory\"");
    crate::deliver_to(&fixture, "receiver", vec![(id.to_string(), forged)]);
    let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
    let refused = unopenable(&mut consumer, "another sender").await;
    assert_eq!(refused.reject(None).await.unwrap(), Rejection::Copy);
    assert_eq!(rejections(&fixture.server).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_forged_copy_is_rejected_and_the_genuine_message_still_accepted_later() {
    let fixture = MaliciousBrokerFixture::new().await;
    fixture.publish(["original"]).await;
    copy(&fixture.broker, |genuine| {
        vec![altered(genuine, 1), altered(genuine, 2)]
    });
    let mut consumer = fixture.consumer().start().await.unwrap();
    let (messages, refused) = take(&mut consumer, 2).await;
    assert!(messages.is_empty());
    for unopenable in refused {
        assert_eq!(unopenable.reject(None).await.unwrap(), Rejection::SetAside);
    }
    let genuine = published_through(&fixture.broker, "sender").remove(0);
    let id: Value = serde_json::from_str(&genuine).unwrap();
    let id = id["message_id"].as_str().unwrap().to_owned();
    consumer.close().await;
    crate::deliver_to(&fixture, "receiver", vec![(id, genuine)]);
    let mut consumer = fixture.consumer().start().await.unwrap();
    expect_texts(&mut consumer, ["original"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_another_client_with_the_same_id_is_another_message() {
    let fixture = Arc::new(MaliciousBrokerFixture::new().await);
    // The server has the certificates of all clients that have published.
    let mallory = fixture.connect("mallory").await;
    let publisher = mallory
        .publisher(fixture.receiver.id())
        .start()
        .await
        .unwrap();
    publisher.submit("as mallory").await.unwrap();
    publisher.finish().await;
    let mut consumer = fixture.consumer().start().await.unwrap();
    opened(&mut consumer).await.ack().await.unwrap();
    consumer.close().await;
    for (sender, is_signed, claims) in [("mallory", true, "mallory"), ("sender", false, "sender")] {
        fixture.broker.stop_intercepting();
        fixture.publish(["original"]).await;
        copy(&fixture.broker, {
            let fixture = Arc::downgrade(&fixture);
            move |genuine| {
                let fixture = fixture.upgrade().expect("the fixture still exists");
                vec![
                    of_another(&fixture, genuine, sender, is_signed),
                    genuine.to_owned(),
                ]
            }
        });
        let consumer = fixture.consumer().unverified_senders(!is_signed);
        let mut consumer = consumer.start().await.unwrap();
        let (messages, refused) = take(&mut consumer, 2).await;
        assert!(refused.is_empty());
        let [forged, genuine] = &messages[..] else {
            panic!("{} messages", messages.len());
        };
        assert_eq!((text(forged), text(genuine)), ("forged", "original"));
        assert_eq!(forged.sender().unwrap().as_ref(), claims);
        assert_eq!(forged.verified_sender().is_some(), is_signed);
        assert_eq!(genuine.verified_sender(), Some(fixture.sender.id()));
        for (_, result) in consumer.ack_all(messages).await {
            result.unwrap();
        }
        consumer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_copies_close_the_connection() {
    let fixture = MaliciousBrokerFixture::new().await;
    fixture.publish(["original"]).await;
    let is_over = Arc::new(AtomicBool::new(false));
    copy(&fixture.broker, move |genuine| {
        if is_over.swap(true, Ordering::SeqCst) {
            return vec![genuine.to_owned()];
        }
        (0..10_000).map(|number| altered(genuine, number)).collect()
    });
    let consumer = fixture.consumer().prefetch(NonZeroU32::MIN);
    let mut consumer = consumer.start().await.unwrap();
    let mut refused = 0;
    let message = loop {
        match next(&mut consumer).await {
            Ok(message) => break message,
            Err(_) => refused += 1,
        }
    };
    assert_eq!(text(&message), "original");
    assert!(refused < 10_000, "the connection was not closed");
    message.ack().await.unwrap();
}

/// The command line keeps the forged copies in its quarantine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receive_writes_the_genuine_message_and_quarantines_the_forged_ones() {
    let server = Server::start(Options::sqlite()).await;
    let broker = MaliciousBroker::start(&server).await;
    let workspace = Workspace::at(broker.address(), server.pki(), "sender", "receiver");
    workspace.register_receiver().await;
    workspace.send_messages(&["one", "two", "three"]).await;
    copy(&broker, |genuine| {
        vec![altered(genuine, 1), genuine.to_owned(), altered(genuine, 2)]
    });
    let receive = || {
        workspace
            .cli("receive")
            .args(["-v", "--idle-exit", "3"])
            .run()
    };
    let received = receive().await.success();
    assert_eq!(workspace.texts(), ["one", "two", "three"]);
    assert_eq!(workspace.quarantine().len(), 6);
    assert!(
        received.stderr.contains("3 confirmed"),
        "{}",
        received.stderr
    );
    assert!(
        received.stderr.contains("6 set aside"),
        "{}",
        received.stderr
    );
    assert_eq!(rejections(&server).await, 0);
    // All of it is replayed to a new process, which recognises what was written.
    let envelopes = published_through(&broker, "sender");
    broker.intercept(move |line| {
        let mut lines = line.honest();
        if line.reply_to("receiver", "Subscribed to queue").is_some() {
            for envelope in &envelopes {
                let fields: Value = serde_json::from_str(envelope).unwrap();
                let id = fields["message_id"].as_str().unwrap();
                lines.extend([
                    format!("Message: {id} {}", altered(envelope, 1)),
                    format!("Message: {id} {envelope}"),
                ]);
            }
        }
        lines
    });
    receive().await.success();
    assert_eq!(workspace.texts(), ["one", "two", "three"]);
    assert_eq!(rejections(&server).await, 0);
    workspace.expect_empty_queue(&server).await;
}
