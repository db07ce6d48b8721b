//! PostgreSQL becomes unavailable under load and returns: connections stay, publishes wait and then
//! fail with `storage_unavailable`, work resumes without intervention, and nothing is lost or
//! duplicated.

use std::time::Duration;

use ciphermq_tests::faults::campaign::{Settings, lock_tables};
use ciphermq_tests::faults::{Campaign, Report};
use ciphermq_tests::postgres::Stop;
use ciphermq_tests::{Backend, EnvelopeText, RawClient};

/// Duration of an outage, longer than `limits.storage_wait` in these tests.
const OUTAGE: Duration = Duration::from_secs(4);

async fn campaign() -> Campaign {
    let settings = Settings {
        storage_wait: "1s",
        ..Settings::new(super::random::seed(), 0)
    };
    let mut campaign = Campaign::start(Backend::postgres().await, settings).await;
    campaign.run_until_received(100).await;
    campaign
}

/// Checks that after an outage work resumes, on the same connections.
async fn resumes(mut campaign: Campaign, mut client: RawClient, before: usize) -> Report {
    // The message whose outcome is unknown is sent again with the same id.
    let envelope = EnvelopeText::older("witness-1-nobody", "nobody");
    // The server tries to reconnect to its database at least every two seconds, and here it replies
    // after one: a publish just after the database's return may still be deferred.
    let publish = format!("publish raw raw {envelope}");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        client.send_line(&publish).await;
        let reply = client.line().await;
        if reply == "ACK witness-1-nobody" {
            break;
        }
        assert!(reply.starts_with("Error: storage_unavailable: "), "{reply}");
        assert!(
            tokio::time::Instant::now() < deadline,
            "publishing still fails although the database is available: {reply}"
        );
    }
    campaign.run_until_received(200).await;
    assert_eq!(campaign.connections(), before, "a connection was lost");
    let witness = "DELETE FROM waiting WHERE receiver_client_id = 'nobody'";
    assert_eq!(campaign.server.database().await.execute(witness).await, 1);
    let report = campaign.settle().await.expect_sound();
    eprintln!("{report}");
    report
}

/// Opens a separate connection that observes the outage. Returns it, and the number of connections.
async fn witness(campaign: &Campaign) -> (RawClient, usize) {
    let client = RawClient::connect(&campaign.server, "witness").await;
    (client, campaign.connections())
}

