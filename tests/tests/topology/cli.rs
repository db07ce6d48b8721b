//! `queues`, `exchanges` and `bindings` of the command line.

use ciphermq_tests::{Backend, Cli, RawClient, Server};

use super::until_rejected;

fn command(server: &Server, arguments: &[&str]) -> Cli {
    let mut words = arguments.iter();
    Cli::new(words.next().unwrap())
        .args(words)
        .connecting(server, "owner")
}

/// Runs a command that succeeds, and returns what it prints.
async fn printed(server: &Server, arguments: &[&str]) -> String {
    command(server, arguments).run().await.success().stdout
}

#[tokio::test]
async fn the_command_line_makes_lists_and_removes() {
    let server = Backend::Sqlite.server().await;
    for arguments in [
        &["queues", "declare", "q"][..],
        &["exchanges", "declare", "e"],
        &["bindings", "bind", "q", "e", "k"],
    ] {
        printed(&server, arguments).await;
    }
    let mut sender = RawClient::connect(&server, "sender").await;
    for id in ["m", "n"] {
        let envelope = ciphermq_tests::EnvelopeText::modern(id, "owner");
        sender
            .ask(&format!("publish e k {envelope}"), &format!("ACK {id}"))
            .await;
    }
    assert_eq!(
        printed(&server, &["queues", "list"]).await,
        "queue  made_by  bindings  consumers  messages\nq      owner    1         0          2\n"
    );
    assert_eq!(
        printed(&server, &["queues", "list", "--columns", "messages,queue"]).await,
        "messages  queue\n2         q\n"
    );
    assert_eq!(
        printed(&server, &["queues", "show", "q", "--json"]).await,
        "{\"queue\":\"q\",\"made_by\":\"owner\",\"bindings\":1,\"consumers\":0,\"messages\":2}\n"
    );
    assert_eq!(
        printed(&server, &["exchanges", "show", "e"]).await,
        "exchange  made_by  bindings\ne         owner    1\n"
    );
    assert_eq!(
        printed(
            &server,
            &["bindings", "list", "--exchange", "e", "--queue", "q"]
        )
        .await,
        "exchange  routing_key  queue  made_by\ne         k            q      owner\n"
    );
    command(&server, &["queues", "show", "none"])
        .run()
        .await
        .code(4);
    // Nobody can be asked here.
    for arguments in [
        &["queues", "delete", "q"][..],
        &["queues", "purge", "q"],
        &["exchanges", "delete", "e"],
        &["bindings", "unbind", "q", "e", "k"],
    ] {
        let refused = command(&server, arguments).run().await.code(2);
        assert!(refused.stderr.contains("Add --yes"), "{}", refused.stderr);
    }
    let refused = ["queues", "delete", "q", "--if-empty", "--yes"];
    let refused = command(&server, &refused).run().await.code(1);
    assert!(
        refused.stderr.contains("is not empty"),
        "{}",
        refused.stderr
    );
    printed(&server, &["queues", "purge", "q", "--yes"]).await;
    let mut owner = RawClient::connect(&server, "owner").await;
    until_rejected(&mut owner, 2).await;
    printed(&server, &["bindings", "unbind", "q", "e", "k", "--yes"]).await;
    printed(
        &server,
        &[
            "queues",
            "delete",
            "q",
            "--if-empty",
            "--if-unused",
            "--yes",
        ],
    )
    .await;
    printed(
        &server,
        &["exchanges", "delete", "e", "--if-unused", "--yes"],
    )
    .await;
    assert_eq!(printed(&server, &["queues", "list", "--json"]).await, "");
    assert_eq!(
        printed(&server, &["exchanges", "list", "--columns", "exchange"]).await,
        "exchange\n"
    );
}
