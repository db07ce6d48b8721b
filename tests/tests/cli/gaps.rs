//! Missing messages: somebody who can write to the server's database can suppress messages, which
//! the receiver reports.

use ciphermq_tests::Backend;

use ciphermq_tests::workspace::Workspace;

/// Sends messages, and marks those at some positions as acknowledged in the database while the
/// server is stopped. (Deleting batches would also remove neighbouring messages.)
async fn with_suppressed(positions: &[u64], texts: &[&str]) -> (ciphermq_tests::Server, Workspace) {
    let mut server = Backend::Sqlite.server().await;
    let workspace = Workspace::named(&server, "sender", "receiver");
    workspace.register_receiver().await;
    workspace.send_messages(texts).await;
    server.terminate().await;
    let database = server.database().await;
    for position in positions {
        let acknowledge = format!(
            "INSERT INTO fates (first_seq, from_index, messages, delivered_time, \
             acknowledged_time) \
             SELECT first_seq, {position} - id_position, 1, sent_time, sent_time FROM batches \
             WHERE id_position <= {position} AND {position} < id_position + messages"
        );
        assert_eq!(
            database.execute(&acknowledge).await,
            1,
            "position {position}"
        );
    }
    drop(database);
    server.restart().await;
    (server, workspace)
}

pub(crate) async fn messages_missing_from_the_database_are_reported() {
    let (_server, workspace) =
        with_suppressed(&[2, 4, 5], &["0", "1", "2", "3", "4", "5", "6"]).await;
    let receive = ["--idle-exit", "0.5"];
    let ended = workspace.cli("receive").args(receive).run().await.success();
    assert_eq!(workspace.received().len(), 4);
    let warning = ended
        .stderr
        .lines()
        .find(|line| line.contains("Warning"))
        .unwrap_or_else(|| panic!("no warning:\n{}", ended.stderr));
    assert!(
        warning.contains("3 messages of sender have not arrived")
            && warning.contains("positions 2, 4-5 of the stream"),
        "{warning}"
    );
    assert!(
        ended.stderr.contains("0 set aside, 3 missing in"),
        "{}",
        ended.stderr
    );

    // Missing messages of an earlier stream are not reported again.
    workspace.send_messages(&["another stream"]).await;
    let ended = workspace.cli("receive").args(receive).run().await.success();
    assert!(!ended.stderr.contains("missing"), "{}", ended.stderr);
}

pub(crate) async fn a_missing_beginning_may_be_older_than_the_output() {
    let (_server, workspace) = with_suppressed(&[0], &["0", "1", "2"]).await;
    let receive = ["--idle-exit", "0.5"];
    let ended = workspace
        .cli("receive")
        .args(receive)
        .args(["--count", "1", "--ignore-gaps"])
        .run()
        .await
        .success();
    assert!(!ended.stderr.contains("missing"), "{}", ended.stderr);
    let ended = workspace.cli("receive").args(receive).run().await.success();
    assert!(
        ended
            .stderr
            .contains("1 message of sender has not arrived, though later ones have: position 0 of"),
        "{}",
        ended.stderr
    );
    assert!(
        ended
            .stderr
            .contains("may have been sent before this output was begun"),
        "{}",
        ended.stderr
    );
}
