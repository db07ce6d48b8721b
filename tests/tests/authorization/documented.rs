//! The examples of docs/authorization.md: who may do what, and who may not.

use ciphermq_tests::server::Options;
use ciphermq_tests::{Cli, RawClient, Server};

use crate::{Clients, DEFAULT, rule, with_rules};

const DOCUMENT: &str = include_str!("../../../docs/authorization.md");

/// Starts a server with the configuration below a heading.
async fn server(heading: &str) -> Server {
    let (_, section) = DOCUMENT
        .split_once(&format!("### {heading}\n"))
        .expect("the document has this heading");
    let (_, block) = section.split_once("```toml\n").expect("a configuration");
    let (config, _) = block.split_once("```").expect("its end");
    Server::start(with_rules(Options::sqlite(), config)).await
}

#[tokio::test]
async fn sensors_and_an_archive() {
    let mut server = server("Sensors and an archive").await;
    let mut operator = RawClient::connect(&server, "ops-1").await;
    operator
        .declare_and_bind("archive_queue", "readings", "archive_key")
        .await;
    operator
        .declare_and_bind("mirror_queue", "readings", "mirror_key")
        .await;

    // The programs get along with the rules.
    let folder = tempfile::tempdir().unwrap();
    let cli = |command, client_id| {
        let cli = Cli::new(command).connecting(&server, client_id);
        cli.current_dir(folder.path())
    };
    let keygen = Cli::keygen().args(["--out", "keys"]);
    keygen.current_dir(folder.path()).run().await.success();
    let key = ["--private-key", "keys/receiver_private.key"];
    let register = cli("register-key", "archive").args(key);
    register.run().await.success();
    let route = [
        "--to",
        "archive",
        "--exchange",
        "readings",
        "--routing-key",
        "archive_key",
    ];
    let send = |client_id| {
        cli("send", client_id)
            .args(route)
            .args(["--message", "21.5"])
    };
    send("sensor-7").run().await.success();
    let refused = send("visitor").run().await;
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains(DEFAULT), "{}", refused.stderr);
    let fetch = cli("fetch", "archive").args(key);
    let fetch = fetch.args(["--queue", "archive_queue", "--ack"]);
    let fetched = fetch.run().await.success();
    assert!(fetched.stdout.contains("21.5"), "{}", fetched.stdout);

    let mut clients = Clients::of(&server);
    for receiver in ["archive", "mirror-of-sensor-7"] {
        let publish = clients.publish("readings", "archive_key", receiver);
        clients.may("sensor-7", &publish).await;
        let get_key = format!("get_signed_key {receiver}");
        clients.may("sensor-7", &get_key).await;
    }
    let refused = [
        clients.publish("readings", "archive_key", "mirror-of-sensor-8"),
        clients.publish("readings", "archive_key", "sensor-8"),
        clients.publish("readings", "other_key", "archive"),
        clients.publish("other", "archive_key", "archive"),
        "consume archive_queue".to_owned(),
        "fetch archive_queue".to_owned(),
        "register_public_key NV1MjXk2mLpcvYA9BriqgCLrdrS0vzBubou+25FreVQ=".to_owned(),
        "get_public_key sensor-8".to_owned(),
        "declare_queue q".to_owned(),
    ];
    let refused = refused.each_ref().map(String::as_str);
    clients.may_not("sensor-7", DEFAULT, &refused).await;

    clients.may("archive", "fetch archive_queue").await;
    clients.may("archive", "fetch mirror_queue").await;
    clients.may("archive", "get_certificate sensor-7").await;
    let publish = clients.publish("readings", "archive_key", "archive");
    let refused = ["consume other_queue", "declare_exchange e", &publish];
    clients.may_not("archive", DEFAULT, &refused).await;
    let anything = [
        "fetch archive_queue",
        "list_rejected",
        "get_key archive",
        &publish,
    ];
    clients.may_not("visitor", DEFAULT, &anything).await;
    server.terminate().await;
}

