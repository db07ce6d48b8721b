//! `ciphermq-cli` connected to a malicious broker: its messages, exit codes and output.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::prelude::BASE64_STANDARD;
use ciphermq_client::{Announcement, Identity, PrivateKey, RecipientKey, Timestamp};
use ciphermq_tests::Server;
use ciphermq_tests::cli::Outcome;
use ciphermq_tests::malicious::MaliciousBroker;
use ciphermq_tests::server::Options;
use serde_json::Value;

use crate::{identity_of_another_ca, published_through, signer};
use ciphermq_tests::workspace::{Workspace, failed};

/// A user's workspace, the real server, and the malicious broker that the programs of the workspace
/// connect to.
struct CliFixture {
    workspace: Workspace,
    server: Server,
    broker: MaliciousBroker,
}

impl CliFixture {
    /// Creates a fixture whose receiver has registered its key.
    async fn new() -> Self {
        let server = Server::start(Options::sqlite()).await;
        let broker = MaliciousBroker::start(&server).await;
        let workspace = Workspace::at(broker.address(), server.pki(), "sender", "receiver");
        workspace.register_receiver().await;
        Self {
            workspace,
            server,
            broker,
        }
    }

    async fn send(&self, message: &str) -> Outcome {
        self.workspace
            .send()
            .args(["--message", message])
            .run()
            .await
    }

    async fn verify_key(&self) -> Outcome {
        self.workspace.cli("verify-key").arg("receiver").run().await
    }

    async fn get_key(&self) -> Outcome {
        self.workspace.cli("get-key").arg("receiver").run().await
    }

    /// The signed key of the receiver that the server last sent to the sender.
    fn signed_key_served(&self) -> String {
        let served = self.broker.recorded().into_iter().rev();
        served
            .filter(|line| line.client == "sender")
            .find_map(|line| Some(line.text.strip_prefix("Signed key: ")?.to_owned()))
            .expect("the key was requested")
    }

    /// Makes the broker send this reply to the sender in place of the signed key.
    fn serve(&self, answer: impl Into<String>) {
        let answer = answer.into();
        self.broker
            .intercept(move |line| match line.reply_to("sender", "Signed key: ") {
                Some(_) => vec![answer.clone()],
                None => line.honest(),
            });
    }

    /// Checks that `send` and `verify-key` refuse the receiver's key, with `because` in the error
    /// and `advice_part` in the advice, and that nothing is sent.
    async fn expect_key_refused(&self, because: &str, advice_part: &str) {
        let before = self.broker.published_by("sender").len();
        let (what, advice) = failed(self.send("secret").await);
        assert!(
            what.contains("`receiver`") && what.contains(because),
            "{what}"
        );
        assert!(advice.contains(advice_part), "{advice}");
        assert_eq!(
            self.broker.published_by("sender").len(),
            before,
            "nothing may be sent"
        );
        let verified = self.verify_key().await.code(1);
        let output = verified.stdout + &verified.stderr;
        assert!(output.contains(because), "{output}");
    }

