//! Behaviour that only a remote server needs.

use std::time::Duration;

use ciphermq_tests::Postgres;
use ciphermq_tests::faults::proxy::Proxy;
use ciphermq_tests::postgres::{Options, Stop};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::fixture::*;
use crate::config::{self, Secret, SslMode, Target};
use crate::model::{
    AckOutcome, CommitNumber, PageLimit, PublishOutcome, SealedRow, Seq, Transaction,
};
use crate::store::{CommitError, DatabaseSettings, Error, Retention, Store, open};

async fn refused(settings: config::Postgres) -> String {
    match open(&DatabaseSettings::Postgres(settings))
        .await
        .unwrap_err()
    {
        Error::Unusable(text) => text,
        other => panic!("{other:?}"),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(|error| format!("{error}; "))
        .collect()
}

async fn connect(database: &Database) -> PgConnection {
    let Database::Postgres(postgres, name) = database else {
        unreachable!()
    };
    PgConnection::connect(&postgres.url(name)).await.unwrap()
}

/// Waits until a query returns a row.
async fn until(connection: &mut PgConnection, sql: &str) {
    let found = async {
        while sqlx::query(AssertSqlSafe(sql))
            .fetch_optional(&mut *connection)
            .await
            .unwrap()
            .is_none()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(ciphermq_tests::PATIENCE, found)
        .await
        .expect(sql);
}

#[tokio::test]
async fn postgres_connection_failures_say_what_to_do() {
    let mut postgres = Postgres::start().await;
    let name = postgres.create_database().await;
    let fields = |user: &str, password: &str, dbname: &str| config::Postgres {
        target: Target::Fields {
            host: String::from("127.0.0.1"),
            port: postgres.port(),
            user: user.to_owned(),
            password: Some(Secret::from(password.to_owned())),
            dbname: dbname.to_owned(),
        },
        sslmode: None,
        sslrootcert: None,
    };
    let user = ciphermq_tests::postgres::USER;
    let wrong = "wrong-secret/%@:";
    let text = refused(fields(user, wrong, &name)).await;
    assert!(
        text.contains("refuses user")
            && text.contains("password in [database]")
            && !text.contains(wrong),
        "{text}"
    );
    let text = refused(fields(user, postgres.password(), "nowhere")).await;
    assert!(
        text.contains("no database \"nowhere\"") && text.contains("createdb"),
        "{text}"
    );
    let mut tls = fields(user, postgres.password(), &name);
    tls.sslmode = Some(SslMode::Require);
    let text = refused(tls).await;
    assert!(text.contains("sslmode"), "{text}");
    let text = refused(at(String::from("postgres://u:very-secret@[::1/x"))).await;
    assert!(
        text.contains("url") && !text.contains("very-secret"),
        "{text}"
    );
    // The fields name the same database as the url.
    close(
        open(&DatabaseSettings::Postgres(fields(
            user,
            postgres.password(),
            &name,
        )))
        .await
        .unwrap(),
    )
    .await;

    let settings = DatabaseSettings::Postgres(fields(user, postgres.password(), &name));
    postgres.stop(Stop::Fast).await;
    let error = open(&settings).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)));
    let text = chain(&error);
    assert!(
        text.contains("cannot reach PostgreSQL at 127.0.0.1")
            && text.contains("check that it runs"),
        "{text}"
    );
}

#[tokio::test]
async fn postgres_tls_is_verified() {
    let postgres = Postgres::start_with(Options {
        tls: true,
        settings: Vec::new(),
    })
    .await;
    let name = postgres.create_database().await;
    let with = |sslmode, sslrootcert| config::Postgres {
        sslmode: Some(sslmode),
        sslrootcert,
        ..at(postgres.url(&name))
    };
    let store = open(&DatabaseSettings::Postgres(with(
        SslMode::VerifyFull,
        Some(postgres.ca()),
    )))
    .await
    .unwrap();
    store.reader.topology().await.unwrap();
    close(store).await;
    // Signed by no known authority.
    let text = refused(with(SslMode::VerifyFull, None)).await;
    assert!(text.contains("sslrootcert"), "{text}");
    let error = open(&DatabaseSettings::Postgres(with(SslMode::Disable, None)))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unusable(_)), "{error:?}");
}

