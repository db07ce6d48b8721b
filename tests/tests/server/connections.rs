//! Connections beyond the limits: of an address without a certificate, of one client, and of the
//! operating system.

use std::io::ErrorKind;
use std::process::Command;
use std::time::Duration;

use ciphermq_tests::server::Options;
use ciphermq_tests::{PATIENCE, RawClient, Server, raw::Tls};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// Opens connections that never begin their handshakes.
async fn idle(server: &Server, count: usize) -> Vec<TcpStream> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(TcpStream::connect(server.address()).await.unwrap());
    }
    sockets
}

/// Whether the server has closed the connection, or does so now.
async fn is_closed(socket: &mut TcpStream) -> bool {
    let mut byte = [0];
    let read = tokio::time::timeout(PATIENCE, socket.read(&mut byte)).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

/// Whether the server keeps the connection open although it has nothing to say.
fn is_open(socket: &TcpStream) -> bool {
    matches!(socket.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn identity(server: &Server, client_id: &str) -> Tls {
    Tls::trusting(&server.pki().ca()).identity(server.pki().client(client_id))
}

/// Connects, and expects to be refused for this limit.
async fn expect_refused(server: &Server, client_id: &str, limit: &str) {
    let tls = identity(server, client_id);
    let mut client = RawClient::handshake(server.address(), &tls).await.unwrap();
    let reason = client.expect_prefix("Error: overloaded: ").await;
    assert!(reason.contains(limit), "{reason}");
    client.expect_closed().await;
}

#[tokio::test]
async fn idle_connections_of_one_address_keep_nobody_out() {
    let options = Options::sqlite()
        .set("limits", "max_handshakes", 50)
        .set("limits", "max_handshakes_per_address", 40)
        // Nothing is freed by waiting.
        .set("limits", "handshake_timeout", "10m");
    let server = Server::start(options).await;
    let mut attackers = idle(&server, 60).await;
    // The twenty oldest have given way, and nobody else.
    for socket in &mut attackers[..20] {
        assert!(is_closed(socket).await);
    }
    assert!(attackers[20..].iter().all(is_open));
    // Honest clients are served, although they share the address with the attackers.
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = RawClient::connect(&server, "honest").await;
        client.ask("ping", "PONG").await;
        clients.push(client);
    }
    server.console().expect("gave way to a newer one").await;
    for client in &mut clients {
        client.ask("ping", "PONG").await;
    }
}

#[tokio::test]
async fn handshakes_do_not_count_as_connections() {
    let options = Options::sqlite().set("limits", "max_connections", 2);
    let server = Server::start(options).await;
    let idle = idle(&server, 20).await;
    let mut one = RawClient::connect(&server, "one").await;
    let mut two = RawClient::connect(&server, "two").await;
    one.ask("ping", "PONG").await;
    two.ask("ping", "PONG").await;
    assert!(idle.iter().all(is_open));
}

#[tokio::test]
async fn one_client_cannot_take_all_connections() {
    let options = Options::sqlite().set("limits", "max_connections_per_client", 2);
    let server = Server::start(options).await;
    let mut one = RawClient::connect(&server, "greedy").await;
    let mut two = RawClient::connect(&server, "greedy").await;
    one.ask("ping", "PONG").await;
    two.ask("ping", "PONG").await;
    expect_refused(&server, "greedy", "limits.max_connections_per_client").await;
    let mut other = RawClient::connect(&server, "other").await;
    other.ask("ping", "PONG").await;
    one.end().await;
    server.console().expect("Client disconnected").await;
    let mut again = RawClient::connect(&server, "greedy").await;
    again.ask("ping", "PONG").await;
}

#[tokio::test]
async fn an_address_has_a_limit_if_one_is_set() {
    let options = Options::sqlite().set("limits", "max_connections_per_address", 2);
    let server = Server::start(options).await;
    let mut one = RawClient::connect(&server, "one").await;
    let mut two = RawClient::connect(&server, "two").await;
    one.ask("ping", "PONG").await;
    two.ask("ping", "PONG").await;
    expect_refused(&server, "three", "limits.max_connections_per_address").await;
}

#[tokio::test]
async fn administrators_connect_when_all_connections_are_taken() {
    let options = Options::sqlite()
        .set("limits", "max_connections", 2)
        .set("limits", "reserved_connections", 1)
        .set("authorization", "administrators", vec!["ops-*"]);
    let server = Server::start(options).await;
    let mut one = RawClient::connect(&server, "one").await;
    let mut two = RawClient::connect(&server, "two").await;
    one.ask("ping", "PONG").await;
    two.ask("ping", "PONG").await;
    expect_refused(&server, "three", "limits.max_connections is reached").await;
    let mut administrator = RawClient::connect(&server, "ops-1").await;
    administrator.ask("ping", "PONG").await;
    expect_refused(&server, "ops-2", "limits.max_connections is reached").await;
    expect_refused(&server, "three", "limits.max_connections is reached").await;
}

/// Sets the running server's limit of open files.
fn limit_open_files(server: &Server, limit: usize) {
    let pid = server.process().pid().unwrap().as_raw_nonzero();
    let status = Command::new("prlimit")
        .args([format!("--pid={pid}"), format!("--nofile={limit}:")])
        .status()
        .unwrap();
    assert!(status.success());
}

#[tokio::test]
async fn running_out_of_file_descriptors_is_survived_and_said_once() {
    let mut server = Server::start(Options::sqlite()).await;
    let mut early = RawClient::connect(&server, "early").await;
    early.declare_and_bind("q", "e", "k").await;
    let pid = server.process().pid().unwrap().as_raw_nonzero();
    let folder = format!("/proc/{pid}/fd");
    let open = std::fs::read_dir(folder).unwrap().count();
    limit_open_files(&server, open + 3);
    let sockets = idle(&server, 40).await;
    let line = server.console().expect("Cannot accept connections").await;
    assert!(line.contains("ulimit -n"), "{line}");
    // Who is connected is served, and idle handshakes give way to those who want to be.
    early.ask("ping", "PONG").await;
    let mut late = RawClient::connect(&server, "late").await;
    late.ask("ping", "PONG").await;
    drop(sockets);
    limit_open_files(&server, open + 1000);
    let mut after = RawClient::connect(&server, "after").await;
    after.ask("ping", "PONG").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let console = server.terminate().await;
    assert_eq!(
        console.matches("Cannot accept connections").count(),
        1,
        "{console}"
    );
}

#[tokio::test]
async fn too_few_file_descriptors_are_reported_at_the_start() {
    let wrapper = ["prlimit", "--nofile=100:300", "--"].map(str::to_owned);
    let options = Options::sqlite().under(wrapper.to_vec());
    let server = Server::start(options).await;
    // The soft limit was raised to the hard one, which does not suffice.
    let line = server.console().expect("need 12136 open files").await;
    assert!(line.contains("allows this process 300"), "{line}");
    assert!(line.contains("LimitNOFILE="), "{line}");
    let mut client = RawClient::connect(&server, "client").await;
    client.ask("ping", "PONG").await;
}
