//! The checker detects participants that violate the protocol on purpose, and servers that lose
//! messages.

use std::path::Path;

use ciphermq_tests::Backend;
use ciphermq_tests::binaries::binary;
use ciphermq_tests::faults::campaign::{Report, Settings};
use ciphermq_tests::faults::{Campaign, Violation, receiver, sender};

/// Settings of a short campaign without random faults.
fn settings() -> Settings {
    Settings {
        lines: 50,
        ..Settings::new(1, 0)
    }
}

/// Runs a campaign in which the raw receiver misbehaves.
async fn campaign(misbehaviour: receiver::Misbehaviour) -> Report {
    let settings = Settings {
        receiver: misbehaviour,
        ..settings()
    };
    let mut campaign = Campaign::start(Backend::Sqlite, settings).await;
    // The misbehaviour happens in these cycles.
    for _ in 0..2 {
        campaign.run_until_received(200).await;
        campaign.kill_server().await;
    }
    campaign.settle().await
}

#[tokio::test(flavor = "multi_thread")]
async fn correct_participants_pass() {
    let report = campaign(receiver::Misbehaviour::None).await.expect_sound();
    assert!(
        report.redelivered > 0,
        "without redeliveries the next test would be meaningless: {report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_does_not_deduplicate_is_detected() {
    let report = campaign(receiver::Misbehaviour::DoesNotDeduplicate).await;
    let is_duplicated = |violation: &Violation| matches!(violation, Violation::Duplicated(_));
    assert!(report.count(is_duplicated) > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_acks_before_it_writes_is_detected() {
    let report = campaign(receiver::Misbehaviour::AcksUnwritten).await;
    let is_lost = |violation: &Violation| matches!(violation, Violation::Lost(_));
    assert!(report.count(is_lost) > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_alters_payloads_is_detected() {
    let report = campaign(receiver::Misbehaviour::Alters).await;
    let is_phantom = |violation: &Violation| matches!(violation, Violation::Phantom(_));
    assert!(report.count(is_phantom) > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_takes_sent_for_acknowledged_is_detected() {
    let misbehaviour = sender::Misbehaviour::TakesSentForAcknowledged;
    let settings = Settings {
        rate: 0,
        senders: misbehaviour,
        ..settings()
    };
    let mut campaign = Campaign::start(Backend::Sqlite, settings).await;
    // Some of these kills happen while messages are in flight.
    for _ in 0..5 {
        campaign.run_until_received(100).await;
        campaign.kill_server().await;
    }
    let report = campaign.settle().await;
    assert!(
        report.count(|violation| matches!(violation, Violation::Lost(_))) > 0,
        "{report}"
    );
}

/// The disk acknowledges writes before they are durable, and loses the last commits: an older copy
/// of the database is restored in place of the current one.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loses_its_last_commits_is_detected() {
    let mut campaign = Campaign::start(Backend::Sqlite, settings()).await;
    let (data, kept) = (
        campaign.server.folder().join("data"),
        campaign.server.folder().join("kept"),
    );
    campaign.run_until_received(100).await;
    campaign.kill_server_and(|| copy(&data, &kept)).await;
    campaign.run_until_received(100).await;
    campaign
        .kill_server_and(|| {
            std::fs::remove_dir_all(&data).unwrap();
            copy(&kept, &data);
        })
        .await;
    let report = campaign.settle().await;
    let gone =
        report.count(|violation| matches!(violation, Violation::Metadata(_) | Violation::Lost(_)));
    assert!(gone > 0, "{report}");
}

/// The server drops a message that it has acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drops_a_message_is_detected() {
    let mut campaign = Campaign::start(Backend::Sqlite, settings()).await;
    campaign.run_until_received(100).await;
    campaign.stop_receivers().await;
    campaign.run_until_waiting(50).await;
    let database = campaign.server.database().await;
    campaign.kill_server().await;
    // Messages stored from here on have not been delivered yet.
    let waiting = database.number("SELECT count(*) FROM messages").await;
    campaign.run_until_waiting(waiting + 50).await;
    let dropped = database
        .execute("DELETE FROM waiting WHERE first_seq IN (SELECT max(first_seq) FROM waiting)")
        .await;
    assert_eq!(dropped, 1);
    campaign.server.kill9().await;
    campaign.server.restart().await;
    campaign.restart_receivers().await;
    let report = campaign.settle().await;
    assert!(
        report.count(|violation| matches!(violation, Violation::Lost(_))) > 0,
        "{report}"
    );
}

/// Runs a campaign in which, from the first kill on, the server has the defect `behaviour`.
async fn faulty_server(behaviour: &str) -> Report {
    let settings = Settings {
        rate: 0,
        ..settings()
    };
    let mut campaign = Campaign::start(Backend::Sqlite, settings).await;
    let program = binary("faulty-server").display().to_string();
    let wrapper = vec![program, behaviour.to_owned()];
    campaign.server.run_under(wrapper);
    campaign.kill_server().await;
    // A kill only shows the defect if it happens between an acknowledgement and the commit.
    for _ in 0..12 {
        campaign.run_until_received(200).await;
        campaign.kill_server().await;
    }
    campaign.run_until_received(200).await;
    // The real server takes over its data, so that settling does not wait for what can never come.
    campaign.server.run_under(Vec::new());
    campaign.kill_server().await;
    campaign.settle().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_faulty_server_without_a_defect_passes() {
    faulty_server("honest").await.expect_sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_acknowledges_before_the_commit_is_detected() {
    let report = faulty_server("acknowledges-before-the-commit").await;
    let gone =
        report.count(|violation| matches!(violation, Violation::Metadata(_) | Violation::Lost(_)));
    assert!(gone > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drops_every_fiftieth_message_is_detected() {
    let report = faulty_server("drops").await;
    let lost = report.count(|violation| matches!(violation, Violation::Lost(_)));
    assert!(lost > 0, "{report}");
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
