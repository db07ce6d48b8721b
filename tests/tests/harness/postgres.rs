//! PostgreSQL is started, stopped, killed and left without a trace.

use ciphermq_tests::postgres::{Options, Stop, USER};
use ciphermq_tests::{Database, Postgres};
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};

async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect(url).await
}

#[tokio::test]
async fn postgres_keeps_what_was_committed_over_stop_kill_and_restart() {
    let mut postgres = Postgres::start().await;
    let name = postgres.create_database().await;
    let url = postgres.url(&name);
    let database = Database::connect(&url).await;
    database.execute("CREATE TABLE kept (number INT)").await;
    database.execute("INSERT INTO kept VALUES (1)").await;

    assert_eq!(postgres.stop(Stop::Fast).await.code(), Some(0));
    assert!(connect(&url).await.is_err());
    postgres.restart().await;
    assert_eq!(postgres.url(&name), url, "the port stays the same");

    let database = Database::connect(&url).await;
    database.execute("INSERT INTO kept VALUES (2)").await;
    postgres.kill().await;
    assert!(connect(&url).await.is_err());
    postgres.restart().await;

    let database = Database::connect(&url).await;
    let rows = database
        .rows("SELECT number FROM kept ORDER BY number")
        .await;
    assert_eq!(rows, [[Some("1".to_owned())], [Some("2".to_owned())]]);
    let log = postgres.process().stderr.text();
    assert!(
        log.contains("database system was not properly shut down"),
        "a kill is no stop:\n{log}"
    );
}

#[tokio::test]
async fn postgres_syncs_its_commits_and_does_not_run_as_root() {
    let postgres = Postgres::start().await;
    let database = Database::connect(&postgres.url("postgres")).await;
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(
            database.rows(&format!("SHOW {setting}")).await,
            [[Some("on".to_owned())]],
            "{setting}"
        );
    }
    assert_ne!(postgres.process().uid(), 0);
}

#[tokio::test]
async fn postgres_asks_for_the_password() {
    let postgres = Postgres::start().await;
    let wrong = postgres
        .url("postgres")
        .replace(postgres.password(), "wrong");
    let error = connect(&wrong).await.unwrap_err();
    let code = error
        .as_database_error()
        .and_then(|error| error.code().map(String::from));
    assert_eq!(code.as_deref(), Some("28P01"), "{error}");
}

#[tokio::test]
async fn postgres_takes_settings_and_makes_databases_of_their_own() {
    let settings = vec!["max_connections=7".to_owned()];
    let postgres = Postgres::start_with(Options {
        settings,
        ..Options::default()
    })
    .await;
    let (one, two) = (
        postgres.create_database().await,
        postgres.create_database().await,
    );
    let [one, two] = [
        Database::connect(&postgres.url(&one)).await,
        Database::connect(&postgres.url(&two)).await,
    ];
    one.execute("CREATE TABLE here (number INT)").await;
    assert_eq!(
        two.number("SELECT count(*) FROM pg_tables WHERE tablename = 'here'")
            .await,
        0
    );
    assert_eq!(two.number("SHOW max_connections").await, 7);
}

#[tokio::test]
async fn postgres_speaks_tls_and_refuses_plain_connections() {
    let postgres = Postgres::start_with(Options {
        tls: true,
        ..Options::default()
    })
    .await;
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(postgres.port())
        .username(USER)
        .password(postgres.password())
        .database("postgres");

    let verified = options
        .clone()
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(postgres.ca());
    let mut connection = PgConnection::connect_with(&verified).await.unwrap();
    let tls: bool = sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert!(tls);

    let untrusted = options.clone().ssl_mode(PgSslMode::VerifyFull);
    assert!(
        PgConnection::connect_with(&untrusted).await.is_err(),
        "its CA is nobody else's"
    );
    let plain = options.ssl_mode(PgSslMode::Disable);
    assert!(
        PgConnection::connect_with(&plain).await.is_err(),
        "plain connections are refused"
    );
}

#[tokio::test]
async fn postgres_ends_with_its_value_and_leaves_nothing() {
    let postgres = Postgres::start().await;
    let url = postgres.url("postgres");
    let folder = postgres.ca().parent().unwrap().to_owned();
    let pid = postgres.process().pid().unwrap();
    assert!(folder.exists());
    drop(postgres);
    assert!(!folder.exists());
    assert!(rustix::process::test_kill_process(pid).is_err());
    assert!(connect(&url).await.is_err());
}

#[tokio::test]
async fn postgres_killed_for_good_leaves_no_shared_memory() {
    let mut postgres = Postgres::start().await;
    let data = postgres.ca().with_file_name("data");
    postgres.kill().await;
    let pid_file = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let id: String = pid_file
        .lines()
        .nth(6)
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .to_owned();
    let listed = || {
        let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
        table
            .lines()
            .any(|line| line.split_whitespace().nth(1) == Some(id.as_str()))
    };
    assert!(listed(), "a killed server leaves it behind");
    drop(postgres);
    assert!(!listed());
}