#[tokio::test]
async fn postgres_without_fsync_is_refused() {
    let postgres = Postgres::start_with(Options {
        tls: false,
        settings: vec![String::from("fsync=off")],
    })
    .await;
    let text = refused(at(postgres.url(&postgres.create_database().await))).await;
    assert!(
        text.contains("fsync = off") && text.contains("set fsync = on"),
        "{text}"
    );
}

#[tokio::test]
async fn postgres_commits_are_synced_whatever_the_database_says() {
    let database = Database::postgres().await;
    let Database::Postgres(_, name) = &database else {
        unreachable!()
    };
    database
        .execute(&format!(
            "ALTER DATABASE {name} SET synchronous_commit = off"
        ))
        .await;
    let mut store = database.open().await;
    // Reads the setting of the session that commits, as that session itself sees it.
    database
        .execute(
            "CREATE TABLE seen (setting TEXT); \
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN INSERT INTO seen VALUES (current_setting(''synchronous_commit'')); RETURN \
             NULL; END'; \
             CREATE TRIGGER see AFTER UPDATE ON server_state EXECUTE FUNCTION see()",
        )
        .await;
    queues(&mut store, &["q"]).await;
    assert_eq!(
        database.texts("SELECT setting FROM seen").await,
        [Some(String::from("on"))]
    );
    close(store).await;
}

