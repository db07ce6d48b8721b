//! A malicious database operator: the server is stopped, rows are altered, and it is restarted.
//! Altered messages are refused or omitted; everything else arrives.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ciphermq_client::dedup::Durable;
use ciphermq_client::{
    ConsumeError, ExchangeName, Keyring, MessageId, OpenError, PrivateKey, PublishErrorKind,
    QueueName, RoutingKey, UnopenableReason, default_queue,
};
use ciphermq_tests::malicious::MaliciousBrokerFixture;
use ciphermq_tests::malicious::fixture::{next, opened, text, unopenable};
use ciphermq_tests::{Backend, Database, on_both_databases};
use serde_json::Value;

use crate::envelopes::{not_authentic, other_id, other_receiver};
use crate::published;

/// A database operator, with access to the database of a stopped server.
struct Operator<'a> {
    database: Database,
    backend: &'a Backend,
}

impl Operator<'_> {
    /// The number of a message's batch. In these tests every message is in a batch of its own.
    async fn batch(&self, id: &MessageId) -> i64 {
        // The last ten digits of an id are the position in the stream.
        let stream = &id.as_str()[..id.as_str().len() - 10];
        self.database
            .number(&format!(
                "SELECT first_seq FROM batches WHERE id_stream = '{stream}'"
            ))
            .await
    }

    /// Executes a statement that must change exactly one row.
    async fn alter(&self, sql: &str) {
        assert_eq!(self.database.execute(sql).await, 1, "{sql}");
    }

    /// The SQL literal of a blob.
    fn blob(&self, bytes: &[u8]) -> String {
        let digits = hex::encode(bytes);
        match self.backend.is_postgres() {
            true => format!("'\\x{digits}'::bytea"),
            false => format!("x'{digits}'"),
        }
    }

    /// Replaces the envelope of a message.
    async fn replace(&self, id: &MessageId, envelope: &str) {
        let (batch, blob) = (self.batch(id).await, self.blob(envelope.as_bytes()));
        self.alter(&format!(
            "UPDATE envelopes SET envelopes = {blob}, ends = '[{}]' WHERE first_seq = {batch}",
            envelope.len()
        ))
        .await;
    }
}

