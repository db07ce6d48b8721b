//! `[limits.client]` and `[[limits.clients]]`.

use super::*;

fn of<'a>(config: &'a Config, client: &str) -> &'a ClientLimits {
    config.quotas.of(&client.parse().unwrap())
}

#[test]
fn connections_have_an_older_name() {
    let config = parse("[limits]\nmax_connections_per_client = 7").unwrap();
    assert_eq!(of(&config, "c").connections, 7);
    let both = "[limits]\nmax_connections_per_client = 7\n[limits.client]\nconnections = 0";
    assert_eq!(of(&parse(both).unwrap(), "c").connections, 0);
    assert_eq!(of(&parse("").unwrap(), "c"), &ClientLimits::default());
}

#[test]
fn the_first_entry_that_names_a_client_decides() {
    let text = r#"
        [limits.client]
        queues = 5
        waiting_bytes = "1MiB"
        rejected_age = "7days"
        [[limits.clients]]
        clients = ["sensor-1", "gate?"]
        queues = 6
        [[limits.clients]]
        clients = ["sensor-*"]
        waiting_bytes = 0
        rejected_age = "forever"
    "#;
    let config = parse_with(text, &[("CIPHERMQ_LIMITS_CLIENT_EXCHANGES", "3")]).unwrap();
    let (one, two) = (of(&config, "sensor-1"), of(&config, "sensor-2"));
    assert_eq!(
        (one.queues, one.waiting_bytes, one.exchanges),
        (6, 1 << 20, 3)
    );
    assert_eq!((two.queues, two.waiting_bytes, two.exchanges), (5, 0, 3));
    assert_eq!(one.rejected_age, Some(std::time::Duration::from_hours(168)));
    assert_eq!(two.rejected_age, None);
    assert_eq!(of(&config, "gates").queues, 6);
    assert_eq!(of(&config, "gate").queues, 5);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    refused(
        "[limits.client]\nqueues = -1",
        &[],
        &["config.toml, line 2", "[limits.client] queues: `-1`"],
    );
    let env = [("CIPHERMQ_LIMITS_CLIENT_QUEUE", "1")];
    refused(
        "",
        &env,
        &[
            "CIPHERMQ_LIMITS_CLIENT_QUEUE is unknown",
            "CIPHERMQ_LIMITS_CLIENT_QUEUES",
        ],
    );
    let entry = "[[limits.clients]]\n";
    for (fields, problem) in [
        ("queues = 1", "it names no clients"),
        ("clients = []\nqueues = 1", "it names no clients"),
        ("clients = [\"a\"]", "it sets no limit"),
        ("clients = [\"[a]\"]\nqueues = 1", "`[a]`"),
        (
            "clients = [\"a\"]\nqueues = \"x\"",
            "[limits.clients] queues: `x`",
        ),
        (
            "clients = [\"a\"]\npublish_burst = \"1ms\"",
            "[limits.clients] publish_burst: `1ms` is too small",
        ),
    ] {
        refused(&format!("{entry}{fields}"), &[], &[problem]);
    }
    let unknown = parse(&format!("{entry}clients = [\"a\"]\nqueue = 1")).unwrap_err();
    assert!(unknown.to_string().contains("queue"), "{unknown}");
}
