//! The checker goes red when somebody misbehaves: real participants with bad manners, and a server
//! whose disk forgets.

use std::path::Path;

use ciphermq_tests::Backend;
use ciphermq_tests::binaries::binary;
use ciphermq_tests::faults::campaign::{Report, Settings};
use ciphermq_tests::faults::{Campaign, Violation, receiver, sender};

async fn campaign(change: impl FnOnce(Settings) -> Settings) -> Report {
    let settings = change(Settings {
        lines: 50,
        ..Settings::new(1, 0)
    });
    let mut campaign = Campaign::start(Backend::Sqlite, settings).await;
    // Whatever they do wrong, they do it in here.
    for _ in 0..2 {
        campaign.pass_until_received(200).await;
        campaign.kill_server().await;
    }
    campaign.settle().await
}

#[tokio::test(flavor = "multi_thread")]
async fn good_manners_are_green() {
    let report = campaign(|settings| settings).await.sound();
    assert!(
        report.redelivered > 0,
        "otherwise the next test shows nothing: {report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_does_not_deduplicate_is_red() {
    let misbehaviour = receiver::Misbehaviour::DoesNotDeduplicate;
    let report = campaign(|settings| Settings {
        receiver: misbehaviour,
        ..settings
    })
    .await;
    assert!(
        report.count(|violation| matches!(violation, Violation::Doubled(_))) > 0,
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_acks_before_it_writes_is_red() {
    let misbehaviour = receiver::Misbehaviour::AcksUnwritten;
    let report = campaign(|settings| Settings {
        receiver: misbehaviour,
        ..settings
    })
    .await;
    assert!(
        report.count(|violation| matches!(violation, Violation::Lost(_))) > 0,
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_alters_is_red() {
    let misbehaviour = receiver::Misbehaviour::Alters;
    let report = campaign(|settings| Settings {
        receiver: misbehaviour,
        ..settings
    })
    .await;
    assert!(
        report.count(|violation| matches!(violation, Violation::Phantom(_))) > 0,
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_takes_sent_for_acknowledged_is_red() {
    let misbehaviour = sender::Misbehaviour::TakesSentForAcknowledged;
    let settings = Settings {
        lines: 50,
        rate: 0,
        senders: misbehaviour,
        ..Settings::new(1, 0)
    };
    let mut campaign = Campaign::start(Backend::Sqlite, settings).await;
    // A few of these end while something is under way.
    for _ in 0..5 {
        campaign.pass_until_received(100).await;
        campaign.kill_server().await;
    }
    let report = campaign.settle().await;
    assert!(
        report.count(|violation| matches!(violation, Violation::Lost(_))) > 0,
        "{report}"
    );
}

/// A server on a disk that acknowledges before it has stored, to which its last commits are lost:
/// what it held a while ago is put back in place of what it holds.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_its_last_commits_is_red() {
    let mut campaign = Campaign::start(
        Backend::Sqlite,
        Settings {
            lines: 50,
            ..Settings::new(1, 0)
        },
    )
    .await;
    let (data, kept) = (
        campaign.server.folder().join("data"),
        campaign.server.folder().join("kept"),
    );
    campaign.pass_until_received(100).await;
    campaign.kill_server_and(|| copy(&data, &kept)).await;
    campaign.pass_until_received(100).await;
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

/// A server that drops a message which it has acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drops_messages_is_red() {
    let mut campaign = Campaign::start(
        Backend::Sqlite,
        Settings {
            lines: 50,
            ..Settings::new(1, 0)
        },
    )
    .await;
    campaign.pass_until_received(100).await;
    campaign.hold_receivers().await;
    campaign.pass_until_waiting(50).await;
    let database = campaign.server.database().await;
    campaign.kill_server().await;
    // What comes from here on is not on its way to a receiver yet.
    let waiting = database.number("SELECT count(*) FROM messages").await;
    campaign.pass_until_waiting(waiting + 50).await;
    let dropped = database
        .execute("DELETE FROM waiting WHERE first_seq IN (SELECT max(first_seq) FROM waiting)")
        .await;
    assert_eq!(dropped, 1);
    campaign.server.kill9().await;
    campaign.server.restart().await;
    campaign.release_receivers().await;
    let report = campaign.settle().await;
    assert!(
        report.count(|violation| matches!(violation, Violation::Lost(_))) > 0,
        "{report}"
    );
}

/// A campaign in which the server, from its first kill on, is the one that breaks a promise.
async fn sabotaged(how: &str) -> Report {
    let settings = Settings {
        lines: 50,
        rate: 0,
        ..Settings::new(1, 0)
    };
    let mut campaign = Campaign::start(Backend::Sqlite, settings).await;
    let program = binary("sabotaged-server").display().to_string();
    campaign.server.run_under(vec![program, how.to_owned()]);
    campaign.kill_server().await;
    // Not every moment is one in which something is acknowledged and not stored.
    for _ in 0..12 {
        campaign.pass_until_received(200).await;
        campaign.kill_server().await;
    }
    campaign.pass_until_received(200).await;
    // The real one is left with what it has done, so that settling waits for nothing that cannot
    // come.
    campaign.server.run_under(Vec::new());
    campaign.kill_server().await;
    campaign.settle().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_server_in_the_saboteurs_place_is_green() {
    sabotaged("honest").await.sound();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_acknowledges_before_the_commit_is_red() {
    let report = sabotaged("acknowledges-before-the-commit").await;
    let gone =
        report.count(|violation| matches!(violation, Violation::Metadata(_) | Violation::Lost(_)));
    assert!(gone > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drops_some_messages_is_red() {
    let report = sabotaged("drops").await;
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
