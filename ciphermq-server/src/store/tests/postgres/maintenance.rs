//! Sessions that are lost while a step of maintenance is committed.

use super::*;
use crate::model::HeldBySender;
use crate::store::Maintained;

/// What becomes of the step.
#[derive(Clone, Copy)]
enum Fate {
    Committed,
    RolledBack,
}

/// Makes commits hang: before they happen, or when they are durable on this server only.
async fn hang(database: &Database, observer: &mut PgConnection, fate: Fate) {
    match fate {
        Fate::RolledBack => {
            database
                .execute(
                    "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS \
                     'BEGIN PERFORM pg_sleep(300); RETURN NULL; END'; \
                     CREATE CONSTRAINT TRIGGER hang AFTER INSERT OR DELETE ON rejected_messages \
                     DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang()",
                )
                .await;
        }
        Fate::Committed => {
            require_a_standby(observer).await;
        }
    }
}

/// Undoes [`hang`].
async fn release(database: &Database, observer: &mut PgConnection, fate: Fate) {
    match fate {
        Fate::RolledBack => database.execute("DROP FUNCTION hang CASCADE").await,
        Fate::Committed => require_no_standby(observer).await,
    }
}

/// Runs a step of maintenance, and ends its session in the commit.
async fn lose_a_step(
    database: &Database,
    store: &mut Store,
    observer: &mut PgConnection,
    retention: &Retention,
    fate: Fate,
) {
    hang(database, observer, fate).await;
    let (step, ()) = tokio::join!(
        store.committer.maintain(retention),
        end_stuck_sessions(observer)
    );
    assert!(matches!(step, Err(Error::Unavailable(_))), "{step:?}");
    release(database, observer, fate).await;
    store.committer.reopen().await.unwrap();
}

async fn what_senders_hold_is_known_afterwards(fate: Fate) {
    let database = Database::postgres().await;
    let mut store = database.open().await;
    let queue = queues(&mut store, &["q"]).await[0];
    let mut observer = connect(&database).await;
    let mut sum = HeldBySender::default();
    let messages = ["a", "b"].map(|name| message(name, queue));
    let published = publish_all(&mut store, messages.to_vec()).await;
    sum.extend(published.held);
    let deletion = Transaction {
        changes: vec![delete(queue, false, "admin")],
        ..Transaction::default()
    };
    sum.extend(commit(&mut store, deletion).await.held);

    let forget = Retention {
        rejected_before: vec![(client("s"), time("2100-01-01T00:00:00Z"))],
        ..Retention::default()
    };
    // The step that rejects the messages of the deleted queue, and the one that forgets them.
    for (retention, rejected) in [(Retention::default(), 2), (forget, 0)] {
        lose_a_step(&database, &mut store, &mut observer, &retention, fate).await;
        loop {
            let Maintained { more, held, .. } = store.committer.maintain(&retention).await.unwrap();
            sum.extend(held);
            if !more {
                break;
            }
        }
        let counted = store.reader.held().await.unwrap().of(&client("s"));
        assert_eq!(sum.of(&client("s")), counted);
        assert_eq!(counted.rejected_messages, rejected);
        assert_eq!(counted.waiting_messages, 0);
    }
    close(store).await;
}

#[tokio::test]
async fn postgres_a_step_of_maintenance_without_an_answer_that_happened() {
    what_senders_hold_is_known_afterwards(Fate::Committed).await;
}

#[tokio::test]
async fn postgres_a_step_of_maintenance_without_an_answer_that_did_not_happen() {
    what_senders_hold_is_known_afterwards(Fate::RolledBack).await;
}
