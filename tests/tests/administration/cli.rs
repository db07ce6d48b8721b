//! `ciphermq-cli connections` and `clients`.

use ciphermq_tests::{Backend, Cli, PATIENCE, RawClient, Server};

use crate::server;

fn command(server: &Server, arguments: &[&str]) -> Cli {
    let mut words = arguments.iter();
    Cli::new(words.next().unwrap())
        .args(words)
        .connecting(server, "ops")
}

async fn printed(server: &Server, arguments: &[&str]) -> String {
    command(server, arguments).run().await.success().stdout
}

#[tokio::test]
async fn connections_are_listed_and_closed() {
    let server = server(&Backend::Sqlite).await;
    let mut owner = RawClient::connect(&server, "owner").await;
    owner.ask("declare_queue q", "Queue declared").await;
    owner.ask("consume q", "Subscribed to queue").await;
    let columns = "connection,client,queues,in_flight,packed,tls,consumer";
    let list = [
        "connections",
        "list",
        "--client",
        "owner",
        "--columns",
        columns,
    ];
    assert_eq!(
        printed(&server, &list).await,
        "connection  client  queues  in_flight  packed  tls  consumer\n\
         1           owner   q       0          no      1.3  -\n"
    );
    let json = printed(&server, &["connections", "list", "--json"]).await;
    assert_eq!(json.lines().count(), 2, "{json}");
    let refused = command(&server, &["connections", "close", "1"]).run().await;
    assert!(refused.code(2).stderr.contains("Add --yes"));
    printed(&server, &["connections", "close", "1", "--yes"]).await;
    owner.expect_prefix("Error: connection_closed: ").await;
    let none = command(&server, &["connections", "close", "1", "--yes"])
        .run()
        .await
        .code(1);
    assert!(
        none.stderr.contains("there is no connection 1"),
        "{}",
        none.stderr
    );
    let other = Cli::new("connections")
        .arg("list")
        .connecting(&server, "owner");
    let refused = other.run().await.code(1);
    assert!(
        refused.stderr.contains("owner may not administer"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn clients_are_listed_blocked_and_unblocked() {
    let server = server(&Backend::Sqlite).await;
    let refused = command(&server, &["clients", "block", "owner"])
        .run()
        .await
        .code(2);
    assert!(refused.stderr.contains("Add --yes"), "{}", refused.stderr);
    printed(&server, &["clients", "block", "owner", "--yes"]).await;
    let columns = [
        "clients",
        "list",
        "--columns",
        "client,connections,blocked_by,quotas",
    ];
    assert_eq!(
        printed(&server, &columns).await,
        "client  connections  blocked_by  quotas\n\
         ops     1            -           connections 1/2000\n\
         owner   0            ops         -\n"
    );
    let shown = printed(&server, &["clients", "show", "owner", "--json"]).await;
    assert!(shown.contains("\"blocked\":{\"by\":\"ops\""), "{shown}");
    command(&server, &["clients", "show", "nobody"])
        .run()
        .await
        .code(4);
    let blocked = Cli::new("status")
        .connecting(&server, "owner")
        .run()
        .await
        .code(1);
    assert!(
        blocked.stderr.contains("has blocked the client 'owner'"),
        "{}",
        blocked.stderr
    );
    assert!(
        blocked.stderr.contains("clients unblock"),
        "{}",
        blocked.stderr
    );
    printed(&server, &["clients", "unblock", "owner"]).await;
    Cli::new("status")
        .connecting(&server, "owner")
        .run()
        .await
        .success();
}

/// A running receiver that is blocked ends with advice, and does not try to connect for ever.
#[tokio::test]
async fn a_receiver_that_is_blocked_stops() {
    let server = server(&Backend::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let keys = Cli::keygen()
        .args(["--out", "."])
        .current_dir(folder.path());
    keys.run().await.success();
    let mut receiver = Cli::new("receive")
        .args([
            "--private-key",
            "receiver_private.key",
            "--output",
            "out.jsonl",
        ])
        .connecting(&server, "owner")
        .current_dir(folder.path())
        .spawn();
    receiver.stderr.expect("Receiving from").await;
    let mut ops = RawClient::connect(&server, "ops").await;
    crate::until("it consumes", async || {
        let connections = crate::connections(&mut ops, "owner").await;
        connections
            .iter()
            .any(|connection| connection["queues"][0] == "owner_queue")
    })
    .await;
    ops.ask("block_client owner", "Client blocked").await;
    let status = receiver.ended(PATIENCE).await;
    let stderr = receiver.stderr.text();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("has blocked the client 'owner'"),
        "{stderr}"
    );
    assert!(stderr.contains("clients unblock"), "{stderr}");
}
