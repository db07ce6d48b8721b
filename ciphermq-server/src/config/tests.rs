mod documentation;
mod postgres;
mod quotas;
mod variables;

use std::os::unix::ffi::OsStrExt as _;

use super::*;

fn parse(text: &str) -> Result<Config, Error> {
    parse_with(text, &[])
}

fn parse_with(text: &str, env: &[(&str, &str)]) -> Result<Config, Error> {
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(text, Path::new("config.toml"), env)
}

/// Returns the message of the error, after checking that it contains all `parts`.
fn refused(text: &str, env: &[(&str, &str)], parts: &[&str]) -> String {
    let error = match parse_with(text, env) {
        Ok(config) => panic!("{text} is accepted as {config:?}"),
        Err(error) => error.to_string(),
    };
    for part in parts {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
    assert!(
        error.lines().count() == 2,
        "not a problem and its advice: {error}"
    );
    error
}

fn repository(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).unwrap()
}

#[test]
fn an_empty_file_is_the_default() {
    let config = parse("").unwrap();
    assert_eq!(config.server.address, "127.0.0.1:5672");
    assert_eq!(config.tls.ca_cert_path, Path::new("certs/ca.crt"));
    assert_eq!(config.logging.level, tracing::Level::INFO);
    assert_eq!(config.logging.rotation, Rotation::Daily);
    assert_eq!(config.logging.max_size_bytes, Some(100 << 20));
    assert_eq!(config.logging.max_total_bytes, Some(1 << 30));
    assert_eq!(config.logging.max_files, None);
    assert!(
        matches!(&config.database, Database::Sqlite { path } if path == Path::new("data/ciphermq.db"))
    );
    assert_eq!(config.encryption.algorithm, Algorithm::Aes256Gcm);
    assert!(
        matches!(&config.encryption.key, KeySource::File { path, create_if_missing: true } if path == Path::new("data/at-rest.key"))
    );
    assert_eq!(config.limits, Limits::default());
}

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
fn unknown_names_and_wrong_types_are_reported_with_their_line() {
    refused(
        "[server]\n\nadress = \"x\"",
        &[],
        &["config.toml, line 3", "`adress`", "`address`"],
    );
    refused(
        "[servers]\n",
        &[],
        &["config.toml, line 1", "`servers`", "`server`"],
    );
    refused(
        "[limits]\nmax_prefetch = [1]",
        &[],
        &["line 2", "max_prefetch", "a whole number"],
    );
    refused(
        "[limits]\nmax_prefetch = 1.5",
        &[],
        &["line 2", "max_prefetch", "a whole number"],
    );
    refused(
        "[logging]\nlevel = 3",
        &[],
        &["line 2", "level", "text in double quotes"],
    );
    refused("logging = 3", &[], &["line 1", "logging", "a section"]);
    refused(
        "[logging]\nlevel = \"info\"\nlevel = \"info\"",
        &[],
        &["line 3"],
    );
    refused("[logging\n", &[], &["line 1"]);
}

