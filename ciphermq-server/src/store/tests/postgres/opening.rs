//! Which databases the server connects to, and what it says about others.

use super::*;

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
