//! Revocation lists of departments, intermediate authorities that have issued the certificate of
//! the other side only: the broker withholds them, or rolls them back.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ciphermq_client::revocation::RevocationError;
use ciphermq_client::{
    Client, ConnectErrorKind, Consumer, Event, Keyring, OpenError, PrivateKey, PublishErrorKind,
    Rejection, SenderError, UnopenableReason,
};
use ciphermq_crypto::identity::CertificateError;
use ciphermq_tests::malicious::MaliciousBrokerFixture;
use ciphermq_tests::malicious::fixture::{opened, text, unopenable};
use ciphermq_tests::pki::{List, Pki};
use ciphermq_tests::server::Options;
use ciphermq_tests::workspace::Workspace;
use ciphermq_tests::{Authority, PATIENCE};

use super::revocation::{certificate, expect_revoked_key, expect_revoked_sender, hand_out, now};

/// A fixture whose sender and receiver are of two departments; the bystander is the root's.
struct Departments {
    fixture: MaliciousBrokerFixture,
    /// That of the sender.
    a: Authority,
    /// That of the receiver.
    b: Authority,
}

impl Departments {
    async fn new() -> Self {
        let pki = Pki::new();
        let [a, b] = ["department A", "department B"].map(|name| pki.authority().department(name));
        pki.client_of(&a, "sender");
        pki.client_of(&b, "receiver");
        let options = Options::sqlite().pki(Arc::new(pki));
        let fixture = MaliciousBrokerFixture::with(options).await;
        Self { fixture, a, b }
    }

    fn root(&self) -> &Authority {
        self.fixture.server.pki().authority()
    }
}

