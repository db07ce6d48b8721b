//! Quotas of clients, over a raw TLS socket, with the SDK and the command line, on both databases.

mod messages;
mod rate;
mod topology;

use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, EnvelopeText, RawClient, Server, on_both_databases};

use messages::{
    a_sender_is_refused_while_as_much_waits_as_may, old_rejected_messages_are_removed,
    one_receiver_stops_only_messages_to_itself, rejected_messages_count_for_their_sender,
    waiting_bytes_are_bounded,
};
use rate::{the_command_line_shows_both_well, the_sdk_slows_down_and_loses_nothing};
use topology::{
    connections_and_consumers_are_bounded, each_quota_refuses_with_its_name,
    what_is_removed_makes_room,
};

on_both_databases!(
    each_quota_refuses_with_its_name,
    what_is_removed_makes_room,
    connections_and_consumers_are_bounded,
    a_sender_is_refused_while_as_much_waits_as_may,
    waiting_bytes_are_bounded,
    rejected_messages_count_for_their_sender,
    one_receiver_stops_only_messages_to_itself,
    old_rejected_messages_are_removed,
    the_sdk_slows_down_and_loses_nothing,
    the_command_line_shows_both_well,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_most_of_a_short_disk_is_refused_first() {
    messages::who_holds_most_of_a_short_disk_is_refused_first().await;
}

/// The settings of `[limits.client]`, or of an element of `[[limits.clients]]`.
fn limits(text: &str) -> toml::Value {
    text.parse::<toml::Table>().unwrap().into()
}

/// Options for a server with these limits of each client.
async fn with_limits(backend: &Backend, text: &str) -> Options {
    backend
        .options()
        .await
        .set("limits", "client", limits(text))
}

/// Starts a server with these limits of each client.
async fn server(backend: &Backend, text: &str) -> Server {
    Server::start(with_limits(backend, text).await).await
}

/// Sends a command that is refused by a quota; returns the limit that the error names.
async fn exceeded(client: &mut RawClient, command: &str, quota: &str) -> u64 {
    client.send_line(command).await;
    let prefix = format!("Error: quota_exceeded: limits.client.{quota} is ");
    let rest = client.expect_prefix(&prefix).await;
    rest.split_once(' ').unwrap().0.parse().unwrap()
}

/// The line that publishes messages to `receiver`.
fn batch(ids: &[&str]) -> String {
    batch_to("receiver", ids)
}

/// The line that publishes messages to a client.
fn batch_to(receiver: &str, ids: &[&str]) -> String {
    let envelopes: Vec<String> = ids
        .iter()
        .map(|id| EnvelopeText::modern(id, receiver).to_string())
        .collect();
    format!("publish_batch e k [{}]", envelopes.join(","))
}