#[tokio::test]
async fn postgres_of_an_older_server_is_adopted() {
    let database = Database::postgres().await;
    database
        .execute(
            "CREATE TABLE message_metadata (message_id TEXT PRIMARY KEY, client_id TEXT, \
             exchange_name TEXT, \
             routing_key TEXT, sent_time TEXT, delivered_time TEXT, acknowledged_time TEXT); \
             CREATE TABLE public_keys (client_id TEXT PRIMARY KEY, public_key_ciphertext TEXT, \
             nonce TEXT, tag TEXT); \
             INSERT INTO message_metadata VALUES \
             ('old', 's', 'e', 'k', '2024-01-01T00:00:00+00:00', NULL, NULL), \
             ('nobody', NULL, NULL, NULL, NULL, NULL, NULL); \
             INSERT INTO public_keys VALUES ('r', 'c', 'n', 't')",
        )
        .await;
    let mut store = database.open().await;
    let key = SealedRow {
        ciphertext: String::from("c"),
        nonce: String::from("n"),
        tag: String::from("t"),
        algorithm: None,
    };
    assert_eq!(
        store.reader.public_key(&client("r")).await.unwrap(),
        Some(key)
    );
    let state = store
        .reader
        .message_state(&id("old"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (state.sender, state.receiver, state.waiting),
        (client("s"), None, vec![])
    );
    let queue = queues(&mut store, &["q"]).await[0];
    let outcomes = publish_all(
        &mut store,
        vec![message("old", queue), message("new", queue)],
    )
    .await;
    assert_eq!(outcomes.publishes[0], PublishOutcome::IdInUse);
    assert!(matches!(
        outcomes.publishes[1],
        PublishOutcome::Stored { .. }
    ));
    let outcomes = ack_all(&mut store, vec![ack("old", "r"), ack("new", "r")]).await;
    assert!(matches!(
        outcomes.acks[..],
        [AckOutcome::NotFound, AckOutcome::Done(_)]
    ));
    close(store).await;
    let row = database
        .texts(
            "SELECT client_id, sent_time, acknowledged_time FROM message_metadata WHERE message_id \
             = 'old'",
        )
        .await;
    assert_eq!(
        row,
        [
            Some(String::from("s")),
            Some(String::from("2024-01-01T00:00:00+00:00")),
            None
        ]
    );
    // Reopened as a database of this version.
    close(database.open().await).await;
}

#[tokio::test]
async fn postgres_of_another_program_is_refused() {
    let database = Database::postgres().await;
    database.execute("CREATE TABLE messages (body TEXT)").await;
    let DatabaseSettings::Postgres(settings) = database.settings() else {
        unreachable!()
    };
    let text = refused(settings).await;
    assert!(text.contains("another program"), "{text}");
}

#[tokio::test]
async fn postgres_that_cannot_hold_every_name_is_refused() {
    let postgres = Postgres::start().await;
    let mut connection = PgConnection::connect(&postgres.url("postgres"))
        .await
        .unwrap();
    sqlx::raw_sql("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
        .execute(&mut connection)
        .await
        .unwrap();
    let text = refused(at(postgres.url("latin"))).await;
    assert!(text.contains("LATIN1") && text.contains("UTF8"), "{text}");
}

#[tokio::test]
async fn postgres_a_session_lost_before_the_commit_commits_nothing() {
    let database = Database::postgres().await;
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    database
        .execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE \
                  application_name LIKE 'ciphermq-server%'",
        )
        .await;
    let transaction = Transaction {
        publishes: vec![message("a", queue)],
        ..Transaction::default()
    };
    let error = store.committer.commit(&transaction).await.unwrap_err();
    assert!(
        matches!(error, CommitError::Failed(Error::Unavailable(_))),
        "{error:?}"
    );
    // It continues to fail until it is reopened.
    let error = store.committer.commit(&transaction).await.unwrap_err();
    assert!(
        matches!(error, CommitError::Failed(Error::Unavailable(_))),
        "{error:?}"
    );
    assert_eq!(store.committer.reopen().await.unwrap(), CommitNumber(1));
    assert_eq!(
        store.committer.commit(&transaction).await.unwrap().commit,
        CommitNumber(2)
    );
    // The readers' connections were ended too, and reconnect.
    assert_eq!(waiting(&store, queue, "r").await, ["a"]);
    close(store).await;
}

#[tokio::test]
async fn postgres_restarts_and_everything_goes_on() {
    let mut database = Database::postgres().await;
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    publish_all(&mut store, vec![message("a", queue)]).await;
    let Database::Postgres(postgres, _) = &mut database else {
        unreachable!()
    };
    postgres.kill().await;
    assert!(matches!(
        store.committer.reopen().await,
        Err(Error::Unavailable(_))
    ));
    assert!(matches!(
        store.reader.message_state(&id("a")).await,
        Err(Error::Unavailable(_))
    ));
    postgres.restart().await;
    assert_eq!(store.committer.reopen().await.unwrap(), CommitNumber(2));
    assert_eq!(waiting(&store, queue, "r").await, ["a"]);
    publish_all(&mut store, vec![message("b", queue)]).await;
    assert_eq!(waiting(&store, queue, "r").await, ["a", "b"]);
    close(store).await;
}

#[tokio::test]
async fn postgres_that_somebody_else_has_committed_to_is_not_written_over() {
    let database = Database::postgres().await;
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    publish_all(&mut store, vec![message("a", queue)]).await;
    database
        .execute("UPDATE server_state SET commit_number = commit_number + 1")
        .await;
    for transaction in [
        Transaction {
            publishes: vec![message("b", queue)],
            ..Transaction::default()
        },
        Transaction {
            acks: vec![ack("a", "r")],
            ..Transaction::default()
        },
    ] {
        let error = store.committer.commit(&transaction).await.unwrap_err();
        assert!(
            matches!(&error, CommitError::Failed(Error::Corrupt(text)) if text.contains("somebody")
                || text.contains("another server")),
            "{error:?}"
        );
    }
    assert_eq!(waiting(&store, queue, "r").await, ["a"]);
    close(store).await;
}

/// A commit that PostgreSQL refuses at its very end, when the statement has been answered already.
#[tokio::test]
async fn postgres_a_commit_that_is_refused_at_its_end() {
    let database = Database::postgres().await;
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    publish_all(&mut store, vec![message("a", queue)]).await;
    database
        .execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RAISE check_violation; END'; \
             CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON batches DEFERRABLE INITIALLY \
             DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION refuse()",
        )
        .await;
    let transaction = Transaction {
        publishes: vec![message("b", queue)],
        ..Transaction::default()
    };
    let error = store.committer.commit(&transaction).await.unwrap_err();
    assert!(
        matches!(error, CommitError::Failed(Error::Refused(_))),
        "{error:?}"
    );
    database.execute("DROP TRIGGER refuse ON batches").await;
    // Nothing of it is cached, and the session is good.
    let outcomes = store.committer.commit(&transaction).await.unwrap();
    assert_eq!(
        (outcomes.commit, outcomes.publishes),
        (
            CommitNumber(3),
            vec![PublishOutcome::Stored { first: Seq(2) }]
        )
    );
    assert_eq!(waiting(&store, queue, "r").await, ["a", "b"]);
    close(store).await;
}

