//! A fresh database of either kind, and helpers to act on it.

use std::sync::Arc;

use bytes::Bytes;
use ciphermq_protocol::envelope::{EnvelopeBytes, EnvelopeReader, OwnPart};
use ciphermq_protocol::{ClientId, Envelope, ExchangeName, MessageId, QueueName, RoutingKey};
use ciphermq_tests::Postgres;
use sha2::{Digest as _, Sha256};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use tempfile::TempDir;

use crate::config::{self, Secret, Target};
use crate::model::{
    Ack, Change, ConnectionId, LaneKey, Outcomes, PageLimit, Publish, QueueId, Requester, Seq,
    Time, Transaction,
};
use crate::store::{DatabaseSettings, Store, open};

/// A database that is deleted with the value.
pub(in crate::store) enum Database {
    Sqlite(TempDir),
    Postgres(Box<Postgres>, String),
}

impl Database {
    pub(in crate::store) async fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    pub(in crate::store) async fn postgres() -> Self {
        let postgres = Postgres::start().await;
        let name = postgres.create_database().await;
        Self::Postgres(Box::new(postgres), name)
    }

    pub(in crate::store) fn settings(&self) -> DatabaseSettings {
        match self {
            Self::Sqlite(folder) => DatabaseSettings::Sqlite {
                path: folder.path().join("data/mq.db"),
                disk_reserve: 0,
            },
            Self::Postgres(postgres, name) => DatabaseSettings::Postgres(at(postgres.url(name))),
        }
    }

    pub(in crate::store) async fn open(&self) -> Store {
        open(&self.settings()).await.unwrap()
    }