/// Returns the numbers of the lists in force.
fn in_force(client: &Client) -> Vec<String> {
    let lists = client.lists_in_force();
    lists.iter().map(|list| list.number().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receivers_department_revokes_it_for_good() {
    let departments = Departments::new().await;
    let Departments { fixture, b, .. } = &departments;
    let revoked = certificate(fixture, "receiver");
    let list = |authority: &Authority, number, revoked: &[_]| {
        authority.list(&List {
            number,
            revoked,
            ..List::default()
        })
    };
    let pins = tempfile::tempdir().unwrap();
    let sender = || fixture.builder("sender").pins_in(pins.path()).connect();

    // A sender that has not seen the list can be deceived, and learns of it when it comes.
    hand_out(fixture, &[]);
    let running = sender().await.unwrap();
    let publisher = running.publisher(fixture.receiver.id());
    let publisher = publisher.start().await.unwrap();
    hand_out(fixture, &[list(b, 256, &[&revoked])]);
    running.fetch_lists().await.unwrap();
    assert_eq!(in_force(&running), ["256"]);
    let error = publisher.submit("late").await.unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::KeyNotTrusted, "{error}");
    expect_revoked_key(fixture, &running).await;

    // Rolled back: neither this process nor the next one goes back. The next one does not know
    // whose list it gets before it has met the receiver.
    hand_out(fixture, &[list(b, 255, &[])]);
    let error = running.fetch_lists().await.unwrap_err();
    assert!(matches!(error, RevocationError::Older { .. }), "{error}");
    expect_revoked_key(fixture, &running).await;
    let restarted = sender().await.unwrap();
    assert!(in_force(&restarted).is_empty());
    expect_revoked_key(fixture, &restarted).await;
    assert_eq!(in_force(&restarted), ["256"]);

    // Withheld, or replaced by what another authority of the same name has signed.
    let namesake = departments.root().department("department B");
    for lists in [vec![], vec![list(&namesake, 1000, &[])]] {
        hand_out(fixture, &lists);
        let deceived = sender().await.unwrap();
        expect_revoked_key(fixture, &deceived).await;
        assert_eq!(in_force(&deceived), ["256"]);
        // That may be the list of the department's new key.
        deceived.fetch_lists().await.unwrap();
    }

    // No answer but an error: what is kept counts.
    fixture.broker.intercept(|line| {
        let asked = line.reply_to("sender", "Revocation lists: ").is_some();
        match asked {
            true => vec!["Error: limit_reached: the lists are too long".to_owned()],
            false => line.honest(),
        }
    });
    expect_revoked_key(fixture, &sender().await.unwrap()).await;

    // A sender that keeps nothing has the list in force before it trusts the key.
    hand_out(fixture, &[list(b, 256, &[&revoked])]);
    expect_revoked_key(fixture, &fixture.connect("sender").await).await;

    // The department's next list counts.
    hand_out(fixture, &[list(b, 257, &[])]);
    let honest = sender().await.unwrap();
    let publisher = honest.publisher(fixture.receiver.id()).start();
    publisher.await.unwrap().finish().await;
    assert_eq!(in_force(&honest), ["257"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_a_sender_that_its_department_has_revoked_are_set_aside() {
    let departments = Departments::new().await;
    let Departments { fixture, a, .. } = &departments;
    let revoked = certificate(fixture, "sender");
    let publisher = fixture.publisher().start().await.unwrap();
    let mut consumer = fixture.consumer().start().await.unwrap();
    publisher.submit("before").await.unwrap();
    opened(&mut consumer).await.ack().await.unwrap();

    // The session that was verified before is refused as well.
    hand_out(
        fixture,
        &[a.list(&List {
            revoked: &[&revoked],
            ..List::default()
        })],
    );
    fixture.receiver.fetch_lists().await.unwrap();
    publisher.submit("after").await.unwrap();
    expect_revoked_sender(&unopenable(&mut consumer, "a running consumer").await);
    fixture
        .honest_traffic_arrives(&mut consumer, "of the root's client")
        .await;
    consumer.close().await;

    // One that has not met the sender before.
    let receiver = fixture.connect("receiver").await;
    let queue = ciphermq_client::default_queue(receiver.id()).unwrap();
    let consumer = receiver.consumer(&queue).keyring(fixture.keyring());
    let mut consumer = consumer.start().await.unwrap();
    expect_revoked_sender(&unopenable(&mut consumer, "a new consumer").await);
}

/// Expects that a consumer has reported, or reports, that messages of this sender wait.
async fn expect_waiting(events: &mut ciphermq_client::Events, waits: &str) {
    let waiting = async {
        loop {
            if let Event::MessagesWait { sender, reason } = events.next().await.unwrap() {
                assert_eq!(reason.kind(), ConnectErrorKind::OldRevocationList);
                assert_eq!(sender.as_str(), waits);
                return;
            }
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.expect("no message waits");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_departments_old_list_holds_up_nobody_else() {
    const AGE: Duration = Duration::from_secs(3600);
    let departments = Departments::new().await;
    let Departments { fixture, a, b } = &departments;
    let list = |authority: &Authority, number, age| {
        authority.list(&List {
            number,
            made_at: now() - age,
            ..List::default()
        })
    };
    let root = list(departments.root(), 1, 0);
    let connect = |id| fixture.builder(id).require_lists_newer_than(AGE).connect();
    let bystander = fixture.connect("bystander").await;
    let keyring = Keyring::new(PrivateKey::generate().unwrap());
    bystander.register_keys(&keyring).await.unwrap();

    for lists in [vec![], vec![list(b, 1, 7200)]] {
        hand_out(
            fixture,
            &[vec![root.clone(), list(a, 1, 0)], lists].concat(),
        );
        let sender = connect("sender").await.unwrap();
        let error = sender.publisher(fixture.receiver.id()).start().await;
        let error = error.map(drop).unwrap_err();
        assert_eq!(error.kind(), PublishErrorKind::OldRevocationList, "{error}");
        let publisher = sender.publisher(bystander.id()).start().await.unwrap();
        publisher.finish().await;
    }
    assert_eq!(fixture.broker.published_by("sender"), [""; 0]);
    hand_out(fixture, &[root.clone(), list(a, 1, 0), list(b, 2, 0)]);
    let sender = connect("sender").await.unwrap();
    let publisher = sender.publisher(fixture.receiver.id()).start();
    publisher.await.unwrap().finish().await;

    // The other way round. Its own department's list is in time, and the sender's is not.
    hand_out(fixture, &[root.clone(), list(a, 1, 7200), list(b, 2, 0)]);
    let receiver = connect("receiver").await.unwrap();
    let queue = ciphermq_client::default_queue(receiver.id()).unwrap();
    let builder = || receiver.consumer(&queue).keyring(fixture.keyring());
    let mut consumer: Consumer = builder().start().await.unwrap();
    let mut events = consumer.events();
    fixture.publish(["first", "second"]).await;
    fixture
        .honest_traffic_arrives(&mut consumer, "of the root's client")
        .await;
    expect_waiting(&mut events, "sender").await;
    consumer.close().await;

    // At most half of the prefetch waits, so that there is always room for others.
    fixture.publish(["one too many"]).await;
    let prefetch = NonZeroU32::new(4).unwrap();
    let mut consumer = builder().prefetch(prefetch).start().await.unwrap();
    let refused = unopenable(&mut consumer, "beyond half of the prefetch").await;
    let UnopenableReason::Sealed(OpenError::Sender(SenderError::Certificate(reason))) =
        &refused.reason
    else {
        panic!("{:?}", refused.reason);
    };
    assert!(
        matches!(reason, CertificateError::OldList { made: Some(_), .. }),
        "{reason}"
    );
    fixture
        .honest_traffic_arrives(&mut consumer, "beside three that are not opened")
        .await;
    assert_eq!(refused.reject(None).await.unwrap(), Rejection::SetAside);
    consumer.close().await;

    // It waits at the server, and is delivered again; and it is opened once the list is there.
    let mut consumer = builder().start().await.unwrap();
    let mut events = consumer.events();
    fixture
        .honest_traffic_arrives(&mut consumer, "beside it")
        .await;
    expect_waiting(&mut events, "sender").await;
    hand_out(fixture, &[root, list(a, 2, 0), list(b, 2, 0)]);
    receiver.fetch_lists().await.unwrap();
    for expected in ["first", "second"] {
        let message = opened(&mut consumer).await;
        assert_eq!(text(&message), expected);
        message.ack().await.unwrap();
    }
}

/// Answers the requests of these clients for lists with an error.
fn refuse_lists(fixture: &MaliciousBrokerFixture, clients: &'static [&'static str]) {
    fixture.broker.intercept(move |line| {
        let mut asked = clients.iter();
        match asked.any(|client| line.reply_to(client, "Revocation lists: ").is_some()) {
            true => vec!["Error: limit_reached: the lists are too long".to_owned()],
            false => line.honest(),
        }
    });
}

/// A department is not known before the server has said what it has revoked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_below_a_department_is_accepted_before_the_server_has_answered() {
    let departments = Departments::new().await;
    let Departments { fixture, a, b } = &departments;
    let bystander = fixture.connect("bystander").await;
    let keyring = Keyring::new(PrivateKey::generate().unwrap());
    bystander.register_keys(&keyring).await.unwrap();
    fixture.publish(["first", "second"]).await;
    refuse_lists(fixture, &["sender", "receiver"]);

    let sender = fixture.connect("sender").await;
    // The second attempt finds what the first one has learned.
    for _ in 0..2 {
        let error = sender.publisher(fixture.receiver.id()).start().await;
        let error = error.map(drop).unwrap_err();
        assert_eq!(error.kind(), PublishErrorKind::OldRevocationList, "{error}");
        assert!(error.is_retryable());
    }
    let publisher = sender.publisher(bystander.id()).start().await.unwrap();
    publisher.finish().await;

    let receiver = fixture.connect("receiver").await;
    let queue = ciphermq_client::default_queue(receiver.id()).unwrap();
    let consumer = receiver.consumer(&queue).keyring(fixture.keyring());
    let mut consumer = consumer.start().await.unwrap();
    let mut events = consumer.events();
    fixture
        .honest_traffic_arrives(&mut consumer, "of the root's client")
        .await;
    expect_waiting(&mut events, "sender").await;

    // Once it answers, also with no list, what has waited is opened.
    let lists = [a, b].map(|authority| authority.list(&List::default()));
    hand_out(fixture, &[lists[1].clone()]);
    receiver.fetch_lists().await.unwrap();
    for expected in ["first", "second"] {
        let message = opened(&mut consumer).await;
        assert_eq!(text(&message), expected);
        message.ack().await.unwrap();
    }
    let publisher = sender.publisher(fixture.receiver.id()).start();
    publisher.await.unwrap().finish().await;
    assert_eq!(in_force(&sender).len(), 1);

    // A kept list that cannot be read may name anybody.
    let pins = tempfile::tempdir().unwrap();
    hand_out(fixture, &lists);
    let connect = || fixture.builder("sender").pins_in(pins.path()).connect();
    let publish = async || {
        let sender = connect().await.unwrap();
        sender
            .publisher(fixture.receiver.id())
            .start()
            .await
            .map(drop)
    };
    publish().await.unwrap();
    let folder = std::fs::read_dir(pins.path()).unwrap();
    let files = folder.map(|file| file.unwrap().path());
    let is_list = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "crl");
    let kept: Vec<_> = files.filter(is_list).collect();
    assert_eq!(kept.len(), 2);
    for path in &kept {
        std::fs::write(path, "damaged").unwrap();
    }
    let error = publish().await.unwrap_err();
    assert_eq!(error.kind(), PublishErrorKind::OldRevocationList, "{error}");
    for path in &kept {
        std::fs::remove_file(path).unwrap();
    }
    publish().await.unwrap();
}

/// Each program begins with what is kept beside the pins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_that_start_anew_check_departments_as_well() {
    let departments = Departments::new().await;
    let Departments { fixture, a, b } = &departments;
    let pki = fixture.server.pki();
    let workspace = Workspace::at(fixture.broker.address(), pki, "sender", "receiver");
    workspace.register_receiver().await;
    let list = |authority: &Authority, number, revoked: &[_]| {
        authority.list(&List {
            number,
            revoked,
            ..List::default()
        })
    };
    let root = list(departments.root(), 1, &[]);
    let verify_key = || workspace.cli("verify-key").arg("receiver");
    for (lists, row) in [
        (
            vec![root.clone()],
            "unknown: there is no revocation list of CN=department B",
        ),
        (
            vec![root.clone(), list(b, 256, &[])],
            "by list 256 of CN=department B,",
        ),
    ] {
        hand_out(fixture, &lists);
        let shown = verify_key().run().await.success().stdout;
        assert!(shown.contains(row), "{shown}");
        assert!(
            shown.contains("by list 1 of CN=CipherMQ test CA"),
            "{shown}"
        );
    }

    // The sender is revoked, and then the list is withheld.
    workspace.send_messages(&["a message"]).await;
    let fetch = || workspace.cli("fetch");
    let fetched = fetch().run().await.success().stdout;
    assert!(fetched.contains("a message"), "{fetched}");
    let revoked = certificate(fixture, "sender");
    for lists in [vec![list(a, 1, &[&revoked])], vec![]] {
        hand_out(fixture, &lists);
        let refused = fetch().run().await.code(1).stderr;
        assert!(refused.contains("the certificate was revoked"), "{refused}");
    }

    // So is the receiver.
    let revoked = certificate(fixture, "receiver");
    for lists in [vec![list(b, 257, &[&revoked])], vec![]] {
        hand_out(fixture, &lists);
        let refused = verify_key().run().await.code(1).stderr;
        assert!(refused.contains("the certificate was revoked"), "{refused}");
        workspace
            .send()
            .args(["--message", "late"])
            .run()
            .await
            .code(1);
    }
}