/// Commits, ends the session in the middle of the commit, and returns what the committer reported.
async fn killed_in_its_commit(
    store: &mut Store,
    transaction: &Transaction,
    observer: &mut PgConnection,
) -> CommitError {
    let stuck = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'ciphermq-server%' \
                 AND wait_event IN ('SyncRep', 'PgSleep')";
    let (outcome, ()) = tokio::join!(store.committer.commit(transaction), async {
        until(observer, stuck).await;
        sqlx::query(AssertSqlSafe(format!(
            "SELECT pg_terminate_backend(pid) FROM ({stuck}) AS stuck"
        )))
        .execute(observer)
        .await
        .unwrap();
    });
    outcome.unwrap_err()
}

#[tokio::test]
async fn postgres_a_commit_without_an_answer_that_did_not_happen() {
    let database = Database::postgres().await;
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    let mut observer = connect(&database).await;
    // Keeps the commit waiting before it has happened.
    database
        .execute(
            "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN PERFORM pg_sleep(300); RETURN NULL; END'; \
             CREATE CONSTRAINT TRIGGER hang AFTER UPDATE ON server_state DEFERRABLE INITIALLY \
             DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION hang()",
        )
        .await;
    let transaction = Transaction {
        publishes: vec![message("a", queue)],
        ..Transaction::default()
    };
    let error = killed_in_its_commit(&mut store, &transaction, &mut observer).await;
    assert!(
        matches!(&error, CommitError::Unknown { outcomes, .. } if outcomes.commit == CommitNumber(2)),
        "{error:?}"
    );
    database.execute("DROP TRIGGER hang ON server_state").await;
    assert_eq!(store.committer.reopen().await.unwrap(), CommitNumber(1));
    assert_eq!(waiting(&store, queue, "r").await, [""; 0]);
    assert_eq!(
        store.committer.commit(&transaction).await.unwrap().commit,
        CommitNumber(2)
    );
    assert_eq!(waiting(&store, queue, "r").await, ["a"]);
    close(store).await;
}

#[tokio::test]
async fn postgres_a_commit_without_an_answer_that_happened() {
    let database = Database::postgres().await;
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    let mut observer = connect(&database).await;
    // Keeps the commit waiting, when it is durable here, for a standby that does not exist.
    for sql in [
        "SET synchronous_commit = local",
        "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::raw_sql(sql).execute(&mut observer).await.unwrap();
    }
    until(
        &mut observer,
        "SELECT 1 WHERE current_setting('synchronous_standby_names') = 'nobody'",
    )
    .await;
    let transaction = Transaction {
        publishes: vec![message("a", queue)],
        ..Transaction::default()
    };
    let error = killed_in_its_commit(&mut store, &transaction, &mut observer).await;
    assert!(
        matches!(&error, CommitError::Unknown { outcomes, .. } if outcomes.commit == CommitNumber(2)),
        "{error:?}"
    );
    // It is on this disk, and on no standby's: nobody may rely on it yet.
    let reopened = tokio::time::timeout(Duration::from_secs(2), store.committer.reopen()).await;
    assert!(reopened.is_err(), "{reopened:?}");
    for sql in [
        "ALTER SYSTEM RESET synchronous_standby_names",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::raw_sql(sql).execute(&mut observer).await.unwrap();
    }
    assert_eq!(store.committer.reopen().await.unwrap(), CommitNumber(2));
    assert_eq!(waiting(&store, queue, "r").await, ["a"]);
    assert_eq!(
        publish_all(&mut store, vec![message("a", queue)])
            .await
            .publishes,
        [PublishOutcome::Duplicate]
    );
    close(store).await;
}