async fn rows_of_messages_are_altered(backend: Backend) {
    let mut fixture = MaliciousBrokerFixture::with(backend.options().await).await;
    let other = fixture.connect("other").await;
    let other_key = PrivateKey::generate().unwrap();
    let (alarms, exchange, fire) = (
        QueueName::new("alarms").unwrap(),
        ExchangeName::new("alarms").unwrap(),
        RoutingKey::new("fire").unwrap(),
    );
    fixture.receiver.declare_queue(&alarms).await.unwrap();
    fixture.receiver.declare_exchange(&exchange).await.unwrap();
    fixture
        .receiver
        .bind(&alarms, &exchange, &fire)
        .await
        .unwrap();

    let names = [
        "honest",
        "altered",
        "one",
        "two",
        "redirected",
        "moved",
        "deleted",
        "copied",
        "after",
    ];
    let mut ids = HashMap::new();
    for name in names {
        ids.insert(name, fixture.publish([name]).await.remove(0));
    }
    let envelopes: HashMap<&str, String> = published(&fixture, "sender")
        .into_iter()
        .map(|envelope| {
            let fields: Value = serde_json::from_str(&envelope).unwrap();
            let id = fields["message_id"].as_str().unwrap();
            let name = names.iter().find(|name| ids[*name].as_str() == id).unwrap();
            (*name, envelope)
        })
        .collect();

    fixture.server.terminate().await;
    let operator = Operator {
        database: fixture.server.database().await,
        backend: &backend,
    };
    let mut altered: Value = serde_json::from_str(&envelopes["altered"]).unwrap();
    let mut ciphertext = BASE64_STANDARD
        .decode(altered["ciphertext"].as_str().unwrap())
        .unwrap();
    ciphertext[0] ^= 1;
    altered["ciphertext"] = BASE64_STANDARD.encode(ciphertext).into();
    operator
        .replace(&ids["altered"], &altered.to_string())
        .await;
    operator.replace(&ids["one"], &envelopes["two"]).await;
    operator.replace(&ids["two"], &envelopes["one"]).await;

    let redirected = operator.batch(&ids["redirected"]).await;
    for table in ["batches", "waiting"] {
        operator
            .alter(&format!(
                "UPDATE {table} SET receiver_client_id = 'other' WHERE first_seq = {redirected}"
            ))
            .await;
    }
    let queue = operator
        .database
        .number("SELECT queue_id FROM queues WHERE queue_name = 'alarms'")
        .await;
    let moved = operator.batch(&ids["moved"]).await;
    operator
        .alter(&format!(
            "UPDATE waiting SET queue_id = {queue} WHERE first_seq = {moved}"
        ))
        .await;
    operator
        .alter(&format!(
            "UPDATE batches SET queues = '[{queue}]' WHERE first_seq = {moved}"
        ))
        .await;
    let deleted = operator.batch(&ids["deleted"]).await;
    for table in ["batches", "waiting", "envelopes"] {
        operator
            .alter(&format!("DELETE FROM {table} WHERE first_seq = {deleted}"))
            .await;
    }
    // As a second message with an id of its own.
    let copied = operator.batch(&ids["copied"]).await;
    let copy = operator
        .database
        .number("SELECT last_seq FROM server_state")
        .await
        + 1;
    operator
        .alter(&format!("UPDATE server_state SET last_seq = {copy}"))
        .await;
    let batch = "messages, queues, client_id, exchange_name, routing_key, receiver_client_id, \
                 sent_time, has_suite";
    operator
        .alter(&format!(
            "INSERT INTO batches (first_seq, id_stream, id_position, {batch}) \
             SELECT {copy}, 'a-copy', -1, {batch} FROM batches WHERE first_seq = {copied}"
        ))
        .await;
    for (table, columns) in [
        ("envelopes", "ends, envelopes"),
        ("waiting", "queue_id, receiver_client_id, copy"),
    ] {
        operator
            .alter(&format!(
                "INSERT INTO {table} (first_seq, {columns}) SELECT {copy}, {columns} FROM {table} \
                 WHERE first_seq = {copied}"
            ))
            .await;
    }
    drop(operator);
    fixture.server.restart().await;

    let mut consumer = fixture.consumer().start().await.unwrap();
    let mut seen = Vec::new();
    // In order of the sequence numbers: the copy is the last one.
    for _ in 0..7 {
        seen.push(match next(&mut consumer).await {
            Ok(message) => {
                let payload = text(&message).to_owned();
                message.ack().await.unwrap();
                payload
            }
            Err(ConsumeError::Unopenable(refused)) => {
                let id = refused.message_id().as_str();
                let name = names
                    .iter()
                    .find(|name| ids[*name].as_str() == id)
                    .unwrap_or(&"a-copy");
                let is_expected = match *name {
                    "altered" => not_authentic(&refused.reason),
                    "one" | "two" | "a-copy" => other_id(&refused.reason),
                    _ => false,
                };
                assert!(is_expected, "{name}: {:?}", refused.reason);
                format!("refused: {name}")
            }
            Err(error) => panic!("{error}"),
        });
    }
    assert_eq!(
        seen,
        [
            "honest",
            "refused: altered",
            "refused: one",
            "refused: two",
            "copied",
            "after",
            "refused: a-copy",
        ]
    );
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
    consumer.close().await;

    // The moved message is refused, because its envelope names another exchange.
    let consumer = fixture
        .receiver
        .consumer(&alarms)
        .keyring(fixture.keyring());
    let mut consumer = consumer
        .expect_route(exchange.clone(), fire)
        .start()
        .await
        .unwrap();
    let refused = unopenable(&mut consumer, "moved").await;
    let named = ExchangeName::new("ciphermq_exchange").unwrap();
    assert_eq!(
        refused.reason,
        UnopenableReason::Sealed(OpenError::OtherExchange(named))
    );
    drop(refused);
    consumer.close().await;

    // The redirected message is refused by the other receiver.
    let queue = default_queue(fixture.receiver.id()).unwrap();
    let consumer = other.consumer(&queue).keyring(Keyring::new(other_key));
    let mut consumer = consumer.start().await.unwrap();
    let refused = unopenable(&mut consumer, "redirected").await;
    assert!(other_receiver(&refused.reason), "{:?}", refused.reason);
}

