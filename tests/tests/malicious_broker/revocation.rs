//! Revocation lists that the broker withholds, rolls back or forges.

use std::error::Error as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ciphermq_client::revocation::RevocationError;
use ciphermq_client::{
    Client, ConnectErrorKind, ConsumeError, OpenError, PublishErrorKind, SenderError,
    SignedKeyError, Unopenable, UnopenableReason,
};
use ciphermq_crypto::identity::CertificateError;
use ciphermq_tests::Authority;
use ciphermq_tests::malicious::fixture::{next, opened, unopenable};
use ciphermq_tests::malicious::{Line, MaliciousBrokerFixture};
use ciphermq_tests::pki::List;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

pub(super) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs()
}

pub(super) fn certificate(fixture: &MaliciousBrokerFixture, id: &str) -> CertificateDer<'static> {
    let files = fixture.server.pki().client(id);
    CertificateDer::from_pem_file(files.certificate).unwrap()
}

/// Hands out these lists, in PEM, in place of the server's.
pub(super) fn hand_out(fixture: &MaliciousBrokerFixture, lists: &[String]) {
    let bodies = lists.iter().map(|pem| {
        let lines = pem.lines().filter(|line| !line.starts_with("---"));
        format!("\"{}\"", lines.collect::<String>())
    });
    let bodies: Vec<String> = bodies.collect();
    let answer = format!("Revocation lists: [{}]", bodies.join(","));
    fixture.broker.intercept(move |line: Line<'_>| {
        let asked = ["sender", "receiver"]
            .iter()
            .any(|client| line.reply_to(client, "Revocation lists: ").is_some());
        if asked {
            vec![answer.clone()]
        } else {
            line.honest()
        }
    });
}

/// Checks that a new publisher of this client refuses the receiver's key as one that is revoked.
pub(super) async fn expect_revoked_key(fixture: &MaliciousBrokerFixture, sender: &Client) {
    let publisher = sender.publisher(fixture.receiver.id());
    let error = publisher.start().await.unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::KeyNotTrusted, "{error}");
    let source = error.source().and_then(|source| source.downcast_ref());
    assert!(
        matches!(
            source,
            Some(SignedKeyError::Certificate(CertificateError::Revoked(
                Some(_)
            )))
        ),
        "{source:?}"
    );
}

