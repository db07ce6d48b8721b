//! Clients that leave in the middle of a word leave nothing behind.

use std::time::{Duration, Instant};

use ciphermq_tests::{Backend, EnvelopeText, RawClient, on_both_databases};

/// Far less than the lease of a consumer that is gone would last, 30 s.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A client that says `consume` and is gone, with its farewell or without, has no subscription:
/// messages go to the next consumer at once, all of them and in order.
async fn a_consumer_that_leaves_at_once_gets_nothing(backend: Backend) {
    let server = backend.server().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.ask("declare_queue q", "Queue declared").await;
    sender.ask("declare_exchange e", "Exchange declared").await;
    sender.ask("bind q e k", "Queue bound").await;
    let mut published = 0;
    for round in 0..20 {
        // Some messages wait already, some are published between, some come later.
        for with_farewell in [true, false] {
            let mut leaving = RawClient::connect(&server, "receiver").await;
            leaving.send_line("consume q 100").await;
            if with_farewell {
                leaving.close().await.expect("the connection closes");
            } else {
                drop(leaving);
            }
            let id = format!("m-{round}-{with_farewell}");
            let envelope = EnvelopeText::older(&id, "receiver");
            sender
                .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
                .await;
            published += 1;
        }
        let began = Instant::now();
        let mut staying = RawClient::connect(&server, "receiver").await;
        staying.ask("consume q 100", "Subscribed to queue").await;
        let ids = [true, false].map(|with_farewell| format!("m-{round}-{with_farewell}"));
        for id in &ids {
            staying.expect_prefix(&format!("Message: {id} ")).await;
        }
        for id in &ids {
            staying
                .ask(&format!("ack {id}"), &format!("ACK_CONFIRMED {id}"))
                .await;
        }
        let took = began.elapsed();
        assert!(took < AT_ONCE, "{took:?} in round {round}");
        staying.close().await.expect("the connection closes");
    }
    let acked = "SELECT count(*) FROM message_metadata WHERE acknowledged_time IS NOT NULL";
    assert_eq!(server.database().await.number(acked).await, published);
}

on_both_databases!(a_consumer_that_leaves_at_once_gets_nothing);