/// The machine at the other end vanishes: requests that wait for it are given up and occupy no
/// place.
#[tokio::test]
async fn postgres_that_stops_answering_is_given_up() {
    let database = Database::postgres().await;
    let Database::Postgres(postgres, name) = &database else {
        unreachable!()
    };
    let proxy = Proxy::start(([127, 0, 0, 1], postgres.port()).into()).await;
    let url = postgres.url(name).replace(
        &format!(":{}", postgres.port()),
        &format!(":{}", proxy.address().port()),
    );
    let mut store = open(&DatabaseSettings::Postgres(at(url))).await.unwrap();
    let queue = queues(&mut store, &["q"]).await[0];
    publish_all(&mut store, vec![message("a", queue)]).await;

    let mut observer = connect(&database).await;
    let (lane, limit) = (
        lane(queue, "r"),
        PageLimit {
            messages: 1,
            bytes: 1,
        },
    );
    let read = || store.reader.lane(&lane, Seq(0), limit);
    // More reads than there are connections, all of them waiting for a table.
    let lock = "BEGIN; LOCK TABLE waiting IN ACCESS EXCLUSIVE MODE";
    let mut holder = connect(&database).await;
    sqlx::raw_sql(lock).execute(&mut holder).await.unwrap();
    let reads = futures_util::future::join_all((0..5).map(|_| read()));
    let silence = async {
        until(
            &mut observer,
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' HAVING COUNT(*) = 2",
        )
        .await;
        proxy.silence();
    };
    // Nobody waits for them any more.
    tokio::select! {
        _ = reads => panic!("there is a lock"),
        () = silence => {}
    }
    // This one does; and the committer.
    let waiting_for = async {
        let silence = async {
            until(
                &mut observer,
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' HAVING COUNT(*) = 3",
            )
            .await;
            proxy.silence();
            sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
        };
        tokio::join!(read(), silence).0
    };
    let transaction = Transaction {
        publishes: vec![message("b", queue)],
        ..Transaction::default()
    };
    let (read_failed, committed) = tokio::join!(waiting_for, store.committer.commit(&transaction));
    assert!(
        matches!(&read_failed, Err(Error::Unavailable(_))),
        "{read_failed:?}"
    );
    assert!(
        matches!(&committed, Err(CommitError::Failed(Error::Unavailable(_)))),
        "{committed:?}"
    );

    // The commit had not reached PostgreSQL.
    assert_eq!(waiting(&store, queue, "r").await, ["a"]);
    assert_eq!(store.committer.reopen().await.unwrap(), CommitNumber(2));
    store.committer.commit(&transaction).await.unwrap();
    assert_eq!(waiting(&store, queue, "r").await, ["a", "b"]);

    // Maintenance is given up in the same way.
    proxy.silence();
    let retention = Retention {
        metadata_before: Some(time("2025-09-08T07:03:00Z")),
        ..Retention::default()
    };
    let maintained = store.committer.maintain(&retention).await;
    assert!(
        matches!(&maintained, Err(Error::Unavailable(_))),
        "{maintained:?}"
    );
    assert_eq!(store.committer.reopen().await.unwrap(), CommitNumber(3));
    close(store).await;
}

/// A role with a database of its own, numbered, and connections for it and for the superuser.
struct Tenant {
    role: String,
    database: String,
    url: String,
    admin: PgConnection,
}

impl Tenant {
    async fn new(postgres: &Postgres, number: usize) -> Self {
        let (role, database) = (format!("role_{number}"), format!("database_{number}"));
        let elsewhere = postgres.create_database().await;
        let mut admin = PgConnection::connect(&postgres.url(&elsewhere))
            .await
            .unwrap();
        for statement in [
            "SET default_transaction_read_only = off".to_owned(),
            format!("CREATE ROLE {role} LOGIN PASSWORD 'pw'"),
            format!("CREATE DATABASE {database} OWNER {role} ENCODING 'UTF8' TEMPLATE template0"),
        ] {
            run(&mut admin, &statement).await;
        }
        let url = format!(
            "postgres://{role}:pw@127.0.0.1:{}/{database}",
            postgres.port()
        );
        Self {
            role,
            database,
            url,
            admin,
        }
    }

