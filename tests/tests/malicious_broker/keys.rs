//! Keys that are not, or no longer, the receiver's: nothing is sent.

use std::error::Error as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ciphermq_client::{
    Announcement, Client, Form, Identity, Keyring, PrivateKey, PublishError, PublishErrorKind,
    PublisherBuilder, RecipientKey, SignedKeyError, Suite, Timestamp, XWingPrivateKey,
};
use ciphermq_tests::malicious::{Line, MaliciousBrokerFixture};
use ciphermq_tests::server::Options;
use serde_json::Value;

use crate::{identity_of_another_ca, signer};

const SUITE: Form = Form::Suite(Suite::X25519Aes256Gcm);

/// A script that replies to the sender's `get_signed_key` with this signed key.
fn serves(signed_key: &str) -> impl Fn(Line<'_>) -> Vec<String> + Send + Sync + 'static {
    let answer = format!("Signed key: {signed_key}");
    move |line| match line.reply_to("sender", "Signed key: ") {
        Some(_) => vec![answer.clone()],
        None => line.honest(),
    }
}

/// A script that hides the signed key from the sender, and replies with this unsigned one.
fn serves_bare(key: &PrivateKey) -> impl Fn(Line<'_>) -> Vec<String> + Send + Sync + 'static {
    let answer = format!("Public key: {}", key.public_key().to_base64());
    move |line| {
        if line.reply_to("sender", "Signed key: ").is_some() {
            vec!["Public key not found".to_owned()]
        } else if line.reply_to("sender", "Public key: ").is_some() {
            vec![answer.clone()]
        } else {
            line.honest()
        }
    }
}

async fn not_trusted(
    fixture: &MaliciousBrokerFixture,
    publisher: PublisherBuilder,
) -> PublishError {
    let error = fixture.refused(publisher).await;
    assert_eq!(error.kind(), PublishErrorKind::KeyNotTrusted, "{error}");
    error
}

fn reason(error: &PublishError) -> SignedKeyError {
    let source = error.source().and_then(|source| source.downcast_ref());
    SignedKeyError::clone(source.unwrap_or_else(|| panic!("no reason: {error}")))
}

async fn signed_key(client: &Client) -> String {
    let key = client.signed_key(client.id()).await.unwrap();
    key.expect("the key is registered")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bare_key_in_place_of_the_signed_one() {
    let fixture = MaliciousBrokerFixture::new().await;
    let stolen = PrivateKey::generate().unwrap();
    fixture.broker.intercept(serves_bare(&stolen));
    let error = fixture.refused(fixture.publisher()).await;
    assert_eq!(error.kind(), PublishErrorKind::KeyNotSigned, "{error}");
    fixture.honest_traffic_still_arrives().await;

    // A sender that allows unsigned keys is not downgraded from a signed one that it has seen, and
    // neither is a new process.
    let pins = tempfile::tempdir().unwrap();
    let sender = || fixture.builder("sender").pins_in(pins.path()).connect();
    fixture.broker.stop_intercepting();
    let before = sender().await.unwrap();
    fixture.pin_key(&before).await;
    fixture.broker.intercept(serves_bare(&stolen));
    for client in [before, sender().await.unwrap()] {
        let publisher = client
            .publisher(fixture.receiver.id())
            .allow_unsigned_key(SUITE);
        not_trusted(&fixture, publisher).await;
    }

    // Nor is it switched from an unsigned key that it has trusted on first use to another one.
    let trusting = fixture.connect("sender").await;
    let publisher = || {
        trusting
            .publisher(fixture.receiver.id())
            .allow_unsigned_key(SUITE)
    };
    drop(publisher().start().await.unwrap());
    fixture
        .broker
        .intercept(serves_bare(&PrivateKey::generate().unwrap()));
    not_trusted(&fixture, publisher()).await;
    fixture.honest_traffic_still_arrives().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clients_signed_key() {
    let fixture = MaliciousBrokerFixture::new().await;
    let mallory = fixture.connect("mallory").await;
    let key = Keyring::new(PrivateKey::generate().unwrap());
    mallory.register_keys(&key).await.unwrap();
    fixture
        .broker
        .intercept(serves(&signed_key(&mallory).await));
    let error = not_trusted(&fixture, fixture.publisher()).await;
    assert_eq!(
        reason(&error),
        SignedKeyError::OtherSigner(mallory.id().clone())
    );
    fixture.honest_traffic_still_arrives().await;
}

fn announce(identity: &Identity, key: &PrivateKey) -> String {
    let keys = vec![RecipientKey::X25519(*key.public_key())];
    let day = Duration::from_secs(24 * 60 * 60);
    let announcement = Announcement::new(identity, keys, Timestamp::now(), day, None);
    announcement.sign(identity).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_key_of_another_authority() {
    let fixture = MaliciousBrokerFixture::new().await;
    let identity = identity_of_another_ca("receiver");
    let forged = announce(&identity, &PrivateKey::generate().unwrap());
    fixture.broker.intercept(serves(&forged));
    let error = not_trusted(&fixture, fixture.publisher()).await;
    assert!(
        matches!(reason(&error), SignedKeyError::Certificate(_)),
        "{error}"
    );
    fixture.honest_traffic_still_arrives().await;
}

/// A signed key with another payload under the same signature.
fn rewritten(signed_key: &str, rewrite: impl FnOnce(&mut Value)) -> String {
    let [header, payload, signature] = signed_key.split('.').collect::<Vec<_>>()[..] else {
        panic!("not a compact JWS: {signed_key}");
    };
    let before: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let mut after = before.clone();
    rewrite(&mut after);
    assert_ne!(before, after);
    let payload = URL_SAFE_NO_PAD.encode(after.to_string());
    format!("{header}.{payload}.{signature}")
}

async fn rewritten_is_refused(fixture: &MaliciousBrokerFixture, rewrite: impl FnOnce(&mut Value)) {
    let own = signed_key(&fixture.receiver).await;
    fixture.broker.intercept(serves(&rewritten(&own, rewrite)));
    let error = not_trusted(fixture, fixture.publisher()).await;
    assert_eq!(reason(&error), SignedKeyError::Signature);
    fixture.broker.stop_intercepting();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_key_with_another_key_written_into_it() {
    let fixture = MaliciousBrokerFixture::new().await;
    let stolen = PrivateKey::generate().unwrap();
    rewritten_is_refused(&fixture, |payload| {
        payload["keys"][0]["key"] = stolen.public_key().to_base64().into();
        payload["keys"][0]["key_id"] = stolen.public_key().key_id().to_string().into();
    })
    .await;
    fixture.honest_traffic_still_arrives().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_quantum_key_replaced_or_removed() {
    let fixture = MaliciousBrokerFixture::post_quantum(Options::sqlite()).await;
    let stolen = XWingPrivateKey::generate().unwrap();
    rewritten_is_refused(&fixture, |payload| {
        assert_eq!(payload["keys"][0]["suite"], "XWING-AES256GCM");
        payload["keys"][0]["key"] = stolen.public_key().to_base64().into();
        payload["keys"][0]["key_id"] = stolen.public_key().key_id().to_string().into();
    })
    .await;
    // A downgrade: without the stronger suite, with an unknown one, or with the weaker one's name.
    rewritten_is_refused(&fixture, |payload| {
        payload["keys"].as_array_mut().unwrap().remove(0);
    })
    .await;
    for suite in ["NONE", "X25519-AES256GCM"] {
        rewritten_is_refused(&fixture, |payload| {
            payload["keys"][0]["suite"] = suite.into();
        })
        .await;
    }
    // The unsigned key is for X25519: the sender is not downgraded to it.
    fixture
        .broker
        .intercept(serves_bare(&fixture.private_key()));
    let error = fixture.refused(fixture.publisher()).await;
    assert_eq!(error.kind(), PublishErrorKind::KeyNotSigned, "{error}");

    fixture.broker.stop_intercepting();
    let publisher = fixture.publisher().start().await.unwrap();
    assert_eq!(
        publisher.receiver_key().await.suite(),
        Suite::XWingAes256Gcm
    );
    fixture.honest_traffic_still_arrives().await;
}

/// The receiver itself has signed both in the same millisecond, as two copies of its folder could.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_signed_keys_of_one_epoch() {
    let fixture = MaliciousBrokerFixture::new().await;
    let identity = signer(&fixture.server.pki().authority().client("receiver"));
    let now = Timestamp::now();
    let keys = [
        PrivateKey::generate().unwrap(),
        PrivateKey::generate().unwrap(),
    ];
    let [first, second] = [&keys[0], &keys[1]].map(|key| {
        let keys = vec![RecipientKey::X25519(*key.public_key())];
        let day = Duration::from_secs(24 * 60 * 60);
        Announcement::new(&identity, keys, now, day, None)
            .sign(&identity)
            .unwrap()
    });
    let pins = tempfile::tempdir().unwrap();
    let sender = || fixture.builder("sender").pins_in(pins.path()).connect();
    // A sender that has seen one refuses the other, even in a new process.
    fixture.broker.intercept(serves(&first));
    let before = sender().await.unwrap();
    fixture.pin_key(&before).await;
    fixture.broker.intercept(serves(&second));
    for client in [before, sender().await.unwrap()] {
        let error = not_trusted(&fixture, client.publisher(fixture.receiver.id())).await;
        let text = error.to_string();
        assert!(
            text.contains("other keys than before under the same epoch"),
            "{text}"
        );
    }
    // The key that it has seen remains valid.
    fixture.broker.intercept(serves(&first));
    let publisher = sender().await.unwrap().publisher(fixture.receiver.id());
    let key = publisher.start().await.unwrap().receiver_key().await;
    assert_eq!(key, RecipientKey::X25519(*keys[0].public_key()));
    // A sender that has seen neither accepts either one: both are the receiver's.
    fixture.broker.intercept(serves(&second));
    let newcomer = fixture.connect("sender").await;
    let publisher = newcomer
        .publisher(fixture.receiver.id())
        .start()
        .await
        .unwrap();
    let key = publisher.receiver_key().await;
    assert_eq!(key, RecipientKey::X25519(*keys[1].public_key()));
    // The receiver's next announcement has a higher epoch, and is accepted by all.
    let keyring = Keyring::new(PrivateKey::generate().unwrap()).with_older(fixture.private_key());
    fixture.receiver.register_keys(&keyring).await.unwrap();
    fixture.broker.stop_intercepting();
    for client in [newcomer, sender().await.unwrap()] {
        let publisher = client
            .publisher(fixture.receiver.id())
            .start()
            .await
            .unwrap();
        let key = publisher.receiver_key().await;
        assert_eq!(key, RecipientKey::X25519(*keyring.newest().public_key()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_signed_key_for_a_sender_that_has_seen_a_newer_one() {
    let fixture = MaliciousBrokerFixture::new().await;
    let old = signed_key(&fixture.receiver).await;
    // The receiver changes its key.
    let keyring = Keyring::new(PrivateKey::generate().unwrap()).with_older(fixture.private_key());
    fixture.receiver.register_keys(&keyring).await.unwrap();
    let new = signed_key(&fixture.receiver).await;
    assert_ne!(old, new);

    let pins = tempfile::tempdir().unwrap();
    let sender = || fixture.builder("sender").pins_in(pins.path()).connect();
    let before = sender().await.unwrap();
    let publisher = before
        .publisher(fixture.receiver.id())
        .start()
        .await
        .unwrap();
    assert_eq!(
        publisher.receiver_key().await,
        RecipientKey::X25519(*keyring.newest().public_key())
    );
    drop(publisher);
    fixture.broker.intercept(serves(&old));
    for client in [before, sender().await.unwrap()] {
        not_trusted(&fixture, client.publisher(fixture.receiver.id())).await;
    }
    fixture.broker.intercept(serves(&new));
    let publisher = sender().await.unwrap().publisher(fixture.receiver.id());
    drop(publisher.start().await.unwrap());
}
