//! Senders that claim another identity, and certificates of others.

use std::sync::Mutex;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciphermq_client::{
    ExchangeName, Identity, MessageId, OpenError, RecipientKey, SenderError, Timestamp,
    UnopenableReason, default_routing_key,
};
use ciphermq_crypto::{Header, SendingSession};
use ciphermq_tests::Authority;
use ciphermq_tests::malicious::MaliciousBrokerFixture;
use ciphermq_tests::malicious::fixture::{expect_texts, opened, text, unopenable};
use serde_json::Value;

use crate::envelopes::no_certificate;
use crate::signer;

/// Serves this reply in place of the sender's certificate, and checks the receiver's refusal.
async fn certificate_served(
    answer: impl FnOnce(&MaliciousBrokerFixture) -> String,
    refused_as: impl Fn(&UnopenableReason) -> bool,
) {
    let fixture = MaliciousBrokerFixture::new().await;
    fixture.publish(["original"]).await;
    let answer = answer(&fixture);
    // The bystander's certificate is requested later, so only the first reply is replaced.
    let lies = Mutex::new(1);
    fixture.broker.intercept(move |line| {
        let is_answer = line.reply_to("receiver", "Certificate: ").is_some();
        let mut lies = lies.lock().unwrap();
        if !is_answer || *lies == 0 {
            return line.honest();
        }
        *lies -= 1;
        vec![answer.clone()]
    });
    let mut consumer = fixture.consumer().start().await.unwrap();
    let refused = unopenable(&mut consumer, "another certificate").await;
    assert!(refused_as(&refused.reason), "{:?}", refused.reason);
    drop(refused);
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
    consumer.close().await;
    // The message is not lost.
    let mut consumer = fixture.consumer().start().await.unwrap();
    expect_texts(&mut consumer, ["original"]).await;
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_certificate_is_served() {
    certificate_served(|_| "Certificate not found".to_owned(), no_certificate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clients_certificate_is_served() {
    let mallory = |fixture: &MaliciousBrokerFixture| {
        certificate_of(&fixture.server.pki().authority().client("mallory"))
    };
    certificate_served(mallory, no_certificate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_senders_certificate_by_another_authority_is_served() {
    let stranger = |_: &MaliciousBrokerFixture| {
        certificate_of(&Authority::new("CipherMQ test CA").client("sender"))
    };
    certificate_served(stranger, no_certificate).await;
}

fn certificate_of(identity: &ciphermq_tests::pki::Identity) -> String {
    format!(
        "Certificate: {}",
        BASE64_STANDARD.encode(identity.certificate_der())
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_certificate_is_served() {
    certificate_served(|_| "Certificate: AAAA".to_owned(), no_certificate).await;
}

/// Seals a forged message with this id for the receiver, in `session`.
fn forge(fixture: &MaliciousBrokerFixture, id: &str, mut session: SendingSession) -> Value {
    let header = Header {
        message_id: &MessageId::new(id).unwrap(),
        exchange: &ExchangeName::new("ciphermq_exchange").unwrap(),
        routing_key: &default_routing_key(fixture.receiver.id()).unwrap(),
        content_type: "text/plain",
        sent_time: Timestamp::now(),
    };
    let envelope = session.seal(&header, b"forged").unwrap();
    serde_json::from_slice(&envelope.raw().to_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_the_sender_has_not_sent() {
    let fixture = MaliciousBrokerFixture::new().await;
    let key: RecipientKey = (*fixture.private_key().public_key()).into();
    let (receiver, now) = (fixture.receiver.id(), Timestamp::now());
    let signed_by =
        |identity: &Identity| SendingSession::start(identity, receiver, &key, now).unwrap();
    fixture.publish(["original"]).await;
    let original: Value = serde_json::from_str(&crate::published(&fixture, "sender")[0]).unwrap();

    let unsigned =
        SendingSession::start_unsigned(fixture.sender.id(), receiver, &key, now).unwrap();
    let unsigned = forge(&fixture, "unsigned", unsigned);
    // With the certificate and signature of a session that the sender itself has signed.
    let session = SendingSession::start_unsigned(fixture.sender.id(), receiver, &key, now).unwrap();
    let mut grafted = forge(&fixture, "grafted", session);
    for field in ["sender_certificate", "sender_signature"] {
        grafted[field] = original[field].clone();
    }
    // In the sender's name, with another client's valid certificate; and with a certificate for the
    // sender's name, issued by another CA.
    let mallory = signer(&fixture.server.pki().authority().client("mallory"));
    let mut relabelled = forge(&fixture, "relabelled", signed_by(&mallory));
    relabelled["sender_client_id"] = "sender".into();
    let stranger = crate::identity_of_another_ca("sender");
    let foreign = forge(&fixture, "foreign", signed_by(&stranger));
    assert_eq!(foreign["sender_client_id"], "sender");
    assert_eq!(
        foreign["sender_certificate"],
        stranger.fingerprint().to_string()
    );

    let deliveries: Vec<String> = [unsigned, grafted, relabelled, foreign]
        .iter()
        .map(|forged| {
            format!(
                "Message: {} {forged}",
                forged["message_id"].as_str().unwrap()
            )
        })
        .collect();
    let chain = format!(
        "Certificate: {}",
        BASE64_STANDARD.encode(&stranger.chain()[0])
    );
    fixture.broker.intercept(move |line| {
        let mut lines = line.honest();
        if line.reply_to("receiver", "Subscribed to queue").is_some() {
            lines.extend(deliveries.iter().cloned());
        } else if line.reply_to("receiver", "Certificate not found").is_some() {
            // The stranger's certificate, which the real server does not have.
            lines = vec![chain.clone()];
        }
        lines
    });
    let mut consumer = fixture.consumer().start().await.unwrap();
    let mut refused = Vec::new();
    for what in ["unsigned", "grafted", "relabelled", "foreign"] {
        let forged = unopenable(&mut consumer, what).await;
        assert_eq!(forged.message_id().as_str(), what);
        refused.push(forged);
    }
    let sealed = |error| UnopenableReason::Sealed(error);
    assert_eq!(refused[0].reason, sealed(OpenError::UnsignedSession));
    assert_eq!(refused[1].reason, sealed(OpenError::NotAuthentic));
    assert_eq!(refused[2].reason, sealed(OpenError::NotAuthentic));
    assert!(
        matches!(
            refused[3].reason,
            UnopenableReason::Sealed(OpenError::Sender(SenderError::Certificate(_)))
        ),
        "{:?}",
        refused[3].reason
    );
    expect_texts(&mut consumer, ["original"]).await;
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
}

/// The broker gives a stranger's messages the name of an allowed sender, in several ways, and an
/// allowed sender's messages the name of a stranger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowed_senders_name_is_forged() {
    let fixture = MaliciousBrokerFixture::new().await;
    let key: RecipientKey = (*fixture.private_key().public_key()).into();
    let (receiver, now) = (fixture.receiver.id(), Timestamp::now());
    let mallory = signer(&fixture.server.pki().authority().client("mallory"));
    let by_mallory = || SendingSession::start(&mallory, receiver, &key, now).unwrap();
    let other = forge(&fixture, "other", by_mallory());
    let mut relabelled = forge(&fixture, "relabelled", by_mallory());
    relabelled["sender_client_id"] = "sender".into();
    let unsigned =
        SendingSession::start_unsigned(fixture.sender.id(), receiver, &key, now).unwrap();
    let unsigned = forge(&fixture, "unsigned", unsigned);
    let mut nameless = forge(&fixture, "nameless", by_mallory());
    nameless.as_object_mut().unwrap().remove("sender_client_id");
    let deliveries = [&other, &relabelled, &unsigned, &nameless].map(|forged| {
        (
            forged["message_id"].as_str().unwrap().to_owned(),
            forged.to_string(),
        )
    });
    fixture.publish(["original"]).await;
    crate::deliver_to(&fixture, "receiver", deliveries.to_vec());
    let allowed = ["send?r", "bystander"].map(|text| text.parse().unwrap());
    let consumer = fixture.consumer().allow_senders(allowed);
    let mut consumer = consumer.start().await.unwrap();
    let mut reasons = Vec::new();
    for what in ["other", "relabelled", "unsigned", "nameless"] {
        let refused = unopenable(&mut consumer, what).await;
        assert_eq!(refused.message_id().as_str(), what);
        reasons.push(refused.reason.clone());
    }
    let expected = [
        OpenError::OtherSender(mallory.client_id().clone()),
        OpenError::NotAuthentic,
        OpenError::UnsignedSession,
        OpenError::NoSender,
    ];
    assert_eq!(reasons, expected.map(UnopenableReason::Sealed));
    let message = opened(&mut consumer).await;
    assert_eq!(text(&message), "original");
    assert_eq!(message.verified_sender(), Some(fixture.sender.id()));
    message.ack().await.unwrap();
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
}
