//! Administration with the real programs: connections, blocked clients, and rules that are replaced
//! while the server runs.

mod blocking;
mod cli;
mod connections;
mod reload_command;
mod reloading;
mod sdk;

use ciphermq_tests::server::Options;
use ciphermq_tests::{Backend, PATIENCE, RawClient, Server, on_both_databases};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use blocking::{a_block_survives_a_restart_and_messages_wait, a_blocked_client_is_ended_at_once};
use reload_command::a_reload_while_messages_flow_loses_and_doubles_nothing;
use reloading::rules_are_replaced_while_clients_are_connected;

on_both_databases!(
    a_blocked_client_is_ended_at_once,
    a_block_survives_a_restart_and_messages_wait,
    rules_are_replaced_while_clients_are_connected,
    a_reload_while_messages_flow_loses_and_doubles_nothing,
);

/// Starts a server whose administrator is `ops`.
async fn server(backend: &Backend) -> Server {
    Server::start(administered(backend.options().await)).await
}

fn administered(options: Options) -> Options {
    options.set("authorization", "administrators", vec!["ops"])
}

/// Reads the JSON of a reply.
async fn json(client: &mut RawClient, command: &str, prefix: &str) -> Value {
    client.send_line(command).await;
    serde_json::from_str(&client.expect_prefix(prefix).await).unwrap()
}

/// Lists the connections of a client.
async fn connections(ops: &mut RawClient, client: &str) -> Vec<Value> {
    let command = format!("list_connections {{\"client\":\"{client}\"}}");
    let page = json(ops, &command, "Connections: ").await;
    page["connections"].as_array().unwrap().clone()
}

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}
