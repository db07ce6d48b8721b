//! Queues, exchanges and bindings are removed and listed, over a raw TLS socket and with the
//! command line, on both databases.

mod cli;
mod interruptions;
mod races;
mod removing;

use std::collections::BTreeMap;

use ciphermq_tests::{EnvelopeText, PATIENCE, RawClient, Server, on_both_databases};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use interruptions::a_killed_server_finishes_a_deletion;
use races::publishes_race_with_deletions;
use removing::{
    a_consumer_learns_that_its_queue_is_gone, a_purge_leaves_what_comes_later,
    a_route_has_a_bounded_number_of_queues, an_administrator_removes_everything,
    lists_show_what_a_client_may_see, only_its_maker_removes_a_queue_exchange_or_binding,
};

on_both_databases!(
    a_route_has_a_bounded_number_of_queues,
    only_its_maker_removes_a_queue_exchange_or_binding,
    a_consumer_learns_that_its_queue_is_gone,
    a_purge_leaves_what_comes_later,
    lists_show_what_a_client_may_see,
    an_administrator_removes_everything,
    publishes_race_with_deletions,
    a_killed_server_finishes_a_deletion,
);

/// Connects as `owner`, who makes the queue `q`, the exchange `e` and a binding by `k`.
async fn owner(server: &Server) -> RawClient {
    let mut owner = RawClient::connect(server, "owner").await;
    owner.declare_and_bind("q", "e", "k").await;
    owner
}

/// The line that publishes messages to `owner`.
fn batch(ids: impl IntoIterator<Item = String>) -> String {
    let envelopes = ids
        .into_iter()
        .map(|id| EnvelopeText::modern(&id, "owner").to_string());
    format!(
        "publish_batch e k [{}]",
        envelopes.collect::<Vec<_>>().join(",")
    )
}

/// Reads the JSON of a reply.
async fn json(client: &mut RawClient, command: &str, prefix: &str) -> Value {
    client.send_line(command).await;
    serde_json::from_str(&client.expect_prefix(prefix).await).unwrap()
}

/// Lists the rejected messages of a client, each with the reason.
async fn rejected(client: &mut RawClient) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut after = Value::Null;
    loop {
        let request = match &after {
            Value::Null => "list_rejected".to_owned(),
            after => format!("list_rejected {{\"after\":{after}}}"),
        };
        let page = json(client, &request, "Rejected messages: ").await;
        for message in page["messages"].as_array().unwrap() {
            let id = message["message_id"].as_str().unwrap().to_owned();
            let before = all.insert(id.clone(), message["reason"].as_str().unwrap().to_owned());
            assert_eq!(before, None, "{id} was rejected twice");
            after = serde_json::json!({
                "rejected_time": message["rejected_time"], "message_id": id
            });
        }
        if page["more"] == false {
            return all;
        }
    }
}

/// Waits until this number of messages of a client is rejected.
async fn until_rejected(client: &mut RawClient, count: usize) -> BTreeMap<String, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = rejected(client).await;
        if found.len() >= count {
            assert_eq!(found.len(), count);
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{} of {count} are rejected",
            found.len()
        );
        sleep(Duration::from_millis(50)).await;
    }
}