    /// Runs SQL behind the server's back.
    pub(in crate::store) async fn execute(&self, sql: &str) {
        match self {
            Self::Sqlite(folder) => {
                let url = format!("sqlite://{}", folder.path().join("data/mq.db").display());
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(sql))
                    .execute(&mut connection)
                    .await
                    .unwrap();
                connection.close().await.unwrap();
            }
            Self::Postgres(postgres, name) => {
                let mut connection = PgConnection::connect(&postgres.url(name)).await.unwrap();
                sqlx::raw_sql(AssertSqlSafe(sql))
                    .execute(&mut connection)
                    .await
                    .unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Creates the database with the migrations up to a version, and with rows in it.
    pub(in crate::store) async fn make_older(&self, version: i64, rows: &'static str) {
        let up_to = |all: Migrator| Migrator {
            migrations: all
                .iter()
                .filter(|one| one.version <= version)
                .cloned()
                .collect(),
            ..Migrator::DEFAULT
        };
        match self {
            Self::Sqlite(folder) => {
                let path = folder.path().join("data/mq.db");
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                let url = format!("sqlite://{}?mode=rwc", path.display());
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                let migrations = up_to(sqlx::migrate!("src/store/sqlite/migrations"));
                migrations.run(&mut connection).await.unwrap();
                sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
            Self::Postgres(postgres, name) => {
                let mut connection = PgConnection::connect(&postgres.url(name)).await.unwrap();
                let migrations = up_to(sqlx::migrate!("src/store/postgres/migrations"));
                migrations.run(&mut connection).await.unwrap();
                sqlx::raw_sql(rows).execute(&mut connection).await.unwrap();
                connection.close().await.unwrap();
            }
        }
    }

    /// Returns an SQL expression for a column's bytes as a text.
    pub(in crate::store) fn text_of(&self, column: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("CAST({column} AS TEXT)"),
            Self::Postgres(..) => format!("convert_from({column}, 'UTF8')"),
        }
    }

    /// Returns the columns of the only row, all of them texts or NULL.
    pub(in crate::store) async fn texts(&self, sql: &str) -> Vec<Option<String>> {
        use sqlx::Row as _;
        match self {
            Self::Sqlite(folder) => {
                let url = format!("sqlite://{}", folder.path().join("data/mq.db").display());
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                let row = sqlx::query(AssertSqlSafe(sql))
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
                (0..row.len()).map(|at| row.get(at)).collect()
            }
            Self::Postgres(postgres, name) => {
                let mut connection = PgConnection::connect(&postgres.url(name)).await.unwrap();
                let row = sqlx::query(AssertSqlSafe(sql))
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
                (0..row.len()).map(|at| row.get(at)).collect()
            }
        }
    }
}

pub(in crate::store) fn at(url: String) -> config::Postgres {
    config::Postgres {
        target: Target::Url(Secret::from(url)),
        sslmode: None,
        sslrootcert: None,
    }
}

/// Closes both halves, as a server does.
pub(in crate::store) async fn close(store: Store) {
    store.committer.close().await;
    store.reader.close().await;
}

pub(in crate::store) fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

pub(in crate::store) fn id(name: &str) -> MessageId {
    MessageId::new(name).unwrap()
}

pub(in crate::store) fn lane(queue: QueueId, receiver: &str) -> LaneKey {
    LaneKey {
        queue,
        receiver: client(receiver),
    }
}

pub(in crate::store) fn time(text: &str) -> Time {
    text.parse::<jiff::Timestamp>().unwrap().into()
}

/// Makes an envelope for `receiver`; `payload` distinguishes two with the same id. With a suite it
/// is packed.
pub(in crate::store) fn envelope(
    message_id: &str,
    receiver: &str,
    suite: bool,
    payload: &str,
) -> Envelope {
    if suite {
        return packed(message_id, receiver, payload);
    }
    let json = format!(
        r#"{{"message_id":"{message_id}","receiver_client_id":"{receiver}","enc_session_key":"YQ==","nonce":"Yg==","ciphertext":"{payload}"}}"#
    );
    Envelope::parse(Bytes::from(json)).unwrap()
}

fn packed(message_id: &str, receiver: &str, payload: &str) -> Envelope {
    let own = format!(
        r#"{{"message_id":"{message_id}","sent_time":"2025","nonce":"Yg==","ciphertext":"{payload}","tag":"dA==""#
    );
    let shared = format!(
        r#","receiver_client_id":"{receiver}","enc_session_key":"YQ==","suite":"X25519-AES256GCM"}}"#
    );
    let bytes = EnvelopeBytes::packed(own.into(), shared.into());
    EnvelopeReader::default().read(&bytes).unwrap().0
}

/// Makes an envelope in the binary form.
pub(in crate::store) fn binary(message_id: &str, receiver: &str, ciphertext: &[u8]) -> Envelope {
    let own = OwnPart {
        message_id: &MessageId::new(message_id).unwrap(),
        sent_time: "2025-09-08T07:03:00.000Z",
        nonce: &[0xfe; 12],
        ciphertext,
        tag: &[0x3f; 16],
    };
    let shared = packed(message_id, receiver, "")
        .raw()
        .shared()
        .unwrap()
        .clone();
    let bytes = EnvelopeBytes::packed(own.to_binary().unwrap(), shared);
    EnvelopeReader::default().read(&bytes).unwrap().0
}

/// Returns the same envelope in one piece.
pub(in crate::store) fn whole(envelope: &Envelope) -> Envelope {
    Envelope::parse(envelope.raw().to_bytes()).unwrap()
}

pub(in crate::store) fn publish(
    sender: &str,
    queues: &[QueueId],
    envelope: Envelope,
) -> Arc<Publish> {
    Arc::new(Publish {
        sender: client(sender),
        exchange: ExchangeName::new("e").unwrap(),
        routing_key: RoutingKey::new("k").unwrap(),
        queues: queues.into(),
        digest: (!envelope.has_suite).then(|| Sha256::digest(envelope.raw().to_bytes()).into()),
        envelope,
        sent_time: time("2025-09-08T07:03:00Z"),
    })
}

/// Makes a message from `s` to `r`, of a client with suites.
pub(in crate::store) fn message(message_id: &str, queue: QueueId) -> Arc<Publish> {
    publish("s", &[queue], envelope(message_id, "r", true, "AAAA"))
}

pub(in crate::store) fn ack(message_id: &str, by: &str) -> Ack {
    Ack {
        message_id: id(message_id),
        client_id: client(by),
        delivered_time: None,
        time: time("2025-09-08T07:04:00Z"),
    }
}

pub(in crate::store) async fn commit(store: &mut Store, transaction: Transaction) -> Outcomes {
    store.committer.commit(&transaction).await.unwrap()
}

pub(in crate::store) async fn publish_all(
    store: &mut Store,
    publishes: Vec<Arc<Publish>>,
) -> Outcomes {
    commit(
        store,
        Transaction {
            publishes,
            ..Transaction::default()
        },
    )
    .await
}

pub(in crate::store) async fn ack_all(store: &mut Store, acks: Vec<Ack>) -> Outcomes {
    commit(
        store,
        Transaction {
            acks,
            ..Transaction::default()
        },
    )
    .await
}

pub(in crate::store) fn declare(queue: &str, made_by: &str) -> Change {
    Change::DeclareQueue {
        queue: QueueName::new(queue).unwrap(),
        made_by: client(made_by),
    }
}

/// Names who asks for a change; `admin` is an administrator.
pub(in crate::store) fn by(name: &str) -> Requester {
    Requester {
        client_id: client(name),
        is_administrator: name == "admin",
    }
}

/// Deletes a queue, whatever its name.
pub(in crate::store) fn delete(queue: QueueId, if_empty: bool, who: &str) -> Change {
    Change::DeleteQueue {
        queue,
        name: QueueName::new("doomed").unwrap(),
        if_empty,
        by: by(who),
        connection: ConnectionId(1),
        time: time("2025-09-08T08:00:00Z"),
    }
}

/// Declares queues of the client `s`, and returns their numbers.
pub(in crate::store) async fn queues(store: &mut Store, names: &[&str]) -> Vec<QueueId> {
    let changes = names.iter().map(|name| declare(name, "s")).collect();
    let outcomes = commit(
        store,
        Transaction {
            changes,
            ..Transaction::default()
        },
    )
    .await;
    let queues = outcomes.changes.iter();
    queues.map(|outcome| outcome.queue().unwrap()).collect()
}

/// Returns the ids of everything that waits in a lane.
pub(in crate::store) async fn waiting(
    store: &Store,
    queue: QueueId,
    receiver: &str,
) -> Vec<String> {
    let limit = PageLimit {
        messages: 100_000,
        bytes: usize::MAX,
    };
    let page = store
        .reader
        .lane(&lane(queue, receiver), Seq(0), limit)
        .await
        .unwrap();
    assert!(!page.more);
    assert!(page.messages.is_sorted_by(|a, b| a.seq < b.seq));
    page.messages
        .iter()
        .map(|message| message.message_id.to_string())
        .collect()
}