/// The rows of a message that was received and acknowledged are restored.
async fn rows_are_restored(backend: Backend) {
    let mut fixture = MaliciousBrokerFixture::with(backend.options().await).await;
    let id = fixture.publish(["once"]).await.remove(0);
    let folder = tempfile::tempdir().unwrap();
    let record = || Durable::open(&folder.path().join("processed")).unwrap();

    fixture.server.terminate().await;
    let database = fixture.server.database().await;
    let backup = ["waiting", "envelopes"];
    for table in backup {
        database
            .execute(&format!(
                "CREATE TABLE saved_{table} AS SELECT * FROM {table}"
            ))
            .await;
    }
    drop(database);
    fixture.server.restart().await;
    let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
    let message = opened(&mut consumer).await;
    assert_eq!((text(&message), message.message_id()), ("once", &id));
    message.ack().await.unwrap();
    consumer.close().await;

    fixture.server.terminate().await;
    let database = fixture.server.database().await;
    for table in backup {
        assert_eq!(
            database
                .number(&format!("SELECT count(*) FROM {table}"))
                .await,
            0
        );
        database
            .execute(&format!("INSERT INTO {table} SELECT * FROM saved_{table}"))
            .await;
        database.execute(&format!("DROP TABLE saved_{table}")).await;
    }
    assert_eq!(database.execute("DELETE FROM fates").await, 1);
    drop(database);
    fixture.server.restart().await;
    let mut consumer = fixture.consumer().dedup(record()).start().await.unwrap();
    fixture
        .honest_traffic_arrives(&mut consumer, "beside")
        .await;
    assert_eq!(
        consumer.duplicates(),
        1,
        "it was delivered, and skipped as a duplicate"
    );
    assert_eq!(
        fixture
            .server
            .database()
            .await
            .number("SELECT count(*) FROM waiting")
            .await,
        0
    );
}

/// Sealed rows of the key directory are copied to another client: the server does not return them.
async fn rows_of_keys_are_altered(backend: Backend) {
    let mut fixture = MaliciousBrokerFixture::with(backend.options().await).await;
    let mallory = fixture.connect("mallory").await;
    let theirs = Keyring::new(PrivateKey::generate().unwrap());
    mallory.register_keys(&theirs).await.unwrap();

    fixture.server.terminate().await;
    let database = fixture.server.database().await;
    for (table, column) in [
        ("public_keys", "public_key_ciphertext"),
        ("signed_keys", "signed_key_ciphertext"),
    ] {
        for column in [column, "nonce", "tag"] {
            let sql = format!(
                "UPDATE {table} SET {column} = (SELECT {column} FROM {table} WHERE client_id = \
                 'mallory') \
                 WHERE client_id = 'receiver'"
            );
            assert_eq!(database.execute(&sql).await, 1);
        }
    }
    drop(database);
    fixture.server.restart().await;
    let hasty = fixture
        .builder("sender")
        .retries(1)
        .retry_timeout(Duration::from_millis(300));
    let hasty = hasty.connect().await.unwrap();
    let error = fixture
        .refused(hasty.publisher(fixture.receiver.id()))
        .await;
    assert_eq!(error.kind(), PublishErrorKind::KeyUnavailable, "{error}");
    // Mallory's own key is unchanged.
    let key = mallory.public_key(mallory.id()).await.unwrap();
    assert_eq!(key.unwrap(), *theirs.newest().public_key());
    // The receiver registers its key again when it starts, and can be sent to.
    fixture.honest_traffic_still_arrives().await;
}

on_both_databases!(
    rows_of_messages_are_altered,
    rows_are_restored,
    rows_of_keys_are_altered
);