    /// Checks that honest traffic continues: exactly a message that is sent now is received, after
    /// the messages `before`.
    async fn expect_honest_traffic(&self, before: &[&str]) {
        self.broker.stop_intercepting();
        self.send("honest").await.success();
        self.workspace.receive(1).await;
        assert_eq!(self.workspace.texts(), [before, &["honest"]].concat());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_than_the_receivers() {
    let fixture = CliFixture::new().await;
    fixture.verify_key().await.success();
    let own = fixture.signed_key_served();
    let parts: Vec<&str> = own.split('.').collect();
    let mut payload: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let stolen = PrivateKey::generate().unwrap();
    payload["keys"][0]["key"] = stolen.public_key().to_base64().into();
    payload["keys"][0]["key_id"] = stolen.public_key().key_id().to_string().into();
    let payload = URL_SAFE_NO_PAD.encode(payload.to_string());
    fixture.serve(format!("Signed key: {}.{payload}.{}", parts[0], parts[2]));
    fixture
        .expect_key_refused("signature", "verify-key receiver")
        .await;
    // `get-key` only shows the key, with a warning.
    let shown = fixture.get_key().await.success();
    assert!(
        shown.stderr.to_lowercase().contains("warning"),
        "{}",
        shown.stderr
    );

    // An unsigned key.
    let bare = stolen.public_key().to_base64();
    fixture.broker.intercept(move |line| {
        if line.reply_to("sender", "Signed key: ").is_some() {
            vec!["Public key not found".to_owned()]
        } else if line.reply_to("sender", "Public key: ").is_some() {
            vec![format!("Public key: {bare}")]
        } else {
            line.honest()
        }
    });
    fixture
        .expect_key_refused("not signed", "--allow-unsigned-keys")
        .await;
    let shown = fixture.get_key().await.success();
    assert_eq!(shown.stdout.trim(), stolen.public_key().to_base64());
    assert!(shown.stderr.contains("not signed"), "{}", shown.stderr);
    fixture.expect_honest_traffic(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_keys_of_others_and_expired_ones() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let fixture = CliFixture::new().await;
    let announced = |by: &Identity, time: Timestamp| {
        let key = RecipientKey::X25519(*PrivateKey::generate().unwrap().public_key());
        Announcement::new(by, vec![key], time, DAY, None)
            .sign(by)
            .unwrap()
    };
    let authority = fixture.server.pki().authority();
    let (receiver, mallory) = (
        signer(&authority.client("receiver")),
        signer(&authority.client("mallory")),
    );
    let other_ca = identity_of_another_ca("receiver");
    let now = Timestamp::now();
    // The certificate is still valid; only the announcement has expired.
    let past = now - DAY - Duration::from_secs(60);
    for (signed_key, because, advice_part) in [
        (
            announced(&mallory, now),
            "signed by `mallory`",
            "verify-key receiver",
        ),
        (
            announced(&other_ca, now),
            "certificate",
            "the same certificate authority",
        ),
        (
            announced(&receiver, past),
            "valid until",
            "Start the receiver `receiver` again",
        ),
    ] {
        fixture.serve(format!("Signed key: {signed_key}"));
        fixture.expect_key_refused(because, advice_part).await;
    }
    // The option for older clients does not affect keys with a wrong signature.
    fixture.serve(format!("Signed key: {}", announced(&mallory, now)));
    let send = fixture
        .workspace
        .cli("send")
        .args(["--to", "receiver", "--message", "secret"]);
    let send = send.args(["--allow-unsigned-keys", "--suite", "LEGACY-A"]);
    let (what, _) = failed(send.run().await);
    assert!(what.contains("signed by `mallory`"), "{what}");
    fixture.expect_honest_traffic(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_older_signed_key() {
    let fixture = CliFixture::new().await;
    fixture.send("by the old key").await.success();
    let old = fixture.signed_key_served();
    fixture
        .workspace
        .cli("keygen")
        .arg("rotate")
        .run()
        .await
        .success();
    fixture.workspace.cli("register-key").run().await.success();
    fixture.send("by the new key").await.success();
    assert_ne!(fixture.signed_key_served(), old);
    fixture.serve(format!("Signed key: {old}"));
    fixture
        .expect_key_refused("older", "registers its key anew")
        .await;
    fixture.broker.stop_intercepting();
    fixture.workspace.receive(2).await;
    fixture
        .expect_honest_traffic(&["by the old key", "by the new key"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_certificate_and_moved_messages() {
    let fixture = CliFixture::new().await;
    // A message for another receiver is delivered to this one.
    let other = Workspace::named(&fixture.server, "sender", "other");
    other.register_receiver().await;
    let address = format!("localhost:{}", fixture.broker.address().port());
    let send = other.cli("send").env("CIPHERMQ_SERVER", &address);
    send.args(["--to", "other", "--message", "for the other"])
        .run()
        .await
        .success();
    fixture.send("original").await.success();
    let envelopes = published_through(&fixture.broker, "sender");
    let fields: Vec<Value> = envelopes
        .iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    let [moved, id] = [0, 1].map(|index| fields[index]["message_id"].as_str().unwrap().to_owned());

    let mallory = fixture.server.pki().authority().client("mallory");
    let certificate = format!(
        "Certificate: {}",
        BASE64_STANDARD.encode(mallory.certificate_der())
    );
    let (lied, for_other) = (AtomicBool::new(false), envelopes[0].clone());
    fixture.broker.intercept(move |line| {
        if line.reply_to("receiver", "Subscribed to queue").is_some() {
            return [line.honest(), vec![format!("Message: {moved} {for_other}")]].concat();
        }
        if line.reply_to("receiver", "Certificate: ").is_some()
            && !lied.swap(true, Ordering::SeqCst)
        {
            return vec![certificate.clone()];
        }
        line.honest()
    });
    let idle = || {
        fixture
            .workspace
            .cli("receive")
            .args(["--idle-exit", "0.5"])
            .run()
    };
    let received = idle().await.success();
    assert_eq!(fixture.workspace.texts(), [""; 0]);
    let quarantine = fixture.workspace.quarantine();
    let reasons: Vec<(&str, &str)> = quarantine
        .iter()
        .map(|line| {
            (
                line["message_id"].as_str().unwrap(),
                line["reason"].as_str().unwrap(),
            )
        })
        .collect();
    let reason = |id: &str| {
        reasons
            .iter()
            .find(|(of, _)| *of == id)
            .unwrap_or_else(|| panic!("{reasons:?}"))
            .1
    };
    assert!(reason(&id).contains("no certificate"), "{reasons:?}");
    let moved = fields[0]["message_id"].as_str().unwrap();
    assert!(reason(moved).contains("for `other`"), "{reasons:?}");
    for (line, whole) in quarantine
        .iter()
        .map(|line| (line, line["message_id"] == *moved))
    {
        assert_eq!(
            line["envelope"],
            fields[usize::from(!whole)],
            "the envelope is kept unchanged"
        );
        assert!(
            received
                .stderr
                .contains(line["message_id"].as_str().unwrap()),
            "{}",
            received.stderr
        );
    }
    assert_eq!(quarantine.len(), 2);
    // The message in quarantine is delivered later, twice; and again to a new process, which
    // recognises it by the output.
    let again = format!("Message: {id} {}", envelopes[1]);
    fixture.broker.intercept(
        move |line| match line.reply_to("receiver", "Subscribed to queue") {
            Some(_) => [line.honest(), vec![again.clone(), again.clone()]].concat(),
            None => line.honest(),
        },
    );
    for _ in 0..2 {
        idle().await.success();
        assert_eq!(fixture.workspace.texts(), ["original"]);
    }
    assert_eq!(fixture.workspace.quarantine().len(), 2);
    fixture.expect_honest_traffic(&["original"]).await;
    // The other receiver's message is still there for it.
    other.receive(1).await;
    assert_eq!(other.texts(), ["for the other"]);
}

/// A client's identity is given by its certificate. If the broker, or a man in the middle with a
/// certificate of their own, claims another one, the client closes the connection, because messages
/// on it are for another client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_names_another_client() {
    let fixture = CliFixture::new().await;
    fixture.broker.intercept(|line| {
        let names_another = |text: &str| {
            text.replace("\"client_id\":\"receiver\"", "\"client_id\":\"mallory\"")
                .replace("\"client_id\":\"sender\"", "\"client_id\":\"mallory\"")
        };
        match line.text.starts_with("Hello: ") {
            true => vec![names_another(line.text)],
            false => line.honest(),
        }
    });
    for (command, own) in [
        ("receive", "receiver"),
        ("register-key", "receiver"),
        ("status", "sender"),
    ] {
        let (what, advice) = failed(fixture.workspace.cli(command).run().await);
        assert!(what.contains("for `mallory`"), "{command}: {what}");
        assert!(
            what.contains(&format!("names `{own}`")),
            "{command}: {what}"
        );
        assert!(advice.contains("Connect to the server itself"), "{advice}");
    }
    let (what, _) = failed(fixture.send("secret").await);
    assert!(what.contains("for `mallory`"), "{what}");
    assert_eq!(fixture.broker.published_by("sender"), [""; 0]);
    fixture.expect_honest_traffic(&[]).await;
}