/// Checks that the client gets `storage_unavailable` in time, and waits for the end of the outage.
async fn observes_the_outage(campaign: &mut Campaign, client: &mut RawClient) {
    let envelope = EnvelopeText::older("witness-1-nobody", "nobody");
    let started = tokio::time::Instant::now();
    client
        .send_line(&format!("publish raw raw {envelope}"))
        .await;
    let line = client.line().await;
    assert!(line.starts_with("Error: storage_unavailable: "), "{line}");
    let waited = started.elapsed();
    assert!(
        waited >= Duration::from_millis(900) && waited < Duration::from_secs(3),
        "{waited:?}"
    );
    client.ask("ping", "PONG").await;
    campaign.run_for(OUTAGE.saturating_sub(waited)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_stopped() {
    let mut campaign = campaign().await;
    let (mut client, before) = witness(&campaign).await;
    campaign.postgres().stop(Stop::Fast).await;
    observes_the_outage(&mut campaign, &mut client).await;
    campaign.postgres().restart().await;
    let report = resumes(campaign, client, before).await;
    assert!(report.deferred > 0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_stopped_in_immediate_mode() {
    let mut campaign = campaign().await;
    let (mut client, before) = witness(&campaign).await;
    campaign.postgres().stop(Stop::Immediate).await;
    observes_the_outage(&mut campaign, &mut client).await;
    campaign.postgres().restart().await;
    resumes(campaign, client, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_killed() {
    let mut campaign = campaign().await;
    let (mut client, before) = witness(&campaign).await;
    campaign.postgres().kill().await;
    observes_the_outage(&mut campaign, &mut client).await;
    campaign.postgres().restart().await;
    resumes(campaign, client, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarted_without_delay() {
    let mut campaign = campaign().await;
    let (client, before) = witness(&campaign).await;
    for _ in 0..3 {
        campaign.postgres().stop(Stop::Fast).await;
        campaign.postgres().restart().await;
        campaign.run_until_received(50).await;
    }
    resumes(campaign, client, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_tables_locked_for_20_seconds() {
    let mut campaign = campaign().await;
    let (mut client, before) = witness(&campaign).await;
    let database = campaign.server.database().await;
    let lock = lock_tables(&database).await;
    observes_the_outage(&mut campaign, &mut client).await;
    campaign.run_for(Duration::from_secs(20) - OUTAGE).await;
    lock.rollback().await.unwrap();
    resumes(campaign, client, before).await;
}

/// Acks wait without a limit, and are confirmed when the store is available again. Meanwhile
/// nothing is redelivered.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_acks_wait_for_the_store() {
    let Backend::Postgres(mut postgres) = Backend::postgres().await else {
        unreachable!()
    };
    let name = postgres.create_database().await;
    let options = ciphermq_tests::server::Options::postgres(postgres.url(&name))
        .set("limits", "storage_wait", "500ms")
        .set("limits", "redelivery_timeout", "1s");
    let server = ciphermq_tests::Server::start(options).await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    for id in ["one", "two"] {
        let envelope = EnvelopeText::older(id, "receiver");
        sender
            .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
            .await;
    }
    let mut receiver = RawClient::connect(&server, "receiver").await;
    receiver.ask("consume q 2", "Subscribed to queue").await;
    receiver.expect_prefix("Message: one ").await;
    receiver.expect_prefix("Message: two ").await;
    postgres.stop(Stop::Fast).await;
    receiver.send_line("ack one two").await;
    // Longer than leases last, and longer than publishes wait.
    receiver.expect_silence(Duration::from_secs(2)).await;
    postgres.restart().await;
    receiver.expect("ACK_CONFIRMED one").await;
    receiver.expect("ACK_CONFIRMED two").await;
    receiver.ask("ping", "PONG").await;
    let database = server.database().await;
    assert_eq!(database.number("SELECT count(*) FROM messages").await, 0);
}

/// A receiver with packed lines gets the next messages while its acks are being committed. One
/// without gets no delivery before the confirmation that made room for it.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_an_ack_makes_room_before_its_commit() {
    let postgres = Backend::postgres().await;
    let server = postgres.server().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.ask("declare_exchange e", "Exchange declared").await;
    let database = server.database().await;
    for (queue, packs) in [("packs", true), ("waits", false)] {
        sender
            .ask(&format!("declare_queue {queue}"), "Queue declared")
            .await;
        sender
            .ask(&format!("bind {queue} e {queue}"), "Queue bound")
            .await;
        let id = |number: u32| format!("{queue}-{number}");
        for number in 1..=4 {
            let envelope = EnvelopeText::older(&id(number), "receiver");
            sender
                .ask(
                    &format!("publish e {queue} {envelope}"),
                    &format!("ACK {}", id(number)),
                )
                .await;
        }
        let mut receiver = RawClient::connect(&server, "receiver").await;
        receiver
            .send_line(&format!("hello {{\"packed\":{packs}}}"))
            .await;
        receiver.expect_prefix("Hello: ").await;
        receiver
            .ask(&format!("consume {queue} 1"), "Subscribed to queue")
            .await;
        receiver
            .expect_prefix(&format!("Message: {} ", id(1)))
            .await;

        let lock = lock_tables(&database).await;
        receiver.send_line(&format!("ack {}", id(1))).await;
        if packs {
            receiver
                .expect_prefix(&format!("Message: {} ", id(2)))
                .await;
            receiver.send_line(&format!("ack {}", id(2))).await;
        }
        receiver.expect_silence(Duration::from_millis(500)).await;
        lock.rollback().await.unwrap();
        if packs {
            receiver.expect("ACK_CONFIRMED_ALL 1").await;
            // The other confirmation, and the delivery that the first one made room for.
            let mut lines = [receiver.line().await, receiver.line().await];
            lines.sort();
            assert_eq!(lines[0], "ACK_CONFIRMED_ALL 1");
            assert!(
                lines[1].starts_with(&format!("Message: {} ", id(3))),
                "{lines:?}"
            );
        } else {
            receiver.expect(&format!("ACK_CONFIRMED {}", id(1))).await;
            receiver
                .expect_prefix(&format!("Message: {} ", id(2)))
                .await;
        }
    }
}
