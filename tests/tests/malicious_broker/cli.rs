//! `ciphermq-cli` as a user meets it, connected to an evil broker: what it says, how it ends, and
//! what it has written.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::prelude::BASE64_STANDARD;
use ciphermq_client::{Announcement, Identity, PrivateKey, RecipientKey, Timestamp};
use ciphermq_tests::Server;
use ciphermq_tests::cli::Outcome;
use ciphermq_tests::evil::Evil;
use ciphermq_tests::server::Options;
use serde_json::Value;

use crate::workspace::{Workspace, failed};
use crate::{identity_of_another_ca, published_through, signer};

/// One user's folder, the real server, and the evil broker that everything in the folder connects
/// to.
struct Office {
    workspace: Workspace,
    server: Server,
    evil: Evil,
}

impl Office {
    /// The receiver has registered its key.
    async fn open() -> Self {
        let server = Server::start(Options::sqlite()).await;
        let evil = Evil::start(&server).await;
        let workspace = Workspace::at(evil.address(), server.pki(), "sender", "receiver");
        workspace.introduce().await;
        Self {
            workspace,
            server,
            evil,
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

    /// What the server answers when it is asked for the receiver's signed key.
    fn signed_key_served(&self) -> String {
        let served = self.evil.recorded().into_iter().rev();
        served
            .filter(|line| line.client == "sender")
            .find_map(|line| Some(line.text.strip_prefix("Signed key: ")?.to_owned()))
            .expect("it was asked for")
    }

    /// The sender is given this in place of the signed key.
    fn serve(&self, answer: impl Into<String>) {
        let answer = answer.into();
        self.evil
            .play(move |line| match line.reply_to("sender", "Signed key: ") {
                Some(_) => vec![answer.clone()],
                None => line.honest(),
            });
    }

    /// `send` and `verify-key` refuse the receiver's key, with this in what they say and this in
    /// what they say is to be done, and nothing is sent.
    async fn expect_key_refused(&self, because: &str, mend: &str) {
        let before = self.evil.published_by("sender").len();
        let (what, advice) = failed(self.send("secret").await);
        assert!(
            what.contains("`receiver`") && what.contains(because),
            "{what}"
        );
        assert!(advice.contains(mend), "{advice}");
        assert_eq!(
            self.evil.published_by("sender").len(),
            before,
            "nothing may be sent"
        );
        let verified = self.verify_key().await.code(1);
        let said = verified.stdout + &verified.stderr;
        assert!(said.contains(because), "{said}");
    }

    /// Honest traffic goes on: what is sent now is what is received next, and all that is received.
    async fn expect_honest_traffic(&self, before: &[&str]) {
        self.evil.play_honest();
        self.send("honest").await.success();
        self.workspace.receive(1).await;
        assert_eq!(self.workspace.texts(), [before, &["honest"]].concat());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_than_the_receivers() {
    let office = Office::open().await;
    office.verify_key().await.success();
    let own = office.signed_key_served();
    let parts: Vec<&str> = own.split('.').collect();
    let mut payload: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let stolen = PrivateKey::generate().unwrap();
    payload["keys"][0]["key"] = stolen.public_key().to_base64().into();
    payload["keys"][0]["key_id"] = stolen.public_key().key_id().to_string().into();
    let payload = URL_SAFE_NO_PAD.encode(payload.to_string());
    office.serve(format!("Signed key: {}.{payload}.{}", parts[0], parts[2]));
    office
        .expect_key_refused("signature", "verify-key receiver")
        .await;
    // It only shows; and warns.
    let shown = office
        .workspace
        .cli("get-key")
        .arg("receiver")
        .run()
        .await
        .success();
    assert!(
        shown.stderr.to_lowercase().contains("warning"),
        "{}",
        shown.stderr
    );

    // One that nobody has signed.
    let bare = stolen.public_key().to_base64();
    office.evil.play(move |line| {
        if line.reply_to("sender", "Signed key: ").is_some() {
            vec!["Public key not found".to_owned()]
        } else if line.reply_to("sender", "Public key: ").is_some() {
            vec![format!("Public key: {bare}")]
        } else {
            line.honest()
        }
    });
    office
        .expect_key_refused("not signed", "--allow-unsigned-keys")
        .await;
    let shown = office
        .workspace
        .cli("get-key")
        .arg("receiver")
        .run()
        .await
        .success();
    assert_eq!(shown.stdout.trim(), stolen.public_key().to_base64());
    assert!(shown.stderr.contains("not signed"), "{}", shown.stderr);
    office.expect_honest_traffic(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_keys_of_others_and_of_the_past() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let office = Office::open().await;
    let announced = |by: &Identity, time: Timestamp| {
        let key = RecipientKey::X25519(*PrivateKey::generate().unwrap().public_key());
        Announcement::new(by, vec![key], time, DAY, None)
            .sign(by)
            .unwrap()
    };
    let authority = office.server.pki().authority();
    let (receiver, mallory) = (
        signer(&authority.client("receiver")),
        signer(&authority.client("mallory")),
    );
    let other_ca = identity_of_another_ca("receiver");
    let now = Timestamp::now();
    // The certificate is good for a day before now: the announcement alone is over.
    let past = now - DAY - Duration::from_secs(60);
    for (signed_key, because, mend) in [
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
        office.serve(format!("Signed key: {signed_key}"));
        office.expect_key_refused(because, mend).await;
    }
    // The option for older clients changes nothing about keys that are signed wrongly.
    office.serve(format!("Signed key: {}", announced(&mallory, now)));
    let send = office
        .workspace
        .cli("send")
        .args(["--to", "receiver", "--message", "secret"]);
    let send = send.args(["--allow-unsigned-keys", "--suite", "LEGACY-A"]);
    let (what, _) = failed(send.run().await);
    assert!(what.contains("signed by `mallory`"), "{what}");
    office.expect_honest_traffic(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_signed_key_again() {
    let office = Office::open().await;
    office.send("by the old key").await.success();
    let old = office.signed_key_served();
    office
        .workspace
        .cli("keygen")
        .arg("rotate")
        .run()
        .await
        .success();
    office.workspace.cli("register-key").run().await.success();
    office.send("by the new key").await.success();
    assert_ne!(office.signed_key_served(), old);
    office.serve(format!("Signed key: {old}"));
    office
        .expect_key_refused("older", "registers its key anew")
        .await;
    office.evil.play_honest();
    office.workspace.receive(2).await;
    office
        .expect_honest_traffic(&["by the old key", "by the new key"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_certificate_and_moved_messages() {
    let office = Office::open().await;
    // For another receiver, whose message is then given to this one.
    let other = Workspace::named(&office.server, "sender", "other");
    other.introduce().await;
    let address = format!("localhost:{}", office.evil.address().port());
    let send = other.cli("send").env("CIPHERMQ_SERVER", &address);
    send.args(["--to", "other", "--message", "for the other"])
        .run()
        .await
        .success();
    office.send("original").await.success();
    let envelopes = published_through(&office.evil, "sender");
    let fields: Vec<Value> = envelopes
        .iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    let [moved, id] = [0, 1].map(|index| fields[index]["message_id"].as_str().unwrap().to_owned());

    let mallory = office.server.pki().authority().client("mallory");
    let certificate = format!(
        "Certificate: {}",
        BASE64_STANDARD.encode(mallory.certificate_der())
    );
    let (lied, for_other) = (AtomicBool::new(false), envelopes[0].clone());
    office.evil.play(move |line| {
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
        office
            .workspace
            .cli("receive")
            .args(["--idle-exit", "0.5"])
            .run()
    };
    let received = idle().await.success();
    assert_eq!(office.workspace.texts(), [""; 0]);
    let quarantine = office.workspace.quarantine();
    let said: Vec<(&str, &str)> = quarantine
        .iter()
        .map(|line| {
            (
                line["message_id"].as_str().unwrap(),
                line["reason"].as_str().unwrap(),
            )
        })
        .collect();
    let reason = |id: &str| {
        said.iter()
            .find(|(of, _)| *of == id)
            .unwrap_or_else(|| panic!("{said:?}"))
            .1
    };
    assert!(reason(&id).contains("no certificate"), "{said:?}");
    let moved = fields[0]["message_id"].as_str().unwrap();
    assert!(reason(moved).contains("for `other`"), "{said:?}");
    for (line, whole) in quarantine
        .iter()
        .map(|line| (line, line["message_id"] == *moved))
    {
        assert_eq!(
            line["envelope"],
            fields[usize::from(!whole)],
            "the envelope is kept whole"
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
    // What was set aside comes later, twice; and again to a new process, which knows it from the
    // output.
    let again = format!("Message: {id} {}", envelopes[1]);
    office.evil.play(
        move |line| match line.reply_to("receiver", "Subscribed to queue") {
            Some(_) => [line.honest(), vec![again.clone(), again.clone()]].concat(),
            None => line.honest(),
        },
    );
    for _ in 0..2 {
        idle().await.success();
        assert_eq!(office.workspace.texts(), ["original"]);
    }
    assert_eq!(office.workspace.quarantine().len(), 2);
    office.expect_honest_traffic(&["original"]).await;
    // What is the other's is still there for it.
    other.receive(1).await;
    assert_eq!(other.texts(), ["for the other"]);
}

/// Who a client is its certificate says. A broker that says otherwise, or somebody on the way with
/// a certificate of his own, is not gone on with: what is for another client is not for this one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_names_another_client() {
    let office = Office::open().await;
    office.evil.play(|line| {
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
        let (what, advice) = failed(office.workspace.cli(command).run().await);
        assert!(what.contains("for `mallory`"), "{command}: {what}");
        assert!(
            what.contains(&format!("names `{own}`")),
            "{command}: {what}"
        );
        assert!(advice.contains("Connect to the server itself"), "{advice}");
    }
    let (what, _) = failed(office.send("secret").await);
    assert!(what.contains("for `mallory`"), "{what}");
    assert_eq!(office.evil.published_by("sender"), [""; 0]);
    office.expect_honest_traffic(&[]).await;
}
