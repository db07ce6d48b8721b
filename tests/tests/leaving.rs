//! Clients that disconnect abruptly leave no state on the server.

use std::time::{Duration, Instant};

use ciphermq_tests::{Backend, EnvelopeText, RawClient, on_both_databases};

/// Far less than the 30 s for which a disconnected consumer's lease would last.
const IMMEDIATELY: Duration = Duration::from_secs(5);

/// A client that sends `consume` and disconnects, with or without closing TLS, has no subscription:
/// all messages go to the next consumer immediately and in order.
async fn a_consumer_that_disconnects_immediately_receives_nothing(backend: Backend) {
    let server = backend.server().await;
    let mut sender = RawClient::connect(&server, "sender").await;
    sender.declare_and_bind("q", "e", "k").await;
    let mut published = 0;
    for round in 0..20 {
        // Some messages wait already, some are published between, some come later.
        for with_close in [true, false] {
            let mut leaving = RawClient::connect(&server, "receiver").await;
            leaving.send_line("consume q 100").await;
            if with_close {
                leaving.close().await.expect("the connection closes");
            } else {
                drop(leaving);
            }
            let id = format!("m-{round}-{with_close}");
            let envelope = EnvelopeText::older(&id, "receiver");
            sender
                .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
                .await;
            published += 1;
        }
        let start = Instant::now();
        let mut staying = RawClient::connect(&server, "receiver").await;
        staying.ask("consume q 100", "Subscribed to queue").await;
        let ids = [true, false].map(|with_close| format!("m-{round}-{with_close}"));
        for id in &ids {
            staying.expect_prefix(&format!("Message: {id} ")).await;
        }
        for id in &ids {
            staying.ack(id).await;
        }
        let took = start.elapsed();
        assert!(took < IMMEDIATELY, "{took:?} in round {round}");
        staying.close().await.expect("the connection closes");
    }
    assert_eq!(
        server
            .database()
            .await
            .number(ciphermq_tests::Database::ACKNOWLEDGED)
            .await,
        published
    );
}

on_both_databases!(a_consumer_that_disconnects_immediately_receives_nothing);
