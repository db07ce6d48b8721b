//! Environment variables, ports in use, and configurations of older servers.

use ciphermq_tests::server::Options;
use ciphermq_tests::{RawClient, Server};

/// The environment variables that Kubernetes sets for a service.
fn services(name: &str) -> Vec<(String, String)> {
    [
        ("SERVICE_HOST", "10.0.0.1"),
        ("SERVICE_PORT", "5672"),
        ("SERVICE_PORT_MQ", "5672"),
        ("PORT", "tcp://10.0.0.1:5672"),
        ("PORT_5672_TCP", "tcp://10.0.0.1:5672"),
        ("PORT_5672_TCP_ADDR", "10.0.0.1"),
        ("PORT_5672_TCP_PORT", "5672"),
        ("PORT_5672_TCP_PROTO", "tcp"),
    ]
    .into_iter()
    .map(|(end, value)| (format!("{name}_{end}"), value.to_owned()))
    .collect()
}

#[tokio::test]
async fn variables_of_kubernetes_services_are_not_settings() {
    let names = [
        "CIPHERMQ",
        "CIPHERMQ_SERVER",
        "CIPHERMQ_DATABASE",
        "CIPHERMQ_TLS_KEY",
    ];
    let mut options = Options::sqlite();
    options.environment = names.into_iter().flat_map(services).collect();
    Server::start(options).await.terminate().await;
    for (name, value) in [
        ("CIPHERMQ_SERVER_PORT", "5672"),
        ("CIPHERMQ_SERVER_SERVICE_HOST", "mq.example"),
        ("CIPHERMQ_TLS_KEY", "server.key"),
    ] {
        let mut options = Options::sqlite();
        options.environment = vec![(name.to_owned(), value.to_owned())];
        let refusal = Server::refused(options).await;
        assert!(
            refusal.stderr.contains(&format!("{name} is unknown")),
            "{}",
            refusal.stderr
        );
    }
}

/// A port in use is detected before anything is created, and reported once.
#[tokio::test]
async fn a_port_in_use_leaves_nothing_behind() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let mut server = Server::prepare(
        Options::sqlite()
            .set("server", "address", address.as_str())
            .without("database", "url"),
    );
    let refusal = server.launch().await.unwrap_err();
    assert_eq!(refusal.status.code(), Some(1));
    assert_eq!(
        refusal.stderr.matches("cannot listen on").count(),
        1,
        "{}",
        refusal.stderr
    );
    assert!(
        refusal.stderr.contains("choose another port"),
        "{}",
        refusal.stderr
    );
    assert!(!server.folder().join("data").exists());
    assert!(!server.folder().join("logs").exists());
    // If an earlier start has created the log, it also contains the error.
    let log = server.folder().join("logs/server_error.log");
    std::fs::create_dir(server.folder().join("logs")).unwrap();
    std::fs::write(&log, "").unwrap();
    let refusal = server.launch().await.unwrap_err();
    assert_eq!(refusal.stderr.matches("cannot listen on").count(), 1);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("cannot listen on"), "{text}");
}

/// Missing certificates are detected before anything is created.
#[tokio::test]
async fn a_start_without_certificates_leaves_nothing_behind() {
    let mut server = Server::prepare(Options::sqlite().set("tls", "cert_path", "nowhere.crt"));
    let refusal = server.launch().await.unwrap_err();
    assert!(refusal.stderr.contains("nowhere.crt"), "{}", refusal.stderr);
    for folder in ["data", "logs"] {
        assert!(!server.folder().join(folder).exists(), "{folder}");
    }
}

/// A server starts with the configuration of an older one, and warns about what has no effect.
#[tokio::test]
async fn sections_of_older_servers_without_effect_are_reported() {
    let options = Options::sqlite()
        .set("logging", "level", "info,ciphermq=debug")
        .set("logging", "rotation", "")
        .set("tls", "ca_cert_path", "")
        .set("acl", "sender_cns", vec![""])
        .set("admin", "address", "127.0.0.1:9090")
        .set("rate_limit", "global_rps", 1)
        .set("performance", "whatever", true);
    // An empty path means its default, which is relative to the server's folder.
    let mut server = Server::prepare(options);
    let certs = server.folder().join("certs");
    std::fs::create_dir(&certs).unwrap();
    std::fs::copy(server.pki().ca(), certs.join("ca.crt")).unwrap();
    if let Err(refusal) = server.launch().await {
        panic!("{}", refusal.stderr);
    }
    let mut client = RawClient::connect(&server, "client").await;
    client.ask("declare_queue q", "Queue declared").await;
    drop(client);
    let console = server.console().text();
    for section in ["acl", "admin", "rate_limit", "performance"] {
        assert!(
            console.contains(&format!("[{section}] has no effect yet")),
            "{section}: {console}"
        );
    }
    assert!(
        console.contains("`info,ciphermq=debug` is a filter"),
        "{console}"
    );
    server.terminate().await;
}

/// Problems in the configuration are reported at every log level.
#[tokio::test]
async fn warnings_about_the_configuration_are_reported_at_every_level() {
    for level in ["error", "off"] {
        let mut options =
            Options::sqlite()
                .set("logging", "level", level)
                .set("acl", "sender_cns", vec![""]);
        let variable = "CIPHERMQ_ADMIN_ADDRESS";
        options.environment = vec![
            (variable.to_owned(), "127.0.0.1:9090".to_owned()),
            ("CIPHERMQ_SERVER_PORT".to_owned(), String::new()),
        ];
        let mut server = Server::start(options).await;
        let mut expected = vec![
            "[acl] has no effect yet".to_owned(),
            format!("environment variable {variable}: [admin] has no effect yet"),
        ];
        if level == "off" {
            expected.push("`off` is a filter".to_owned());
        }
        let console = server.console().text();
        server.terminate().await;
        let log = server.folder().join("logs/server_error.log");
        let log = std::fs::read_to_string(log).unwrap();
        for words in expected {
            assert!(console.contains(&words), "{level}: {words}: {console}");
            assert!(log.contains(&words), "{level}: {words}: {log}");
        }
    }
}
