//! Messages that cannot be opened, or may not: set aside where a person finds them, and the queue
//! goes on.

use ciphermq_tests::{Database, RawClient, Scene, data};

use super::desk::Desk;

/// For whom the older clients' envelopes were sealed.
const OLDER_RECEIVER: &str = "receiver_1";

/// How many messages the server has set aside for this receiver.
async fn rejected(scene: &Scene, receiver: &str) -> i64 {
    let database: Database = scene.server.database().await;
    let sql =
        format!("SELECT count(*) FROM rejected_messages WHERE receiver_client_id = '{receiver}'");
    database.number(&sql).await
}

/// A desk whose receiver has the older clients' key, and whose queue holds their envelopes, with
/// ids of this play's own. The queue is the play's, as there is only one receiver of this name.
async fn older_envelopes(scene: &Scene) -> (Desk, Vec<String>, Vec<String>) {
    let desk = Desk::named(&scene.server, &scene.id("sender"), OLDER_RECEIVER);
    let key = data::older_envelopes()["receiver_private_key"].clone();
    desk.write_private("certs/receiver_private.key", key.as_str().unwrap());
    let exchange = scene.id("exchange");
    let names = queue(scene);
    let mut older = RawClient::connect(&scene.server, &desk.sender).await;
    older
        .ask(&format!("declare_queue {}", names[1]), "Queue declared")
        .await;
    older
        .ask(&format!("declare_exchange {exchange}"), "Exchange declared")
        .await;
    // The routing key stands in some of the envelopes.
    let bind = format!("bind {} {exchange} receiver_1_key", names[1]);
    older.ask(&bind, "Queue bound").await;
    let mut plaintexts = Vec::new();
    let mut ids = Vec::new();
    for (number, envelope) in data::older_lines().into_iter().enumerate() {
        let id = scene.id(&format!("{}-{number}", envelope.generation));
        let publish = format!(
            "publish {exchange} receiver_1_key {}",
            envelope.with_id(&id)
        );
        older.ask(&publish, &format!("ACK {id}")).await;
        plaintexts.push(envelope.plaintext);
        ids.push(id);
    }
    assert!(!ids.is_empty());
    (desk, ids, plaintexts)
}

/// The flags that name the play's queue.
fn queue(scene: &Scene) -> [String; 6] {
    [
        "--queue".to_owned(),
        scene.id("queue"),
        "--exchange".to_owned(),
        scene.id("exchange"),
        "--routing-key".to_owned(),
        "receiver_1_key".to_owned(),
    ]
}

pub(crate) async fn older_envelopes_are_read_where_allowed(scene: Scene) {
    let (desk, ids, plaintexts) = older_envelopes(&scene).await;
    let count = ids.len().to_string();
    desk.cli("receive")
        .args(["--allow-unverified-senders", "--count", &count])
        .args(queue(&scene))
        .run()
        .await
        .success();
    let received = desk.received();
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
    assert!(desk.quarantine().is_empty());
}

pub(crate) async fn older_envelopes_are_set_aside_where_not(scene: Scene) {
    let before = rejected(&scene, OLDER_RECEIVER).await;
    let (desk, ids, _) = older_envelopes(&scene).await;
    let receiver = desk
        .cli("receive")
        .args(["-v", "--count", "1"])
        .args(queue(&scene))
        .spawn();
    receiver.stderr.expect("Receiving from").await;
    // The queue goes on.
    let sent = desk
        .send()
        .args(["--message", "ours"])
        .args(&queue(&scene)[2..])
        .run()
        .await;
    sent.success();
    let mut receiver = receiver;
    assert_eq!(
        receiver.ended(ciphermq_tests::PATIENCE).await.code(),
        Some(0)
    );
    assert_eq!(desk.texts(), ["ours"]);

    let quarantine = desk.quarantine();
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
    assert_eq!(rejected(&scene, OLDER_RECEIVER).await, expected);
}

