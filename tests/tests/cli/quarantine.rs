//! Messages that cannot be opened, or are not allowed: they are set aside in the quarantine, and do
//! not block the queue.

use ciphermq_tests::{Database, Fixture, RawClient, data};

use ciphermq_tests::workspace::Workspace;

/// The receiver for which the older clients' envelopes were sealed.
const OLDER_RECEIVER: &str = "receiver_1";

/// Returns the number of messages that this receiver has rejected.
async fn rejected(fixture: &Fixture, receiver: &str) -> i64 {
    let database: Database = fixture.server.database().await;
    let sql =
        format!("SELECT count(*) FROM rejected_messages WHERE receiver_client_id = '{receiver}'");
    database.number(&sql).await
}

/// Returns a workspace whose receiver has the older clients' key and a queue with their envelopes,
/// together with the ids and the plaintexts.
///
/// Ids and queue are unique to the test, because all tests share the one receiver of this name.
async fn older_envelopes(fixture: &Fixture) -> (Workspace, Vec<String>, Vec<String>) {
    let workspace = Workspace::named(&fixture.server, &fixture.id("sender"), OLDER_RECEIVER);
    let key = data::older_envelopes()["receiver_private_key"].clone();
    workspace.write_private("certs/receiver_private.key", key.as_str().unwrap());
    let exchange = fixture.id("exchange");
    let names = queue(fixture);
    let mut older = RawClient::connect(&fixture.server, &workspace.sender).await;
    older
        .ask(&format!("declare_queue {}", names[1]), "Queue declared")
        .await;
    older
        .ask(&format!("declare_exchange {exchange}"), "Exchange declared")
        .await;
    // Some of the envelopes contain the routing key.
    let bind = format!("bind {} {exchange} receiver_1_key", names[1]);
    older.ask(&bind, "Queue bound").await;
    let mut plaintexts = Vec::new();
    let mut ids = Vec::new();
    for (number, envelope) in data::older_lines().into_iter().enumerate() {
        let id = fixture.id(&format!("{}-{number}", envelope.generation));
        let publish = format!(
            "publish {exchange} receiver_1_key {}",
            envelope.with_id(&id)
        );
        older.ask(&publish, &format!("ACK {id}")).await;
        plaintexts.push(envelope.plaintext);
        ids.push(id);
    }
    assert!(!ids.is_empty());
    (workspace, ids, plaintexts)
}

/// Returns the flags that select the test's queue.
fn queue(fixture: &Fixture) -> [String; 6] {
    [
        "--queue".to_owned(),
        fixture.id("queue"),
        "--exchange".to_owned(),
        fixture.id("exchange"),
        "--routing-key".to_owned(),
        "receiver_1_key".to_owned(),
    ]
}

pub(crate) async fn older_envelopes_are_read_where_allowed(fixture: Fixture) {
    let (workspace, ids, plaintexts) = older_envelopes(&fixture).await;
    let count = ids.len().to_string();
    workspace
        .cli("receive")
        .args(["--allow-unverified-senders", "--count", &count])
        .args(queue(&fixture))
        .run()
        .await
        .success();
    let received = workspace.received();
    assert_eq!(
        received
            .iter()
            .map(|line| &line.message_id)
            .collect::<Vec<_>>(),
        ids.iter().collect::<Vec<_>>()
    );
    for (line, plaintext) in received.iter().zip(&plaintexts) {
        assert_eq!(line.sender, None, "nobody has proven who sent it");
        if serde_json::from_str::<serde_json::Value>(plaintext).is_ok() {
            assert_eq!(line.json(), Some(plaintext.as_str()));
        } else {
            assert_eq!(&line.text(), plaintext);
        }
    }
    assert!(workspace.quarantine().is_empty());
}

pub(crate) async fn older_envelopes_are_set_aside_where_not(fixture: Fixture) {
    let before = rejected(&fixture, OLDER_RECEIVER).await;
    let (workspace, ids, _) = older_envelopes(&fixture).await;
    let receiver = workspace
        .cli("receive")
        .args(["-v", "--count", "1"])
        .args(queue(&fixture))
        .spawn();
    receiver.stderr.expect("Receiving from").await;
    // The next message is delivered.
    let sent = workspace
        .send()
        .args(["--message", "ours"])
        .args(&queue(&fixture)[2..])
        .run()
        .await;
    sent.success();
    let mut receiver = receiver;
    assert_eq!(
        receiver.ended(ciphermq_tests::PATIENCE).await.code(),
        Some(0)
    );
    assert_eq!(workspace.texts(), ["ours"]);

    let quarantine = workspace.quarantine();
    assert_eq!(quarantine.len(), ids.len());
    for (line, (id, envelope)) in quarantine.iter().zip(ids.iter().zip(data::older_lines())) {
        assert_eq!(line["message_id"], id.as_str());
        assert!(
            line["reason"]
                .as_str()
                .is_some_and(|reason| !reason.is_empty()),
            "{line}"
        );
        let whole: serde_json::Value = serde_json::from_str(&envelope.with_id(id)).unwrap();
        assert_eq!(line["envelope"], whole, "the envelope is kept whole");
    }
    let warned = receiver.stderr.text();
    assert!(ids.iter().all(|id| warned.contains(id)), "{warned}");
    let expected = before + i64::try_from(ids.len()).unwrap();
    assert_eq!(rejected(&fixture, OLDER_RECEIVER).await, expected);
}