    fn named(&self, text: &str) -> String {
        text.replace("{role}", &self.role)
            .replace("{database}", &self.database)
    }
}

async fn run(connection: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Each piece of advice is followed, and then the server starts.
#[tokio::test]
async fn postgres_advice_about_settings_works() {
    const READ_ONLY: &str = "default_transaction_read_only";
    let postgres = Postgres::start().await;
    for (number, (setting, told)) in [
        (
            "ALTER ROLE {role} SET default_transaction_read_only = on",
            "set for the role)",
        ),
        (
            "ALTER DATABASE {database} SET default_transaction_read_only = on",
            "set for the database)",
        ),
        (
            "ALTER ROLE {role} IN DATABASE {database} SET default_transaction_read_only = on",
            "set for the role in this database)",
        ),
        (
            "ALTER ROLE {role} SET search_path = missing",
            "has no schema",
        ),
        (
            "ALTER DATABASE {database} SET search_path = pg_catalog",
            "has no schema",
        ),
        (
            "ALTER ROLE {role} IN DATABASE {database} SET search_path = ''",
            "has no schema",
        ),
        (
            "ALTER ROLE ALL SET default_transaction_read_only = on",
            "set for all roles)",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut tenant = Tenant::new(&postgres, number).await;
        let setting = tenant.named(setting);
        run(&mut tenant.admin, &setting).await;
        let text = refused(at(tenant.url.clone())).await;
        assert!(text.contains(told), "{text}");
        let (_, advice) = text.split_once("; ").unwrap();
        for statement in advice.split(", and ") {
            if statement.starts_with("GRANT") {
                let url = postgres.url(&tenant.database);
                let mut inside = PgConnection::connect(&url).await.unwrap();
                run(&mut inside, statement).await;
            } else {
                run(&mut tenant.admin, statement).await;
            }
        }
        close(
            open(&DatabaseSettings::Postgres(at(tenant.url)))
                .await
                .unwrap(),
        )
        .await;
        // It would keep the next database from being made.
        let reset = format!("ALTER ROLE ALL RESET {READ_ONLY}");
        run(&mut tenant.admin, &reset).await;
    }
    // A setting in the URL takes precedence over all statements.
    let tenant = Tenant::new(&postgres, 100).await;
    for setting in [READ_ONLY, "search_path"] {
        let url = format!("{}?options=-c%20{setting}%3Don", tenant.url);
        let text = refused(at(url)).await;
        assert!(
            text.contains(&format!("take {setting} out of `options`")),
            "{text}"
        );
        assert!(!text.contains("ALTER"), "{text}");
    }
}

#[tokio::test]
async fn postgres_a_missing_right_is_named() {
    let postgres = Postgres::start().await;
    let mut owner = Tenant::new(&postgres, 1).await;
    let settings = DatabaseSettings::Postgres(at(owner.url.clone()));
    close(open(&settings).await.unwrap()).await;

    let mut inside = PgConnection::connect(&postgres.url(&owner.database))
        .await
        .unwrap();
    run(&mut owner.admin, "CREATE ROLE second LOGIN PASSWORD 'pw'").await;
    run(
        &mut inside,
        "GRANT USAGE, CREATE ON SCHEMA public TO second",
    )
    .await;
    run(
        &mut inside,
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO second",
    )
    .await;
    let second = at(owner.url.replace("role_1", "second"));
    let text = refused(second.clone()).await;
    assert!(text.contains("batches, bindings"), "{text}");
    let (_, advice) = text.split_once("; ").unwrap();
    run(&mut inside, advice.split(", or ").next().unwrap()).await;
    close(open(&DatabaseSettings::Postgres(second)).await.unwrap()).await;

    // While it runs.
    let store = open(&settings).await.unwrap();
    run(
        &mut inside,
        "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM role_1",
    )
    .await;
    let error = store
        .reader
        .public_key(&client("receiver_1"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    let text = chain(&error);
    assert!(
        text.contains("permission denied") && text.contains("GRANT SELECT"),
        "{text}"
    );
    close(store).await;
}
