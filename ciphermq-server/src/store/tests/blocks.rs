//! Clients that an administrator keeps out.

use super::fixture::*;
use crate::model::{Block, Change, ChangeOutcome, Refusal, Transaction};
use crate::store::Store;

on_both! {
    the_first_block_stays_until_it_is_removed,
    a_database_without_blocks_opens,
}

fn block(client_id: &str, by: &str) -> Block {
    Block {
        client_id: client(client_id),
        by: client(by),
        since: format!("when {by} did it"),
    }
}

async fn change(store: &mut Store, changes: Vec<Change>) -> Vec<ChangeOutcome> {
    let transaction = Transaction {
        changes,
        ..Transaction::default()
    };
    commit(store, transaction).await.changes
}

async fn the_first_block_stays_until_it_is_removed(database: &Database) {
    let mut store = database.open().await;
    let changes = vec![
        Change::BlockClient(block("a", "x")),
        Change::BlockClient(block("a", "y")),
        Change::BlockClient(block("b", "y")),
        Change::UnblockClient(client("c")),
    ];
    let not_blocked = ChangeOutcome::Refused(Refusal::NotBlocked);
    let done = ChangeOutcome::Done;
    let expected = [done.clone(), done.clone(), done.clone(), not_blocked];
    assert_eq!(change(&mut store, changes).await, expected);
    close(store).await;
    let mut store = database.open().await;
    let mut blocks = store.reader.blocked_clients().await.unwrap();
    blocks.sort_unstable_by_key(|block| block.client_id.to_string());
    assert_eq!(blocks, [block("a", "x"), block("b", "y")]);
    let removal = vec![Change::UnblockClient(client("a"))];
    assert_eq!(change(&mut store, removal).await, [done]);
    let blocks = store.reader.blocked_clients().await.unwrap();
    assert_eq!(blocks, [block("b", "y")]);
    close(store).await;
}

async fn a_database_without_blocks_opens(database: &Database) {
    let rows = "INSERT INTO queues (queue_name, made_by) VALUES ('q', 'c')";
    database.make_older(4, rows).await;
    let store = database.open().await;
    assert!(store.reader.blocked_clients().await.unwrap().is_empty());
    assert_eq!(store.reader.topology().await.unwrap().queues.len(), 1);
    close(store).await;
}