#[test]
fn no_error_shows_a_secret() {
    for text in [
        "[database]\npassword = 12345678",
        "[database]\npassword = hunter2",
        "[database]\npassword = \"hunter2",
        "[database]\npassword = [\"hunter2\"]",
        "[database]\npassword = {a = \"hunter2\"}",
        "database = \"postgres://u:hunter2@h/d\"",
        "database = \"hunter2, expected hunter2\"",
        "[encryption]\naes_key = \"hunter2\"",
        "[encryption]\naes_key = 12345678",
    ] {
        let error = match parse(text) {
            Ok(config) => panic!("{config:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(
            !error.contains("hunter2") && !error.contains("12345678"),
            "{text}: {error}"
        );
    }
}

#[test]
fn only_tls_is_accepted_as_connection_type() {
    assert!(parse("[server]\nconnection_type = \"TLS\"").is_ok());
    for kind in ["tcp", "plain", ""] {
        let text = format!("[server]\nconnection_type = \"{kind}\"");
        refused(
            &text,
            &[],
            &["line 2: [server] connection_type", "certificates"],
        );
    }
}

#[test]
fn addresses_have_host_and_port() {
    for address in [
        "127.0.0.1:5672",
        "0.0.0.0:0",
        "[::]:5672",
        "[::1]:65535",
        "localhost:5672",
        "mq.example.org:1",
    ] {
        assert_eq!(
            parse(&format!("[server]\naddress = \"{address}\""))
                .unwrap()
                .server
                .address,
            address
        );
    }
    for address in [
        "",
        "5672",
        ":5672",
        "localhost",
        "localhost:",
        "h:65536",
        "::1:5672",
        "[::1]",
        "[x]:1",
        "a b:1",
        "h:+1",
        "tls://h:1",
    ] {
        refused(
            &format!("[server]\naddress = \"{address}\""),
            &[],
            &["line 2: [server] address", "host:port"],
        );
    }
}

#[test]
fn logging_is_checked() {
    for (word, level) in [
        ("Error", tracing::Level::ERROR),
        ("WARNING", tracing::Level::WARN),
        ("trace", tracing::Level::TRACE),
    ] {
        assert_eq!(
            parse(&format!("[logging]\nlevel = \"{word}\""))
                .unwrap()
                .logging
                .level,
            level
        );
    }
    refused(
        "[logging]\nlevel = \"loud\"",
        &[],
        &["line 2: [logging] level", "trace"],
    );
    refused(
        "[logging]\nrotation = \"weekly\"",
        &[],
        &["line 2: [logging] rotation", "hourly, daily or never"],
    );
    refused(
        "[logging]\ninfo_file_path = \"a\"\nerror_file_path = \"a\"",
        &[],
        &["line 3: [logging] error_file_path"],
    );
    refused(
        "[logging]\nmax_size_mb = -1",
        &[],
        &["[logging] max_size_mb"],
    );
    refused(
        "[logging]\nmax_size_mb = 200\nmax_total_mb = 100",
        &[],
        &["line 3: [logging] max_total_mb", "exceeds"],
    );
    let config = parse("[logging]\nmax_total_mb = 0\nmax_files = 7").unwrap();
    assert_eq!(config.logging.max_total_bytes, None);
    assert_eq!(config.logging.max_files, Some(7));
    assert_eq!(
        parse("[logging]\nmax_size_mb = 0")
            .unwrap()
            .logging
            .max_size_bytes,
        None
    );
}

/// Older files select a default with an empty string.
#[test]
fn an_empty_text_means_the_default() {
    let default = format!("{:?}", parse("").unwrap());
    for empty in ["", " ", "\\t"] {
        for (section, field) in [
            ("logging", "level"),
            ("logging", "messages"),
            ("logging", "rotation"),
            ("logging", "info_file_path"),
            ("logging", "debug_file_path"),
            ("logging", "error_file_path"),
            ("logging", "max_size_mb"),
            ("logging", "max_total_mb"),
            ("logging", "max_files"),
            ("tls", "cert_path"),
            ("tls", "key_path"),
            ("tls", "ca_cert_path"),
            ("encryption", "algorithm"),
            ("encryption", "aes_key_file"),
            ("database", "host"),
            ("database", "sslmode"),
            ("database", "sslrootcert"),
            ("limits", "redelivery_timeout"),
        ] {
            let text = format!("[{section}]\n{field} = \"{empty}\"");
            assert_eq!(format!("{:?}", parse(&text).unwrap()), default, "{text}");
        }
    }
    // An empty url does not hide the other fields.
    let text = "[database]\nurl = \"\"\nhost = \"h\"\nuser = \"u\"\ndbname = \"d\"";
    assert_eq!(
        parse(text).unwrap().database.to_string(),
        "PostgreSQL u@h:5432/d"
    );
    refused("[database]\nurl = \"\"", &[], &["line 2: [database] url"]);
    refused(
        "[encryption]\naes_key = \"\"",
        &[],
        &["[encryption] aes_key"],
    );
}

#[test]
fn keywords_ignore_case_and_surrounding_spaces() {
    let config = parse(
        "[server]\naddress = \" 127.0.0.1:1 \"\nconnection_type = \" TLS \"\n\
         [logging]\nlevel = \" Debug\"\nrotation = \"HOURLY \"\n\
         [database]\nurl = \" sqlite://x.db \"\n[encryption]\nalgorithm = \" ChaCha20-Poly1305 \"",
    )
    .unwrap();
    assert_eq!(config.server.address, "127.0.0.1:1");
    assert_eq!(config.logging.level, tracing::Level::DEBUG);
    assert_eq!(config.logging.rotation, Rotation::Hourly);
    assert_eq!(config.encryption.algorithm, Algorithm::ChaCha20Poly1305);
    assert!(matches!(config.database, Database::Sqlite { path } if path == Path::new("x.db")));
    assert_eq!(config.warnings, [] as [String; 0]);
}

#[test]
fn a_filter_in_level_yields_its_most_verbose_level_and_a_warning() {
    let config = parse("[logging]\nlevel = \"Info,ciphermq=DEBUG\"").unwrap();
    assert_eq!(config.logging.level, tracing::Level::DEBUG);
    let [warning] = &config.warnings[..] else {
        panic!("{:?}", config.warnings)
    };
    assert!(
        warning.starts_with("config.toml, line 2: [logging] level: `Info,ciphermq=DEBUG`"),
        "{warning}"
    );
    assert!(warning.contains("level = \"debug\""), "{warning}");
    // Text in brackets keeps its case.
    let config = parse(
        r"[logging]
        level = '[s{name=(?P<x>\D)}]=info'",
    )
    .unwrap();
    assert_eq!(config.logging.level, tracing::Level::INFO);
    refused(
        "[logging]\nlevel = \"info,dbug\"",
        &[],
        &[
            "`dbug` is unknown",
            "Write error, warn, info, debug or trace.",
            "dbug=trace",
        ],
    );
    let config = parse_with("", &[("CIPHERMQ_LOGGING_LEVEL", "warn,ciphermq=info")]).unwrap();
    assert!(
        config.warnings[0].starts_with("environment variable CIPHERMQ_LOGGING_LEVEL: "),
        "{:?}",
        config.warnings
    );
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

#[test]
fn limits_have_ranges_and_are_consistent() {
    for (field, value, word) in [
        ("max_line_bytes", "1023", "too small"),
        ("max_line_bytes", "\"257MiB\"", "too large"),
        ("max_line_bytes", "\"much\"", "cannot be read"),
        ("disk_reserve", "\"2TiB\"", "too large"),
        ("disk_reserve", "1099511627777", "too large"),
        ("redelivery_timeout", "30", "cannot be read"),
        ("storage_wait", "\"0s\"", "too small"),
        ("handshake_timeout", "\"11min\"", "too large"),
        ("max_connections", "0", "too small"),
        ("max_prefetch", "65536", "too large"),
        ("max_redeliveries", "-1", "cannot be read"),
        ("metadata_retention", "\"59s\"", "too small"),
        ("metadata_retention", "\"soon\"", "Or write \"forever\""),
        ("max_buffered_bytes", "\"15MiB\"", "does not fit"),
        ("max_pending_bytes", "\"15MiB\"", "does not fit"),
        ("max_ready_bytes", "\"15MiB\"", "does not fit"),
        ("max_line_bytes", "\"65MiB\"", "does not fit"),
    ] {
        let error = refused(
            &format!("[limits]\n{field} = {value}"),
            &[],
            &["config.toml, line 2", field, word],
        );
        assert!(error.contains(&format!("[limits] {field}: ")), "{error}");
    }
    let config = parse(
        "[limits]\nmax_line_bytes = \"1MiB\"\nmax_ready_bytes = 1048576\nmetadata_retention = \
         \"30days\"\nshutdown_timeout = \"0s\"",
    )
    .unwrap();
    assert_eq!(config.limits.max_line_bytes, 1 << 20);
    for reserve in ["\"1TiB\"", "\"1024GiB\"", "1099511627776"] {
        let config = parse(&format!("[limits]\ndisk_reserve = {reserve}")).unwrap();
        assert_eq!(config.limits.disk_reserve, 1 << 40, "{reserve}");
    }
    assert_eq!(
        config.limits.metadata_retention.unwrap().as_secs(),
        30 * 86_400
    );
}

#[test]
fn the_at_rest_key_is_checked() {
    let good = "[encryption]\naes_key = \"YzJhMTdlZjE5N2I0NDZjNmE0NWU4YmRhN2Q0MGYxMmI=\"\n";
    for (word, algorithm) in [
        ("aes-256-gcm", Algorithm::Aes256Gcm),
        ("AES-256-GCM", Algorithm::Aes256Gcm),
        ("chacha20-poly1305", Algorithm::ChaCha20Poly1305),
    ] {
        assert_eq!(
            parse(&format!("{good}algorithm = \"{word}\""))
                .unwrap()
                .encryption
                .algorithm,
            algorithm
        );
    }
    refused(
        "[encryption]\nalgorithm = \"rot13\"",
        &[],
        &["line 2: [encryption] algorithm", "chacha20-poly1305"],
    );
    for key in ["", "????", "c2hvcnQ="] {
        let text = format!("[encryption]\naes_key = \"{key}\"");
        refused(
            &text,
            &[],
            &["line 2: [encryption] aes_key", "openssl rand -base64 32"],
        );
    }
    refused(
        &format!("{good}aes_key_file = \"k\""),
        &[],
        &["line 3: [encryption] aes_key_file", "Keep one"],
    );

    let named = parse("[encryption]\naes_key_file = \"data/at-rest.key\"").unwrap();
    assert!(
        matches!(
            named.encryption.key,
            KeySource::File {
                create_if_missing: false,
                ..
            }
        ),
        "a named file is not created"
    );
    let config = parse_with(good, &[("CIPHERMQ_ENCRYPTION_AES_KEY_FILE", "k")]).unwrap();
    assert!(
        matches!(config.encryption.key, KeySource::File { path, create_if_missing: false } if path == Path::new("k"))
    );
    let key = "YzJhMTdlZjE5N2I0NDZjNmE0NWU4YmRhN2Q0MGYxMmI=";
    let config = parse_with(
        "[encryption]\naes_key_file = \"k\"",
        &[("CIPHERMQ_ENCRYPTION_AES_KEY", key)],
    )
    .unwrap();
    assert!(matches!(config.encryption.key, KeySource::Inline(_)));
}

#[test]
fn unreadable_and_invalid_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let load = |path: &Path| Config::load(path, std::iter::empty()).unwrap_err();
    let path = folder.path().join("config.toml");
    assert!(matches!(load(&path), Error::Read { .. }));
    assert!(matches!(load(folder.path()), Error::Read { .. }));
    assert!(matches!(
        load(Path::new("/dev/zero")),
        Error::TooLong { .. }
    ));
    std::fs::write(&path, b"[server]\n# \xff\n").unwrap();
    assert!(matches!(load(&path), Error::NotUtf8 { line: 2, .. }));
    std::fs::write(&path, "[logging]\nlevel = \"warn\"\n").unwrap();
    let config = Config::load(&path, std::iter::empty()).unwrap();
    assert_eq!(config.logging.level, tracing::Level::WARN);
}

#[test]
fn keys_in_place_of_paths_and_words_are_refused_and_not_shown() {
    let base64 = "4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=";
    let pem = "-----BEGIN PRIVATE KEY-----\n4IZCJdI0yQ8u\n-----END PRIVATE KEY-----\n";
    for key in [base64, pem] {
        for (section, field) in [
            ("tls", "cert_path"),
            ("tls", "key_path"),
            ("tls", "ca_cert_path"),
            ("encryption", "aes_key_file"),
            ("encryption", "algorithm"),
            ("encryption", "older_rows"),
            ("logging", "level"),
            ("logging", "rotation"),
            ("logging", "messages"),
            ("logging", "error_file_path"),
            ("logging", "max_size_mb"),
            ("logging", "max_total_mb"),
            ("logging", "max_files"),
            ("limits", "max_prefetch"),
            ("server", "address"),
            ("server", "connection_type"),
        ] {
            let escaped = key.replace('\n', "\\n");
            let in_file = format!("[{section}]\n{field} = \"{escaped}\"");
            let variable = format!("CIPHERMQ_{section}_{field}").to_uppercase();
            for error in [
                refused(&in_file, &[], &[field]),
                refused("", &[(&variable, key)], &[field]),
            ] {
                assert!(!error.contains("4IZCJ"), "{error}");
            }
        }
    }
    refused(
        "",
        &[("CIPHERMQ_TLS_KEY_PATH", pem)],
        &["it holds a key or certificate", "name that file"],
    );
}

#[test]
fn non_ascii_paths_are_accepted_unchanged() {
    let config = parse("[tls]\ncert_path = \"zertifikate/schl\u{fc}ssel.crt\"").unwrap();
    assert_eq!(
        config.tls.cert_path.as_os_str().as_bytes(),
        "zertifikate/schl\u{fc}ssel.crt".as_bytes()
    );
}

#[test]
fn roles_of_older_servers_are_rules() {
    use crate::authorization::{Action, Effect, Request};

    let config = parse(
        r#"
        [acl]
        sender_cns = ["sender_1", "a b", ""]
        receiver_cns = ["receiver_*"]
        admin_cns = ["admin"]
        whatever = [1, 2.5]
        "#,
    )
    .unwrap();
    let policy = &config.authorization;
    assert_eq!(policy.default, Effect::Deny);
    let client = |id| ciphermq_protocol::ClientId::new(id).unwrap();
    let may = |id, action| {
        let decision = policy.for_client(&client(id)).decide(&Request::new(action));
        decision.is_allowed()
    };
    for (id, publish, consume, administer) in [
        ("sender_1", true, false, false),
        ("receiver_*", false, true, false),
        ("receiver_1", false, false, false),
        ("admin", true, true, true),
        ("other", false, false, false),
    ] {
        assert_eq!(may(id, Action::Publish), publish, "{id}");
        assert_eq!(may(id, Action::Consume), consume, "{id}");
        assert_eq!(policy.is_administrator(&client(id)), administer, "{id}");
    }
    for (warning, part) in config.warnings.iter().zip([
        "[acl] is in force",
        "[acl] whatever has no effect",
        "`a b` is no client id",
    ]) {
        assert!(warning.starts_with("config.toml, line 2: "), "{warning}");
        assert!(warning.contains(part), "{warning}");
    }
    assert_eq!(config.warnings.len(), 3);
    let text = "[acl]\nsender_cns = \"sender_1\"";
    refused(text, &[], &["line 2", "[acl] sender_cns", "Write a list"]);
    let text = "[acl]\nsender_cns = [\"a\"]\n[authorization]\ndefault = \"deny\"";
    refused(
        text,
        &[],
        &["line 4", "[authorization]", "[acl] is set as well"],
    );
}

#[test]
fn the_rules_of_authorization_are_read() {
    let config = parse_with(
        r#"
        [authorization]
        default = " Deny"
        administrators = ["ops-*"]
        [[authorization.rules]]
        name = "sensors report to the archive"
        clients = ["sensor-*"]
        allow = ["publish"]
        exchanges = ["readings"]
        routing_keys = ["archive_key"]
        receivers = ["archive", "${client_id}-mirror"]
        [[authorization.rules]]
        name = "nobody deletes"
        deny = ["delete"]
        "#,
        &[("CIPHERMQ_AUTHORIZATION_ADMINISTRATORS", "root, it-*")],
    )
    .unwrap();
    let policy = &config.authorization;
    assert_eq!(policy.default, crate::authorization::Effect::Deny);
    let names: Vec<_> = policy.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["sensors report to the archive", "nobody deletes"]);
    for (id, expected) in [("root", true), ("it-1", true), ("ops-1", false)] {
        let client_id = ciphermq_protocol::ClientId::new(id).unwrap();
        assert_eq!(policy.is_administrator(&client_id), expected, "{id}");
    }
}

