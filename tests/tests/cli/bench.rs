//! The benchmark with few messages: its report is complete and consistent.

use ciphermq_tests::{Backend, Cli};
use serde_json::Value;

use ciphermq_tests::workspace::Workspace;

fn report(text: &str) -> Value {
    let report: Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let latency = &report["latency_ms"];
    let at = |name: &str| {
        latency[name]
            .as_f64()
            .unwrap_or_else(|| panic!("no {name}: {report}"))
    };
    assert!(
        at("min") <= at("p50") && at("p50") <= at("p99"),
        "{latency}"
    );
    assert!(
        at("p99") <= at("p999") && at("p999") <= at("max"),
        "{latency}"
    );
    let (rate, seconds) = (&report["messages_per_second"], &report["seconds"]);
    let messages = rate.as_f64().unwrap() * seconds.as_f64().unwrap();
    assert!(
        (messages - report["messages"].as_f64().unwrap()).abs() < 1.0,
        "{report}"
    );
    report
}

pub(crate) async fn a_spawned_server(backend: Backend) {
    let database = match &backend {
        Backend::Sqlite => "sqlite".to_owned(),
        Backend::Postgres(postgres) => postgres.url(&postgres.create_database().await),
    };
    // Repeatedly: leftovers of one run in the database must not affect the next.
    for mode in ["end-to-end", "publish", "drain"] {
        let out = Cli::new("bench")
            .args([
                "--spawn",
                &database,
                "--messages",
                "5000",
                "--senders",
                "2",
                "--receivers",
                "2",
            ])
            .args(["--json", "--mode", mode])
            .run()
            .await
            .success();
        let report = report(&out.stdout);
        assert_eq!(
            (report["messages"].as_u64(), report["mode"].as_str()),
            (Some(5000), Some(mode))
        );
        assert!(report["server_cpu_seconds"].as_f64().unwrap() > 0.0);
        assert!(report["server_peak_memory_bytes"].as_u64().unwrap() > 1_000_000);
    }
}

/// Any client can measure a running server, at a given rate; no message is left afterwards.
pub(crate) async fn a_running_server(backend: Backend) {
    let server = backend.server().await;
    let workspace = Workspace::named(&server, "bench", "bench");
    let pid = server.process().pid().unwrap().as_raw_nonzero().to_string();
    let out = workspace
        .cli("bench")
        .args([
            "--messages",
            "300",
            "--rate",
            "1000",
            "--window",
            "5",
            "--batch",
            "5",
            "--json",
        ])
        .args(["--server-pid", &pid])
        .args([
            "--cert",
            "certs/receiver_1/client.crt",
            "--key",
            "certs/receiver_1/client.key",
        ])
        .run()
        .await
        .success();
    let report = report(&out.stdout);
    let rate = report["messages_per_second"].as_f64().unwrap();
    assert!(rate < 1100.0, "faster than asked for: {rate}");
    assert!(report["server_cpu_seconds"].as_f64().unwrap() > 0.0);
    let database = server.database().await;
    assert_eq!(database.number("SELECT count(*) FROM messages").await, 0);
    assert_eq!(
        database
            .number(ciphermq_tests::Database::ACKNOWLEDGED)
            .await,
        301,
        "and one that made the session"
    );
}
