//! Settings from a file and from the environment.

mod authorization;
mod documentation;
mod older;
mod postgres;
mod quotas;
mod secrets;
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
    assert_eq!(config.logging.rotation, ciphermq_logging::Rotation::Daily);
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
    assert_eq!(config.logging.rotation, ciphermq_logging::Rotation::Hourly);
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
fn non_ascii_paths_are_accepted_unchanged() {
    let config = parse("[tls]\ncert_path = \"zertifikate/schl\u{fc}ssel.crt\"").unwrap();
    assert_eq!(
        config.tls.cert_path.as_os_str().as_bytes(),
        "zertifikate/schl\u{fc}ssel.crt".as_bytes()
    );
}

#[test]
fn changed_settings_are_named_as_in_the_file_and_rules_are_none() {
    let before = parse("[database]\nurl = \"postgres://u:secret@h/d\"").unwrap();
    assert_eq!(before.changed_settings(&before), Vec::<String>::new());
    let rules = "[[authorization.rules]]\nname = \"r\"\nallow = [\"bind\"]";
    let same = format!("[database]\nurl = \"postgres://u:secret@h/d\"\n{rules}");
    let same = parse(&same).unwrap();
    assert_ne!(before.authorization, same.authorization);
    assert_eq!(before.changed_settings(&same), Vec::<String>::new());
    let text = "[server]\naddress = \"h:1\"\n[tls]\nkey_path = \"k\"\n[logging]\nmax_size_mb = 7\n\
                [database]\nurl = \"postgres://u:other@h/d\"\n\
                [encryption]\naes_key_file = \"k\"\n[limits]\nmax_prefetch = 7";
    let names = before.changed_settings(&parse(text).unwrap()).join(", ");
    assert_eq!(
        names,
        "[server] address, [logging] max_size_mb, [database], [encryption] \
         aes_key, [limits] max_prefetch"
    );
    assert!(!names.contains("secret"));
}
