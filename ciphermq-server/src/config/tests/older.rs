//! Files and variables of older servers.

use super::*;

#[test]
fn an_older_servers_file_is_accepted_unchanged() {
    let config = parse(
        r#"
        [server]
        address = "127.0.0.1:5672"
        connection_type = "tls"
        [tls]
        cert_path = "certs/server.crt"
        key_path = "certs/server.key"
        ca_cert_path = "certs/ca.crt"
        [logging]
        level = "INFO"
        rotation = "Daily"
        max_size_mb = 100
        [database]
        host = "localhost"
        port = 5432
        user = "mq_user"
        password = "p@ss/w:rd#?%41"
        dbname = "mq"
        [encryption]
        algorithm = "x25519_chacha20_poly1305"
        aes_key = "YzJhMTdlZjE5N2I0NDZjNmE0NWU4YmRhN2Q0MGYxMmI="
        "#,
    )
    .unwrap();
    assert_eq!(config.encryption.algorithm, Algorithm::Aes256Gcm);
    assert!(matches!(config.encryption.key, KeySource::Inline(_)));
    let Database::Postgres(Postgres {
        target:
            Target::Fields {
                host,
                port,
                user,
                password,
                dbname,
            },
        sslmode,
        ..
    }) = &config.database
    else {
        panic!("{:?}", config.database);
    };
    assert_eq!(
        (host.as_str(), *port, user.as_str(), dbname.as_str()),
        ("localhost", 5432, "mq_user", "mq")
    );
    assert_eq!(password.as_ref().unwrap().expose(), "p@ss/w:rd#?%41");
    assert_eq!(*sslmode, None);
    assert_eq!(
        config.database.to_string(),
        "PostgreSQL mq_user@localhost:5432/mq"
    );
}

#[test]
fn variables_of_older_sections_cause_warnings_like_the_sections() {
    let variables = [
        ("CIPHERMQ_RATE_LIMIT_GLOBAL_RPS", "1000", "rate_limit"),
        ("CIPHERMQ_PERFORMANCE_WORKERS", "4", "performance"),
        ("CIPHERMQ_ADMIN_ADDRESS", "127.0.0.1:9090", "admin"),
        ("CIPHERMQ_ACL_SENDER_CNS", "sender_1", "acl"),
        ("CIPHERMQ_ACL_WHATEVER", "1", "acl"),
    ];
    let mut env: Vec<_> = variables.map(|(name, value, _)| (name, value)).into();
    env.push(("CIPHERMQ_ADMIN_PORT", "tcp://10.0.0.1:9090"));
    let warnings = parse_with("[acl]\n", &env).unwrap().warnings;
    assert_eq!(warnings.len(), 1 + variables.len(), "{warnings:?}");
    assert!(warnings[0].starts_with("config.toml, line 1: [acl] has no effect yet"));
    for (name, _, section) in variables {
        let expected = format!("environment variable {name}: [{section}] has no effect yet: ");
        assert!(
            warnings
                .iter()
                .any(|warning| warning.starts_with(&expected)),
            "{expected} is not in {warnings:?}"
        );
    }
}

#[test]
fn sections_of_older_servers_cause_warnings() {
    let config = parse(
        r#"
        [acl]
        sender_cns = [""]
        receiver_cns = []
        whatever = 3
        [admin]
        address = "127.0.0.1:9090"
        allowed_cns = ["admin"]
        [rate_limit]
        global_rps = 1000
        global_burst = 2000
        publish_rps = 1000
        publish_burst = 2000
        max_connections_per_ip = 10
        max_connections_per_cn = 5
        [performance]
        workers = 4
        nested = { a = [1, 2.5, true] }
        "#,
    )
    .unwrap();
    let places = [
        ("acl", 2),
        ("admin", 6),
        ("rate_limit", 9),
        ("performance", 16),
    ];
    assert_eq!(config.warnings.len(), places.len());
    for (warning, (section, line)) in config.warnings.iter().zip(places) {
        let expected = format!("config.toml, line {line}: [{section}] has no effect yet");
        assert!(warning.starts_with(&expected), "{warning}");
    }
    assert_eq!(
        parse("[acl]\n").unwrap().warnings.len(),
        1,
        "an empty section"
    );
    refused("acl = 3", &[], &["line 1", "acl", "a section"]);
}
