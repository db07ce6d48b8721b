//! The memory of lines and replies: nobody takes it from others.

use std::time::Duration;

use ciphermq_tests::faults::campaign::lock_tables;
use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, EnvelopeText, RawClient, Server};

const MIB: u64 = 1 << 20;

/// A server with room for four of the longest lines.
async fn small_server(min_line_rate: i64) -> Server {
    let options = Options::sqlite()
        .set("limits", "max_line_bytes", "1MiB")
        .set("limits", "max_buffered_bytes", "4MiB")
        .set("limits", "max_unread_bytes", "4MiB")
        .set("limits", "min_line_rate", min_line_rate);
    Server::start(options).await
}

/// Publishes messages of nearly the greatest length, each of which must be acknowledged.
async fn publish_long(client: &mut RawClient, count: usize) {
    for number in 0..count {
        let id = format!("long-{number}");
        let envelope = EnvelopeText::older(&id, "honest").set("ciphertext", "A".repeat(900_000));
        client
            .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
            .await;
    }
}

#[tokio::test]
async fn lines_that_are_left_unfinished_give_way_to_others() {
    // They are ended because they are in the way, not because of their rate.
    let server = small_server(0).await;
    let mut honest = RawClient::connect(&server, "honest").await;
    honest.declare_and_bind("q", "e", "k").await;
    let mut attackers = Vec::new();
    for number in 0..8 {
        let mut attacker = RawClient::connect(&server, &format!("attacker_{}", number % 4)).await;
        // Those that find no memory are not read from.
        let begin = attacker.try_send(&[b'x'; 1_000_000]);
        let _ = tokio::time::timeout(Duration::from_secs(1), begin).await;
        attackers.push(attacker);
    }
    publish_long(&mut honest, 5).await;
    server
        .console()
        .expect("Connection ended: a long line arrived too slowly while others needed")
        .await;
    drop(attackers);
}

#[tokio::test]
async fn a_client_leaves_half_of_the_memory_to_others() {
    let server = small_server(0).await;
    let mut honest = RawClient::connect(&server, "honest").await;
    honest.declare_and_bind("q", "e", "k").await;
    let mut attackers = Vec::new();
    for _ in 0..6 {
        let mut attacker = RawClient::connect(&server, "attacker").await;
        let begin = attacker.try_send(&[b'x'; 1_000_000]);
        let _ = tokio::time::timeout(Duration::from_millis(300), begin).await;
        attackers.push(attacker);
    }
    publish_long(&mut honest, 5).await;
    drop(attackers);
}

#[tokio::test]
async fn a_line_below_the_minimum_rate_is_ended_and_told_why() {
    let server = Server::start(Options::sqlite()).await;
    let mut slow = RawClient::connect(&server, "slow").await;
    slow.send_bytes([b'x'; 100_000]).await;
    let reason = slow.expect_prefix("Error: overloaded: ").await;
    assert!(reason.contains("limits.min_line_rate"), "{reason}");
    slow.expect_closed().await;
}

#[tokio::test]
async fn a_line_that_is_not_long_may_take_its_time() {
    let server = Server::start(Options::sqlite()).await;
    let mut slow = RawClient::connect(&server, "slow").await;
    let line = format!("get_public_key {}", "x".repeat(60_000));
    let (first, rest) = line.split_at(50_000);
    slow.send_bytes(first).await;
    // Longer than a long line has for its minimum rate.
    tokio::time::sleep(Duration::from_secs(12)).await;
    slow.send_line(rest).await;
    slow.expect_prefix("Error: bad_name: ").await;
}

/// Long lines of one client on many connections, all at full speed, do not wait for each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_long_lines_at_once_are_all_answered() {
    let server = small_server(0).await;
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..8 {
        let mut client = RawClient::connect(&server, &format!("client_{}", number % 2)).await;
        clients.spawn(async move {
            let line = format!("get_public_key {}", "x".repeat(1_000_000));
            for _ in 0..5 {
                client.send_line(&line).await;
                client.expect_prefix("Error: bad_name: ").await;
            }
        });
    }
    clients.join_all().await;
}

