//! Environment variables.

use super::*;

#[test]
fn every_field_has_its_variable() {
    for (section, fields) in file::SECTIONS {
        for field in *fields {
            let name = section::variable(section, field);
            let base = match (*section, *field) {
                ("database", "url")
                | ("server" | "tls" | "logging" | "encryption" | "limits", _) => "",
                _ => "[database]\nuser = \"u\"\ndbname = \"d\"\nsslmode = \"verify-full\"\n",
            };
            // An invalid value, so that the error names the variable. A field that accepts any
            // text must change the configuration.
            match parse_with(base, &[(&name, "\u{1}")]) {
                Ok(config) => assert_ne!(
                    format!("{config:?}"),
                    format!("{:?}", parse(base).unwrap()),
                    "{name}"
                ),
                Err(error) => assert!(error.to_string().contains(&name), "{error}"),
            }
        }
    }
}

#[test]
fn variables_override_the_file_and_empty_ones_do_not() {
    let text = "[server]\naddress = \"127.0.0.1:1\"\n[limits]\nmax_prefetch = 7\n";
    let env = [
        ("CIPHERMQ_SERVER_ADDRESS", "[::1]:0"),
        ("CIPHERMQ_LIMITS_MAX_PREFETCH", ""),
        ("CIPHERMQ_LIMITS_STORAGE_WAIT", "250ms"),
        ("CIPHERMQ_LIMITS_DISK_RESERVE", "0"),
        ("CIPHERMQ_SERVER", "ignored: no field"),
        ("CIPHERMQ_OTHER_THING", "ignored: no section"),
        ("PATH", "/bin"),
    ];
    let config = parse_with(text, &env).unwrap();
    assert_eq!(config.server.address, "[::1]:0");
    assert_eq!(config.limits.max_prefetch, 7);
    assert_eq!(config.limits.storage_wait.as_millis(), 250);
    assert_eq!(config.limits.disk_reserve, 0);
}

#[test]
fn an_empty_variable_is_not_set_whatever_its_name() {
    for name in [
        "CIPHERMQ_SERVER_PORT",
        "CIPHERMQ_SERVER_SERVICE_HOST",
        "CIPHERMQ_LIMITS_MAX_LINE",
        "CIPHERMQ_DATABASE_URL",
        "CIPHERMQ_ENCRYPTION_AES_KEY",
        "CIPHERMQ_ACL_SENDER_CNS",
    ] {
        let config = parse_with("", &[(name, "")]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            format!("{config:?}"),
            format!("{:?}", parse("").unwrap()),
            "{name}"
        );
    }
}

#[test]
fn unknown_and_invalid_variables_are_named() {
    refused(
        "",
        &[("CIPHERMQ_LIMITS_MAX_LINE", "1")],
        &[
            "CIPHERMQ_LIMITS_MAX_LINE is unknown",
            "CIPHERMQ_LIMITS_MAX_LINE_BYTES",
        ],
    );
    refused(
        "",
        &[("CIPHERMQ_DATABASE_PASSWORD", "a\u{fffd}b")],
        &["CIPHERMQ_DATABASE_PASSWORD is not UTF-8"],
    );
    let error = refused(
        "",
        &[("CIPHERMQ_LIMITS_MAX_PREFETCH", "0")],
        &["environment variable CIPHERMQ_LIMITS_MAX_PREFETCH"],
    );
    assert!(
        error.contains("[limits] max_prefetch: `0` is too small"),
        "{error}"
    );
}

#[test]
fn service_variables_of_kubernetes_are_ignored() {
    let services = |server: &'static str| {
        [
            (format!("{server}_SERVICE_HOST"), "10.0.0.1"),
            (format!("{server}_SERVICE_PORT"), "5672"),
            (format!("{server}_PORT"), "tcp://10.0.0.1:5672"),
            (format!("{server}_PORT_5672_TCP"), "tcp://10.0.0.1:5672"),
            (format!("{server}_PORT_5672_TCP_PROTO"), "tcp"),
            (format!("{server}_PORT_5672_TCP_PORT"), "5672"),
            (format!("{server}_PORT_5672_TCP_ADDR"), "10.0.0.1"),
        ]
    };
    let file = "[database]\nuser = \"u\"\ndbname = \"d\"\nport = 7";
    for server in [
        "CIPHERMQ",
        "CIPHERMQ_SERVER",
        "CIPHERMQ_DATABASE",
        "CIPHERMQ_LOGGING_LEVEL",
    ] {
        let variables = services(server);
        let variables: Vec<(&str, &str)> = variables
            .iter()
            .map(|(name, value)| (&**name, *value))
            .collect();
        let config = parse_with(file, &variables).unwrap();
        assert_eq!(config.database.to_string(), "PostgreSQL u@localhost:7/d");
        assert_eq!(format!("{config:?}"), format!("{:?}", parse(file).unwrap()));
    }
    refused(
        "",
        &[("CIPHERMQ_SERVER_PORT", "5672")],
        &["CIPHERMQ_SERVER_PORT is unknown"],
    );
    refused(
        "",
        &[("CIPHERMQ_SERVER_SERVICE_HOST", "server")],
        &["CIPHERMQ_SERVER_SERVICE_HOST is unknown"],
    );
    let url = [("CIPHERMQ_DATABASE_PORT", "tcp://db:5432")];
    refused(file, &url, &["CIPHERMQ_DATABASE_PORT", "from 1 to 65535"]);
}
