//! Faults in a database that `verify` finds.

use super::*;

/// Messages in every state have no fault, and neither has the database of a running server.
pub(crate) async fn a_sound_database_has_no_fault_in_any_state(backend: Backend) {
    let server = with_messages(&backend).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.declare_and_bind("both", "e", "k").await;
    sender.declare_and_bind("other", "e", "k").await;
    publish(&mut sender, 20..40).await;
    let batch: Vec<String> = (0..50)
        .map(|index| EnvelopeText::modern(&format!("b{index}"), "receiver").to_string())
        .collect();
    sender
        .send_line(&format!("publish_batch e k [{}]", batch.join(",")))
        .await;
    for index in 0..50 {
        sender.expect(&format!("ACK b{index}")).await;
    }
    let mut receiver = RawClient::connect(&server, "receiver").await;
    receiver.ask("consume q 5", "Subscribed to queue").await;
    receiver.send_line("reject m1 no key").await;
    receiver.send_line("ack m0 m30 b3 b4 b7").await;
    // Deliveries come in between.
    while receiver.line().await != "ACK_CONFIRMED b7" {}
    sender.ask("delete_queue both", "Queue deleted").await;
    sender.ask("purge_queue other", "Queue purged").await;
    let checked = expect_clean(program(&server, "verify").run().await);
    // Of a row for each message to each queue, a message is counted once.
    assert!(checked.contains("84 messages wait"), "{checked}");
    let folder = back_up(&server, "backup").await;
    expect_clean(program(&server, "verify").arg(&folder).run().await);
}

/// Statements, each with the table and the text of the fault that it makes.
const FAULTS: [(&str, &str, &str); 13] = [
    (
        "DELETE FROM envelopes WHERE first_seq = (SELECT MIN(first_seq) FROM envelopes)",
        "envelopes, first_seq 1: ",
        "their envelopes are missing; restore",
    ),
    (
        "INSERT INTO fates (first_seq, from_index, messages, delivered_time) VALUES (2, 0, 1000, \
         '2030-01-01T00:00:00.000000Z')",
        "fates, first_seq 2: ",
        "from_index 0 with 1000 messages is not within its 1",
    ),
    (
        "INSERT INTO fates (first_seq, from_index, messages, delivered_time, acknowledged_time) \
         VALUES (3, 0, 1, '2000-01-01T00:00:00.000000Z', '2000-01-01T00:00:00.000000Z')",
        "fates, first_seq 3: ",
        "has times that go back",
    ),
    (
        "INSERT INTO fates (first_seq, from_index, messages, delivered_time) VALUES (999, 0, 1, '')",
        "fates, first_seq 999, from_index 0: ",
        "its batch is missing",
    ),
    (
        "DELETE FROM waiting WHERE first_seq = 4",
        "batches, first_seq 4: ",
        "1 of its messages wait, and no row of waiting has them",
    ),
    (
        "DELETE FROM batches WHERE first_seq = 5",
        "first_seq 5: ",
        "its batch is missing",
    ),
    (
        "UPDATE envelopes SET ends = '[1]' WHERE first_seq = 6",
        "envelopes, first_seq 6: ",
        "does not cut its",
    ),
    (
        "UPDATE server_state SET last_seq = 19",
        "batches, first_seq 20: ",
        "go beyond the last one, 19",
    ),
    (
        "DELETE FROM exchanges",
        "bindings, exchange_name e, routing_key k, queue_id 1: ",
        "its exchange does not exist",
    ),
    (
        "DELETE FROM queues",
        "bindings, exchange_name e, routing_key k, queue_id 1: ",
        "its queue does not exist",
    ),
    (
        "UPDATE waiting SET copy = 7 WHERE first_seq = 8",
        "waiting, queue_id 1, receiver_client_id receiver, first_seq 8: ",
        "another queue at this copy",
    ),
    (
        "DROP INDEX batches_by_id; UPDATE batches SET id_stream = 'm0' WHERE first_seq = 9",
        "batches, first_seq 9: ",
        "ids are also those of the batch before it",
    ),
    (
        "UPDATE batches SET id_stream = 'm100' WHERE first_seq = 9",
        "envelopes, first_seq 9: ",
        "the envelope of message m100 is that of m8",
    ),
];

pub(crate) async fn faults_are_found_and_say_what_to_do(backend: Backend) {
    let mut server = with_messages(&backend).await;
    server.terminate().await;
    let folder = back_up(&server, "backup").await;
    let lines = |outcome: Outcome| -> Vec<String> {
        let outcome = outcome.code(1);
        outcome.stdout.lines().map(str::to_owned).collect()
    };
    for (statement, key, what) in FAULTS {
        let database = server.database().await;
        database.execute(statement).await;
        drop(database);
        let found = lines(program(&server, "verify").run().await);
        assert!(
            found
                .iter()
                .any(|line| line.contains(key) && line.contains(what) && line.contains("; ")),
            "{statement}: {found:#?}"
        );
        assert!(found.last().unwrap().contains(" fault"), "{found:?}");
        assert!(found.len() < 50, "{statement}: {found:#?}");
        lose_the_database(&backend, &server).await;
        program(&server, "restore")
            .arg(&folder)
            .run()
            .await
            .success();
    }
    expect_clean(program(&server, "verify").run().await);
}

/// A page that the disk has damaged is found in the database, and in a backup made of it.
#[tokio::test]
async fn a_damaged_page_is_found() {
    let mut server = with_messages(&Backend::Sqlite).await;
    server.terminate().await;
    let path = server.folder().join("data/ciphermq.db");
    let sound = std::fs::read(&path).unwrap();
    let page = 8192;
    let mut found = 0;
    // Each page's first byte says what it is.
    for at in (page..sound.len()).step_by(page) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0xff;
        std::fs::write(&path, bytes).unwrap();
        let outcome = program(&server, "verify").run().await;
        if outcome.code == Some(1) {
            let output = outcome.stdout + &outcome.stderr;
            assert!(
                output.contains("restore the database from a backup"),
                "{output}"
            );
            found += 1;
        }
    }
    assert!(found > 5, "{found}");
    std::fs::write(&path, sound).unwrap();
    expect_clean(program(&server, "verify").run().await);
}
