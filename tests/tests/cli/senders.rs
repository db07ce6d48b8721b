//! `receive --from`: only messages of verified senders that match a pattern.

use ciphermq_tests::cli::Outcome;
use ciphermq_tests::{Cli, Fixture};

use ciphermq_tests::workspace::Workspace;

/// Sends messages to the workspace's receiver as another client.
async fn send_as(fixture: &Fixture, workspace: &Workspace, sender: &str, messages: &[&str]) {
    Cli::new("send")
        .args(["--to", &workspace.receiver])
        .args(messages.iter().map(|text| format!("--message={text}")))
        .connecting(&fixture.server, sender)
        .run()
        .await
        .success();
}

async fn receive_all(workspace: &Workspace, arguments: &[&str]) -> Outcome {
    workspace
        .cli("receive")
        .args(["--idle-exit", "0.5"])
        .args(arguments)
        .run()
        .await
        .success()
}

/// Returns the number of messages that the server lists as rejected by the receiver.
async fn rejected(workspace: &Workspace) -> usize {
    let listed = workspace.cli("rejected").run().await.success();
    listed.stdout.lines().count()
}

pub(crate) async fn others_are_set_aside_counted_and_reported_once(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let [clinic, lab, stranger] = ["clinic-1", "lab", "stranger"].map(|name| fixture.id(name));
    send_as(&fixture, &workspace, &clinic, &["from the clinic"]).await;
    send_as(&fixture, &workspace, &stranger, &["1", "2", "3"]).await;
    send_as(&fixture, &workspace, &lab, &["from the lab"]).await;
    let clinics = clinic.replace("clinic-1", "clin?c-*");
    let outcome = receive_all(&workspace, &["--from", &clinics, "--from", &lab]).await;

    assert_eq!(workspace.texts(), ["from the clinic", "from the lab"]);
    let quarantine = workspace.quarantine();
    assert_eq!(quarantine.len(), 3);
    for line in &quarantine {
        assert_eq!(line["envelope"]["sender_client_id"], stranger.as_str());
        let reason = line["reason"].as_str().unwrap();
        assert!(reason.contains(&stranger), "{reason}");
    }
    let warnings = outcome.stderr.matches("Warning: ").count();
    assert_eq!(warnings, 1, "{}", outcome.stderr);
    for part in [
        format!("Set aside: 3 messages of `{stranger}`, not admitted by --from"),
        "2 received, 2 confirmed, 0 duplicates left out, 3 set aside in".to_owned(),
    ] {
        assert!(outcome.stderr.contains(&part), "{}", outcome.stderr);
    }
    assert_eq!(rejected(&workspace).await, 3);
    workspace.expect_empty_queue(&fixture.server).await;
}

pub(crate) async fn unproven_senders_match_only_where_they_are_allowed(fixture: Fixture) {
    let workspace = super::quarantine::sent_in_older_forms(&fixture).await;
    let everybody = ["--from", "*"];
    // The messages name nobody, and nobody has signed them.
    let outcome = receive_all(
        &workspace,
        &[&everybody[..], &["--allow-unverified-senders"]].concat(),
    )
    .await;
    assert_eq!(workspace.texts(), [""; 0]);
    assert_eq!(workspace.quarantine().len(), 4);
    let named = "Set aside: 4 messages of a sender without a name";
    assert!(outcome.stderr.contains(named), "{}", outcome.stderr);
    // Signed ones of the same sender are accepted.
    workspace.send_messages(&["signed"]).await;
    receive_all(&workspace, &everybody).await;
    assert_eq!(workspace.texts(), ["signed"]);
}

pub(crate) async fn messages_that_a_full_quarantine_does_not_take_are_kept_by_the_server(
    fixture: Fixture,
) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let large = "x".repeat(400_000);
    let file = workspace.write("large", format!("{large}\n").repeat(5));
    let send = workspace.send().arg("--file").arg(&file);
    send.arg("--no-checkpoint").run().await.success();
    let friend = fixture.id("friend");
    send_as(&fixture, &workspace, &friend, &["small"]).await;
    let limited = ["--from", &friend, "--quarantine-max-mb", "1"];
    let outcome = receive_all(&workspace, &limited).await;
    assert_eq!(workspace.texts(), ["small"]);
    // An envelope of 400,000 bytes has some 534,000.
    assert_eq!(workspace.quarantine().len(), 1);
    let told = outcome.stderr.matches(" is full: ").count();
    assert_eq!(told, 1, "{}", outcome.stderr);
    let summary = "5 set aside (4 by the server alone)";
    assert!(outcome.stderr.contains(summary), "{}", outcome.stderr);
    assert_eq!(rejected(&workspace).await, 5, "none is lost");

    // Once it is moved away it is used again.
    let path = workspace.path("data/received_messages.jsonl.quarantine.jsonl");
    std::fs::rename(&path, workspace.path("away")).unwrap();
    workspace.send_messages(&["another"]).await;
    receive_all(&workspace, &limited).await;
    assert_eq!(workspace.quarantine().len(), 1);
    assert_eq!(rejected(&workspace).await, 6);
}

pub(crate) async fn patterns_of_uncertain_meaning_are_refused(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    for pattern in ["clinic-[0-9]", "{a,b}", "${client_id}", "a b", ""] {
        let receive = workspace.cli("receive").args(["--from", pattern]);
        let outcome = receive.run().await.code(2);
        assert!(outcome.stderr.contains("--from"), "{}", outcome.stderr);
    }
}