/// A desk whose receiver has registered a bare key, as older clients do; and was sent a message in
/// each older form.
async fn sent_in_older_forms(scene: &Scene) -> Desk {
    let desk = Desk::of(scene);
    let key = std::fs::read_to_string(desk.path("certs/receiver_public.key")).unwrap();
    let receiver = &desk.receiver;
    let (queue, routing_key) = (format!("{receiver}_queue"), format!("{receiver}_key"));
    let mut older = RawClient::connect(&scene.server, receiver).await;
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
        let send = desk
            .send()
            .args(["--allow-unsigned-keys", "--suite", form, "--message", form]);
        send.run().await.success();
    }
    desk
}

const OLDER_FORMS: [&str; 4] = ["LEGACY-0", "LEGACY-A", "LEGACY-B", "LEGACY-C"];

pub(crate) async fn what_we_send_in_older_forms_is_read_where_allowed(scene: Scene) {
    let desk = sent_in_older_forms(&scene).await;
    desk.cli("receive")
        .args(["--allow-unverified-senders", "--idle-exit", "0.5"])
        .run()
        .await
        .success();
    assert_eq!(desk.texts(), OLDER_FORMS);
    for (line, form) in desk.received().iter().zip(OLDER_FORMS) {
        assert!(!line.sender_verified && line.sender.is_none());
        assert_eq!(
            line.sent_time.is_some(),
            form != "LEGACY-0",
            "all others state it"
        );
    }
    assert!(desk.quarantine().is_empty());
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn what_we_send_in_older_forms_is_set_aside_where_not(scene: Scene) {
    let desk = sent_in_older_forms(&scene).await;
    desk.cli("receive")
        .args(["--idle-exit", "0.5"])
        .run()
        .await
        .success();
    assert_eq!(desk.texts(), [""; 0]);
    assert_eq!(desk.quarantine().len(), OLDER_FORMS.len());
    assert_eq!(rejected(&scene, &desk.receiver).await, 4);
    desk.expect_empty_queue(&scene.server).await;
    // That receiver has signed its key: the form is not used any more, although it is asked for.
    let send = desk
        .send()
        .args(["--allow-unsigned-keys", "--suite", "LEGACY-A"]);
    send.args(["--message", "sealed with a suite"])
        .run()
        .await
        .success();
    desk.receive(1).await;
    assert_eq!(desk.texts(), ["sealed with a suite"]);
    assert!(desk.received()[0].sender_verified);
}

pub(crate) async fn a_message_for_another_key_is_set_aside(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    desk.send_messages(&["for the key that is lost", "this one, too"])
        .await;
    desk.new_key_pair();
    let receiver = desk.receiving(&["--count", "1"]).await;
    desk.send_messages(&["for the new key"]).await;
    let mut receiver = receiver;
    assert_eq!(
        receiver.ended(ciphermq_tests::PATIENCE).await.code(),
        Some(0)
    );
    assert_eq!(desk.texts(), ["for the new key"]);
    assert_eq!(desk.quarantine().len(), 2);
    assert_eq!(rejected(&scene, &desk.receiver).await, 2);
    desk.expect_empty_queue(&scene.server).await;
}

pub(crate) async fn older_private_keys_open_older_messages(scene: Scene) {
    let desk = Desk::of(&scene);
    desk.introduce().await;
    desk.send_messages(&["for the older key"]).await;
    let older = std::fs::read(desk.path("certs/receiver_private.key")).unwrap();
    desk.write_private("older.key", older);
    desk.new_key_pair();
    desk.cli("register-key").run().await.success();
    desk.send_messages(&["for the new key"]).await;
    let keys = [
        "--private-key",
        "certs/receiver_private.key",
        "--private-key",
        "older.key",
    ];
    let receive = desk.cli("receive").args(["--count", "2"]).args(keys);
    receive.run().await.success();
    assert_eq!(desk.texts(), ["for the older key", "for the new key"]);
    assert!(desk.quarantine().is_empty());
}
