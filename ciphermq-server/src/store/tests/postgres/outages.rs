//! Sessions that are lost, and databases that stop, hang or are written by somebody else.

use std::sync::Arc;

use super::*;
use crate::model::Publish;

/// Returns a transaction that publishes one message.
fn publishing(message: Arc<Publish>) -> Transaction {
    Transaction {
        publishes: vec![message],
        ..Transaction::default()
    }
}

/// Commits, and returns the number of the commit.
async fn commit_number(store: &mut Store, transaction: &Transaction) -> CommitNumber {
    store.committer.commit(transaction).await.unwrap().commit
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
    let transaction = publishing(message("a", queue));
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
        commit_number(&mut store, &transaction).await,
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
        publishing(message("b", queue)),
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
    let transaction = publishing(message("b", queue));
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
    let (outcome, ()) = tokio::join!(
        store.committer.commit(transaction),
        end_stuck_sessions(observer)
    );
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
    let transaction = publishing(message("a", queue));
    let error = killed_in_its_commit(&mut store, &transaction, &mut observer).await;
    assert!(
        matches!(&error, CommitError::Unknown { outcomes, .. } if outcomes.commit == CommitNumber(2)),
        "{error:?}"
    );
    database.execute("DROP TRIGGER hang ON server_state").await;
    assert_eq!(store.committer.reopen().await.unwrap(), CommitNumber(1));
    assert_eq!(waiting(&store, queue, "r").await, [""; 0]);
    assert_eq!(
        commit_number(&mut store, &transaction).await,
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
    require_a_standby(&mut observer).await;
    let transaction = publishing(message("a", queue));
    let error = killed_in_its_commit(&mut store, &transaction, &mut observer).await;
    assert!(
        matches!(&error, CommitError::Unknown { outcomes, .. } if outcomes.commit == CommitNumber(2)),
        "{error:?}"
    );
    // It is on this disk, and on no standby's: nobody may rely on it yet.
    let reopened = tokio::time::timeout(Duration::from_secs(2), store.committer.reopen()).await;
    assert!(reopened.is_err(), "{reopened:?}");
    require_no_standby(&mut observer).await;
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
    let transaction = publishing(message("b", queue));
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