#[tokio::test]
async fn departments_of_a_hospital() {
    let mut server = server("Departments of a hospital").await;
    let mut clients = Clients::of(&server);
    for (member, exchange) in [
        ("cardiology.meier", "cardiology"),
        ("cardiology.student-3", "cardiology"),
        ("radiology.rossi", "radiology"),
        ("radiology.desk", "referrals"),
    ] {
        let mut client = RawClient::connect(&server, member).await;
        let (queue, routing_key) = (format!("{member}_queue"), format!("{member}_key"));
        client
            .declare_and_bind(&queue, exchange, &routing_key)
            .await;
        client
            .ask(&format!("consume {queue}"), "Subscribed to queue")
            .await;
    }
    let within = ["cardiology", "cardiology.meier_key", "cardiology.meier"];
    for member in ["cardiology.meier", "cardiology.student-3"] {
        let [exchange, routing_key, receiver] = within;
        let publish = clients.publish(exchange, routing_key, receiver);
        clients.may(member, &publish).await;
    }
    let referral = clients.publish("referrals", "radiology.desk_key", "radiology.desk");
    clients.may("cardiology.meier", &referral).await;
    let students = rule("students write no referrals");
    clients
        .may_not("cardiology.student-3", &students, &[&referral])
        .await;

    let refused = [
        clients.publish("cardiology", "k", "radiology.rossi"),
        clients.publish("radiology", "radiology.rossi_key", "radiology.rossi"),
        clients.publish("referrals", "radiology.rossi_key", "radiology.rossi"),
        "consume radiology.rossi_queue".to_owned(),
        "declare_queue wards".to_owned(),
        "bind cardiology.meier_queue cardiology radiology.rossi_key".to_owned(),
        "bind radiology.rossi_queue cardiology cardiology.meier_key".to_owned(),
    ];
    let refused = refused.each_ref().map(String::as_str);
    clients.may_not("cardiology.meier", DEFAULT, &refused).await;
    let anything = [
        "declare_queue billing_queue",
        "get_key cardiology.meier",
        &referral,
    ];
    clients.may_not("billing", DEFAULT, &anything).await;
    clients.may("it.night", "declare_exchange anything").await;
    server.terminate().await;
}

#[tokio::test]
async fn companies_among_each_other() {
    let mut server = server("Companies among each other").await;
    let mut operator = RawClient::connect(&server, "operator").await;
    for company in ["acme", "globex"] {
        let (queue, routing_key) = (format!("{company}.gateway_queue"), format!("to-{company}"));
        operator
            .declare_and_bind(&queue, "acme-globex", &routing_key)
            .await;
    }
    let mut clients = Clients::of(&server);
    let to_globex = clients.publish("acme-globex", "to-globex", "globex.gateway");
    let to_acme = clients.publish("acme-globex", "to-acme", "acme.gateway");
    clients.may("acme.orders", &to_globex).await;
    clients
        .may("acme.orders", "get_signed_key globex.gateway")
        .await;
    let to_orders = clients.publish("acme-globex", "to-globex", "globex.orders");
    let refused = [
        &to_acme,
        &to_orders,
        "consume acme.gateway_queue",
        "get_signed_key acme.gateway",
        "list_waiting_keys",
    ];
    clients.may_not("acme.orders", DEFAULT, &refused).await;

    let gateway = "globex.gateway";
    clients.may(gateway, "consume globex.gateway_queue").await;
    clients.may(gateway, "get_certificate acme.orders").await;
    clients.may(gateway, "list_waiting_keys").await;
    clients.may(gateway, &to_acme).await;
    let refused = [
        "consume acme.gateway_queue",
        "get_certificate initech.gateway",
    ];
    clients.may_not(gateway, DEFAULT, &refused).await;

    clients.may("acme.test-1", "get_key globex.gateway").await;
    let at_home = rule("test systems stay at home");
    let refused = [&to_globex, "consume acme.gateway_queue", "ack m1"];
    clients.may_not("acme.test-1", &at_home, &refused).await;
    let anything = [
        &to_globex,
        "consume initech.gateway_queue",
        "get_key globex.gateway",
    ];
    clients.may_not("initech.gateway", DEFAULT, &anything).await;
    server.terminate().await;
}

/// Every configuration of the document is in a test above.
#[test]
fn every_example_is_played() {
    assert_eq!(DOCUMENT.matches("```toml\n").count(), 3);
}