/// Checks that a message was refused because its sender's certificate is revoked.
pub(super) fn expect_revoked_sender(refused: &Unopenable) {
    let UnopenableReason::Sealed(OpenError::Sender(SenderError::Certificate(reason))) =
        &refused.reason
    else {
        panic!("{:?}", refused.reason);
    };
    assert!(
        matches!(reason, CertificateError::Revoked(Some(_))),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_not_rolled_back_withheld_or_forged() {
    let fixture = MaliciousBrokerFixture::new().await;
    let pki = fixture.server.pki().clone();
    let revoked = certificate(&fixture, "receiver");
    let pins = tempfile::tempdir().unwrap();
    let sender = || fixture.builder("sender").pins_in(pins.path()).connect();
    let lists = |number, revoked: &[&CertificateDer<'_>]| {
        pki.authority().list(&List {
            number,
            revoked,
            ..List::default()
        })
    };
    hand_out(&fixture, &[lists(256, &[&revoked])]);
    expect_revoked_key(&fixture, &sender().await.unwrap()).await;

    // An older list without it. Neither this process nor the next one goes back.
    let older = [lists(255, &[])];
    let connected = sender().await.unwrap();
    hand_out(&fixture, &older);
    for sender in [connected, sender().await.unwrap()] {
        let error = sender.fetch_lists().await.unwrap_err();
        assert!(matches!(error, RevocationError::Older { .. }), "{error}");
        assert_eq!(sender.lists_in_force()[0].number().to_string(), "256");
        expect_revoked_key(&fixture, &sender).await;
    }

    // None at all, one of another authority of the same name, and no list.
    hand_out(&fixture, &[]);
    let withheld = sender().await.unwrap();
    withheld.fetch_lists().await.unwrap();
    expect_revoked_key(&fixture, &withheld).await;
    let newer = List {
        number: 1000,
        ..List::default()
    };
    let forged = Authority::new("CipherMQ test CA").list(&newer);
    let nonsense = "-----BEGIN X509 CRL-----\nAAAA\n".to_owned();
    for wrong in [forged, nonsense] {
        hand_out(&fixture, &[wrong]);
        let deceived = sender().await.unwrap();
        let error = deceived.fetch_lists().await.unwrap_err();
        assert!(matches!(error, RevocationError::List(_)), "{error}");
        expect_revoked_key(&fixture, &deceived).await;
    }

    // The authority's next list counts.
    hand_out(&fixture, &[lists(257, &[])]);
    let honest = sender().await.unwrap();
    let publisher = honest.publisher(fixture.receiver.id()).start();
    publisher.await.unwrap().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_revoked_sender_are_set_aside() {
    let fixture = MaliciousBrokerFixture::new().await;
    let revoked = certificate(&fixture, "sender");
    let list = |number, revoked_at| {
        fixture.server.pki().authority().list(&List {
            number,
            revoked: &[&revoked],
            revoked_at,
            ..List::default()
        })
    };
    fixture.publish(["before"]).await;
    let mut consumer = fixture.consumer().start().await.unwrap();
    let message = opened(&mut consumer).await;
    drop(message);
    consumer.close().await;

    // A running consumer learns of the list, too.
    hand_out(&fixture, &[list(1, now() + 3600)]);
    fixture.receiver.fetch_lists().await.unwrap();
    let mut consumer = fixture.consumer().start().await.unwrap();
    let refused = unopenable(&mut consumer, "revoked").await;
    expect_revoked_sender(&refused);
    drop(refused);
    consumer.close().await;

    // Its session began before.
    let lenient = fixture.consumer().before_revocation(true);
    let mut consumer = lenient.start().await.unwrap();
    drop(opened(&mut consumer).await);
    consumer.close().await;

    // Now it began after.
    hand_out(&fixture, &[list(2, now() - 3600)]);
    fixture.receiver.fetch_lists().await.unwrap();
    let lenient = fixture.consumer().before_revocation(true);
    let mut consumer = lenient.start().await.unwrap();
    drop(unopenable(&mut consumer, "revoked before").await);
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_too_old_ends_what_requires_a_newer_one() {
    const AGE: Duration = Duration::from_secs(4);
    let fixture = MaliciousBrokerFixture::new().await;
    let connect = |id| fixture.builder(id).require_lists_newer_than(AGE).connect();
    let list = |number, made_at| {
        fixture.server.pki().authority().list(&List {
            number,
            made_at,
            ..List::default()
        })
    };
    for lists in [vec![], vec![list(1, now() - 60)]] {
        hand_out(&fixture, &lists);
        let error = connect("sender").await.unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::OldRevocationList, "{error}");
    }

    hand_out(&fixture, &[list(2, now())]);
    let sender = connect("sender").await.unwrap();
    let receiver = connect("receiver").await.unwrap();
    let publisher = sender.publisher(receiver.id()).start().await.unwrap();
    let queue = ciphermq_client::default_queue(receiver.id()).unwrap();
    let consumer = receiver.consumer(&queue).keyring(fixture.keyring());
    let mut consumer = consumer.start().await.unwrap();
    publisher.send("in time").await.unwrap().await.unwrap();
    opened(&mut consumer).await.ack().await.unwrap();

    tokio::time::sleep(AGE + Duration::from_secs(1)).await;
    let error = publisher.submit("late").await.unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::OldRevocationList, "{error}");
    // What is delivered is not opened, and stays on the server.
    fixture.publish(["stays"]).await;
    let end = next(&mut consumer).await;
    let Err(ConsumeError::Ended(reason)) = end else {
        panic!("{end:?}");
    };
    assert_eq!(reason.kind(), ConnectErrorKind::OldRevocationList);
    assert!(consumer.next().await.is_none());
    let mut other = fixture.consumer().start().await.unwrap();
    let message = opened(&mut other).await;
    assert_eq!(message.payload(), b"stays");
    message.ack().await.unwrap();
}