#[test]
fn rules_that_are_none_are_refused() {
    let rule = "[[authorization.rules]]\nname = \"r\"\n";
    for (text, parts) in [
        (
            "[authorization]\ndefault = \"maybe\"".to_owned(),
            ["line 2", "`maybe`", "allow or deny"],
        ),
        (
            "[authorization]\nadministrators = [\"${client_id}\"]".to_owned(),
            ["line 2", "every client", "Write the ids"],
        ),
        (
            "[authorization]\nadministrators = \"ops\"".to_owned(),
            ["line 2", "administrators", "Write a list"],
        ),
        (
            "[authorization]\nroles = 1".to_owned(),
            ["line 2", "`roles`", "`administrators`"],
        ),
        (
            "[[authorization.rules]]\nallow = [\"bind\"]".to_owned(),
            ["line 1", "no name", "Write name"],
        ),
        (
            rule.to_owned(),
            ["line 1", "neither allows nor denies", "register_key"],
        ),
        (
            format!("{rule}allow = [\"fly\"]"),
            ["line 3", "`fly`", "register_key"],
        ),
        (
            format!("{rule}allow = []"),
            ["line 3", "allow is empty", "Leave it out"],
        ),
        (
            format!("{rule}allow = [\"bind\"]\ndeny = [\"bind\"]"),
            ["line 4", "allows and denies `bind`", "Keep one"],
        ),
        (
            format!("{rule}allow = [\"bind\"]\nqueues = []"),
            ["line 4", "queues is empty", "Leave it out"],
        ),
        (
            format!("{rule}allow = [\"bind\"]\nqueues = [\"a[0]\"]"),
            ["line 4", "'['", "? for one"],
        ),
        (
            format!("{rule}allow = [\"bind\"]\nclients = [\"a-${{client_id}}\"]"),
            ["line 4", "every client", "Write the ids"],
        ),
        (
            format!("{rule}allow = [\"bind\"]\nqueues = [\"${{client}}\"]"),
            ["line 4", "`${client}`", "${client_id}"],
        ),
        (
            format!("{rule}allow = [\"consume\"]\nexchanges = [\"e\"]"),
            [
                "line 4",
                "exchanges has no meaning",
                "publish, declare, bind, delete",
            ],
        ),
        (
            format!("{rule}allow = [\"bind\"]\nkeys = [\"e\"]"),
            ["line 4", "`keys` is unknown", "`routing_keys`"],
        ),
        (
            format!("{rule}allow = [\"bind\"]\n{rule}deny = [\"bind\"]"),
            ["line 5", "another rule", "a name of its own"],
        ),
    ] {
        refused(&text, &[], &parts);
    }
}