/// Returns a workspace whose receiver has registered a bare key, like older clients, and has a
/// waiting message in each older form.
pub(crate) async fn sent_in_older_forms(fixture: &Fixture) -> Workspace {
    let workspace = Workspace::of(fixture);
    let key = std::fs::read_to_string(workspace.path("certs/receiver_public.key")).unwrap();
    let receiver = &workspace.receiver;
    let (queue, routing_key) = (format!("{receiver}_queue"), format!("{receiver}_key"));
    let mut older = RawClient::connect(&fixture.server, receiver).await;
    for (line, reply) in [
        (
            format!("register_public_key {}", key.trim_end()),
            "Public key registered",
        ),
        (format!("declare_queue {queue}"), "Queue declared"),
        (
            "declare_exchange ciphermq_exchange".to_owned(),
            "Exchange declared",
        ),
        (
            format!("bind {queue} ciphermq_exchange {routing_key}"),
            "Queue bound",
        ),
    ] {
        older.ask(&line, reply).await;
    }
    older.close().await.unwrap();
    for form in OLDER_FORMS {
        let send =
            workspace
                .send()
                .args(["--allow-unsigned-keys", "--suite", form, "--message", form]);
        send.run().await.success();
    }
    workspace
}

const OLDER_FORMS: [&str; 4] = ["LEGACY-0", "LEGACY-A", "LEGACY-B", "LEGACY-C"];

pub(crate) async fn messages_in_older_forms_are_read_where_allowed(fixture: Fixture) {
    let workspace = sent_in_older_forms(&fixture).await;
    workspace
        .cli("receive")
        .args(["--allow-unverified-senders", "--idle-exit", "0.5"])
        .run()
        .await
        .success();
    assert_eq!(workspace.texts(), OLDER_FORMS);
    for (line, form) in workspace.received().iter().zip(OLDER_FORMS) {
        assert!(!line.sender_verified && line.sender.is_none());
        assert_eq!(
            line.sent_time.is_some(),
            form != "LEGACY-0",
            "all others state it"
        );
    }
    assert!(workspace.quarantine().is_empty());
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn messages_in_older_forms_are_set_aside_where_not(fixture: Fixture) {
    let workspace = sent_in_older_forms(&fixture).await;
    workspace
        .cli("receive")
        .args(["--idle-exit", "0.5"])
        .run()
        .await
        .success();
    assert_eq!(workspace.texts(), [""; 0]);
    assert_eq!(workspace.quarantine().len(), OLDER_FORMS.len());
    assert_eq!(rejected(&fixture, &workspace.receiver).await, 4);
    workspace.expect_empty_queue(&fixture.server).await;
    // The receiver has registered a signed key, so the requested older form is no longer used.
    let send = workspace
        .send()
        .args(["--allow-unsigned-keys", "--suite", "LEGACY-A"]);
    send.args(["--message", "sealed with a suite"])
        .run()
        .await
        .success();
    workspace.receive(1).await;
    assert_eq!(workspace.texts(), ["sealed with a suite"]);
    assert!(workspace.received()[0].sender_verified);
}

pub(crate) async fn a_message_for_another_key_is_set_aside(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace
        .send_messages(&["for the key that is lost", "this one, too"])
        .await;
    workspace.new_key_pair();
    let receiver = workspace.receiving(&["--count", "1"]).await;
    workspace.send_messages(&["for the new key"]).await;
    let mut receiver = receiver;
    assert_eq!(
        receiver.ended(ciphermq_tests::PATIENCE).await.code(),
        Some(0)
    );
    assert_eq!(workspace.texts(), ["for the new key"]);
    assert_eq!(workspace.quarantine().len(), 2);
    assert_eq!(rejected(&fixture, &workspace.receiver).await, 2);
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn older_private_keys_open_older_messages(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.send_messages(&["for the older key"]).await;
    let older = std::fs::read(workspace.path("certs/receiver_private.key")).unwrap();
    workspace.write_private("older.key", older);
    workspace.new_key_pair();
    workspace.cli("register-key").run().await.success();
    workspace.send_messages(&["for the new key"]).await;
    let keys = [
        "--private-key",
        "certs/receiver_private.key",
        "--private-key",
        "older.key",
    ];
    let receive = workspace.cli("receive").args(["--count", "2"]).args(keys);
    receive.run().await.success();
    assert_eq!(workspace.texts(), ["for the older key", "for the new key"]);
    assert!(workspace.quarantine().is_empty());
}
