//! Behaviour that only a committer's own connection can show.

use super::SqliteCommitter;
use crate::model::{AckOutcome, PageLimit, PublishOutcome, QueueId, Seq, Transaction};
use crate::store::sqlite::file::DatabaseFile;
use crate::store::sqlite::reader::SqliteReader;
use crate::store::tests::fixture::{ack, declare, envelope, lane, publish};
use crate::store::{CommitError, Committer as _, Error, Reader as _};

/// Limits the database's pages: SQLite reports a full disk in the same way.
fn pages(committer: &SqliteCommitter, limit: i64) {
    let session = committer.session.as_ref().unwrap();
    session
        .connection
        .query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(()))
        .unwrap();
}

async fn committer(folder: &std::path::Path) -> SqliteCommitter {
    let file = DatabaseFile::claim(&folder.join("mq.db"), 0).unwrap();
    file.prepare().await.unwrap();
    SqliteCommitter::open(std::sync::Arc::new(file))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_full_disk_commits_nothing_partially_and_acks_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut committer = committer(folder.path()).await;
    let reader = SqliteReader::open(&committer.file).await.unwrap();
    let changes = vec![declare("q", "s")];
    let outcomes = committer
        .commit(&Transaction {
            changes,
            ..Transaction::default()
        })
        .await
        .unwrap();
    let queue = outcomes.changes[0].queue().unwrap();
    let payload = "A".repeat(100_000);
    let message = |id: &str| publish("s", &[queue], envelope(id, "r", true, &payload));
    let publishing = |ids: &[&str]| Transaction {
        publishes: ids.iter().map(|id| message(id)).collect(),
        ..Transaction::default()
    };
    committer.commit(&publishing(&["a", "b"])).await.unwrap();

    pages(&committer, 1);
    let full = committer
        .commit(&publishing(&["c", "d", "e"]))
        .await
        .unwrap_err();
    assert!(
        matches!(full, CommitError::Failed(Error::Full(_))),
        "{full:?}"
    );
    let acks = Transaction {
        acks: vec![ack("a", "r")],
        ..Transaction::default()
    };
    let outcomes = committer.commit(&acks).await.unwrap();
    assert_eq!(outcomes.acks, [AckOutcome::Done(vec![(queue, Seq(1))])]);
    // Nothing of the refused transaction is stored, and the freed pages are used.
    let outcomes = committer.commit(&publishing(&["c"])).await.unwrap();
    assert_eq!(
        outcomes.publishes,
        [PublishOutcome::Stored { first: Seq(3) }]
    );
    let limit = PageLimit {
        messages: 9,
        bytes: usize::MAX,
    };
    let page = reader.lane(&lane(queue, "r"), Seq(0), limit).await.unwrap();
    let ids: Vec<&str> = page
        .messages
        .iter()
        .map(|message| message.message_id.as_str())
        .collect();
    assert_eq!(ids, ["b", "c"]);
    Box::new(committer).close().await;
    reader.close().await;
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut committer = committer(folder.path()).await;
    let schema = "CREATE TRIGGER narrow BEFORE INSERT ON envelopes WHEN LENGTH(NEW.envelopes) > \
                  1000 \
                  BEGIN SELECT RAISE(ABORT, 'too large'); END";
    committer
        .session
        .as_ref()
        .unwrap()
        .connection
        .execute_batch(schema)
        .unwrap();
    let message =
        |id: &str, payload: &str| publish("s", &[QueueId(1)], envelope(id, "r", true, payload));
    let large = message("large", &"A".repeat(1000));
    let transaction = Transaction {
        publishes: vec![message("small", "A"), large],
        ..Transaction::default()
    };
    let refused = committer.commit(&transaction).await.unwrap_err();
    assert!(
        matches!(refused, CommitError::Failed(Error::Refused(_))),
        "{refused:?}"
    );
    let alone = Transaction {
        publishes: vec![message("small", "A")],
        ..Transaction::default()
    };
    let outcomes = committer.commit(&alone).await.unwrap();
    assert_eq!(
        outcomes.publishes,
        [PublishOutcome::Stored { first: Seq(1) }]
    );
    Box::new(committer).close().await;
}