/// The line of a client that has died is not stored when its turn comes seconds later, so that it
/// keeps nobody waiting. One of a client that has ended its sending side is.
#[tokio::test]
async fn a_line_that_waited_is_not_stored_for_a_client_that_has_gone() {
    let backend = Backend::postgres().await;
    let options = backend.options().await;
    // Room for the messages of one line.
    let options = options
        .set("limits", "max_line_bytes", "1MiB")
        .set("limits", "max_buffered_bytes", "4MiB")
        .set("limits", "storage_wait", "60s");
    let server = Server::start(options).await;
    let database = server.database().await;
    let mut first = RawClient::connect(&server, "many").await;
    first.declare_and_bind("q", "e", "k").await;
    let line = |name: &str| {
        let envelope = |number| EnvelopeText::older(&format!("{name}-{number}"), "r").to_string();
        let envelopes: Vec<String> = (0..700).map(envelope).collect();
        format!("publish_batch e k [{}]", envelopes.join(","))
    };
    let lock = lock_tables(&database).await;
    first.send_line(&line("first")).await;
    let waits = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    database.eventually(waits, 1).await;
    let mut dying = RawClient::connect(&server, "many").await;
    dying.send_line(&line("dying")).await;
    let dying = tokio::spawn(dying.close_abruptly());
    let mut ending = RawClient::connect(&server, "many").await;
    ending.send_line(&line("ending")).await;
    let ending = tokio::spawn(ending.end());
    // More than the second from which on the server looks whether the client is still there.
    tokio::time::sleep(Duration::from_secs(4)).await;
    drop(lock);
    for number in 0..700 {
        first.expect(&format!("ACK first-{number}")).await;
    }
    dying.await.unwrap();
    ending.await.unwrap();
    for (name, expected) in [("first", 700), ("ending", 700), ("dying", 0)] {
        let sql = format!("SELECT COUNT(*) FROM message_metadata WHERE message_id LIKE '{name}-%'");
        let found = database.number(&sql).await;
        assert_eq!(found, expected, "{name}");
    }
}

/// What a client says of itself takes no more memory than is kept of it.
#[tokio::test]
async fn a_long_hello_is_not_kept() {
    let server = Server::start(Options::sqlite()).await;
    let before = server.process().rss_bytes();
    let mut idle = Vec::new();
    for number in 0..10 {
        let mut client = RawClient::connect(&server, "talkative").await;
        let hello = format!(r#"hello {{"client":"{}"}}"#, "x".repeat(15_000_000));
        client.send_line(&hello).await;
        client.expect_prefix("Hello: ").await;
        client.ask("ping", "PONG").await;
        idle.push((number, client));
    }
    let grown = server.process().rss_bytes().saturating_sub(before);
    assert!(grown < 100 * MIB, "{} MiB", grown / MIB);
}

/// Requests whose replies are much longer, on connections that read nothing, of several clients.
#[tokio::test]
async fn replies_that_nobody_reads_take_bounded_memory_and_no_service() {
    let server = small_server(0).await;
    let mut honest = RawClient::connect(&server, "honest").await;
    honest.declare_and_bind("q", "e", "k").await;
    let mut rejecting = RawClient::connect(&server, "attacker_0").await;
    rejecting.declare_and_bind("own", "own", "own").await;
    for number in 0..300 {
        let envelope = EnvelopeText::older(&format!("r-{number}"), "attacker_0");
        rejecting
            .ask(
                &format!("publish own own {envelope}"),
                &format!("ACK r-{number}"),
            )
            .await;
        let reject = format!("reject r-{number} {}", "x".repeat(900));
        rejecting
            .ask(&reject, &format!("Rejected r-{number}"))
            .await;
    }
    let before = server.process().rss_bytes();
    let requests = "list_rejected\n".repeat(200) + &"get_public_key nobody\n".repeat(5000);
    let mut attackers = Vec::new();
    for number in 0..40 {
        // All the same client, so that the lists are long.
        let client = format!("attacker_{}", number % 2);
        let mut attacker = RawClient::connect(&server, &client).await;
        let begin = attacker.try_send(requests.as_bytes());
        let _ = tokio::time::timeout(Duration::from_millis(100), begin).await;
        attackers.push(attacker);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    publish_long(&mut honest, 3).await;
    honest.send_line("list_rejected").await;
    honest.expect_prefix("Rejected messages: ").await;
    let grown = server.process().rss_bytes().saturating_sub(before);
    // Both budgets of 4 MiB, 256 KiB for each connection, and what the allocator keeps.
    assert!(grown < 60 * MIB, "{} MiB", grown / MIB);
    drop(attackers);
}
