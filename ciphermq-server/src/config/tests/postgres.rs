//! The section `[database]` for PostgreSQL.

use super::*;

#[test]
fn url_and_fields_override_each_other_from_the_environment() {
    let fields =
        "[database]\nuser = \"u\"\npassword = \"p\"\ndbname = \"d\"\nsslmode = \"require\"\n";
    let config = parse_with(fields, &[("CIPHERMQ_DATABASE_URL", "sqlite://x.db")]).unwrap();
    assert!(matches!(config.database, Database::Sqlite { path } if path == Path::new("x.db")));
    let config = parse_with(fields, &[("CIPHERMQ_DATABASE_URL", "postgres://a@b/c")]).unwrap();
    assert!(matches!(
        config.database,
        Database::Postgres(Postgres {
            target: Target::Url(_),
            sslmode: Some(SslMode::Require),
            ..
        })
    ));

    let url = "[database]\nurl = \"sqlite://data/ciphermq.db\"\n";
    let env = [
        ("CIPHERMQ_DATABASE_USER", "u"),
        ("CIPHERMQ_DATABASE_DBNAME", "d"),
        ("CIPHERMQ_DATABASE_PASSWORD", "p"),
    ];
    let config = parse_with(url, &env).unwrap();
    assert_eq!(config.database.to_string(), "PostgreSQL u@localhost:5432/d");

    refused(
        &format!("{url}host = \"h\"\n"),
        &[],
        &["config.toml, line 3: [database] host", "Keep either url"],
    );
    refused(
        "",
        &[
            ("CIPHERMQ_DATABASE_URL", "sqlite://x"),
            ("CIPHERMQ_DATABASE_HOST", "h"),
        ],
        &["[database] host"],
    );
}

#[test]
fn urls_are_parsed_or_refused_and_never_shown() {
    for (url, path) in [
        ("sqlite://data/x.db", "data/x.db"),
        ("sqlite:data/x.db", "data/x.db"),
        ("sqlite:///var/lib/x.db", "/var/lib/x.db"),
        ("sqlite://x.db?mode=rwc", "x.db"),
    ] {
        let config = parse(&format!("[database]\nurl = \"{url}\"")).unwrap();
        assert!(
            matches!(config.database, Database::Sqlite { path: found } if found == Path::new(path)),
            "{url}"
        );
    }
    for (url, shown) in [
        (
            "postgres://me:hunter2@db.example:5433/mq?password=hunter2",
            "PostgreSQL me@db.example:5433/mq",
        ),
        ("postgresql://me:hunter2%40%2F@db/mq", "PostgreSQL me@db/mq"),
        ("postgres:///mq?host=/run/postgresql", "PostgreSQL /mq"),
    ] {
        let config = parse(&format!("[database]\nurl = \"{url}\"")).unwrap();
        assert_eq!(config.database.to_string(), shown);
        assert!(!format!("{config:?}").contains("hunter2"));
    }
    for url in [
        "postgres://u:pw@h/d?sslmode=verify-full&sslrootcert=/ca.crt&sslcert=/c&sslkey=/k",
        "postgres://h/d?ssl-mode=require&ssl-root-cert=/a&ssl-ca=/a&ssl-cert=/c&ssl-key=/k",
        "postgres:///?host=/run&port=1&user=u&password=hunter2&dbname=d&application_name=a",
        "postgres://h/d?hostaddr=127.0.0.1&statement-cache-capacity=10",
        "postgres://h/d?options=-c%20geqo%3Doff&options[search_path]=x",
    ] {
        parse(&format!("[database]\nurl = \"{url}\"")).unwrap();
    }
    for url in [
        "postgres://u:pw@h/d?passwrd=hunter2",
        "postgres://u:pw@h/d?sslmode=disable&Password=hunter2",
        "postgres://u@h/d?password=pw&hunter2",
        "postgres://u@h/d?password=pw&hunter2=x",
        "postgres://u@h/d?hunter2",
        "postgres://u@h/d?options[=hunter2",
        "sqlite://",
        "sqlite::memory:",
        "sqlite://x.db?mode=ro",
        "mysql://u:hunter2@h/d",
        "hunter2",
        "",
        "postgres://u:hun/ter2@h/d",
        "postgres://u:12/hunter2@h/d",
        "postgres://u:1?hunter2@h/d",
        "postgres://u:1#hunter2@h/d",
        "postgres://u:hunter2@[h/d",
    ] {
        let error = refused(
            &format!("[database]\nurl = \"{url}\""),
            &[],
            &["line 2: [database] url"],
        );
        assert!(
            !error.contains("hunter2") && !error.contains("ter2"),
            "{error}"
        );
    }
}

#[test]
fn an_unknown_url_parameter_is_named_without_its_value() {
    let url = "[database]\nurl = \"postgres://u:pw@h/d?passwrd=TOPSECRET\"";
    let error = refused(
        url,
        &[],
        &["the parameter `passwrd` is unknown", "sslrootcert"],
    );
    assert!(!error.contains("TOPSECRET"), "{error}");
}

#[test]
fn tls_to_the_database_is_never_silently_ignored() {
    let fields = "[database]\nuser = \"u\"\ndbname = \"d\"\n";
    for (word, mode) in [
        ("disable", SslMode::Disable),
        ("PREFER", SslMode::Prefer),
        ("verify-full", SslMode::VerifyFull),
    ] {
        let config = parse(&format!("{fields}sslmode = \"{word}\"")).unwrap();
        assert!(
            matches!(config.database, Database::Postgres(Postgres { sslmode: Some(found), .. }) if found == mode)
        );
    }
    refused(
        &format!("{fields}sslmode = \"on\""),
        &[],
        &["line 4: [database] sslmode", "verify-full"],
    );
    refused(
        &format!("{fields}sslrootcert = \"ca.crt\""),
        &[],
        &["[database] sslrootcert", "sslmode = \"verify-full\""],
    );
    refused(
        &format!("{fields}sslmode = \"require\"\nsslrootcert = \"ca.crt\""),
        &[],
        &["[database] sslrootcert"],
    );
    refused(
        "[database]\nsslmode = \"require\"",
        &[],
        &["the database is SQLite"],
    );
    refused(
        "[database]\nurl = \"postgres://a/b?sslmode=require\"\nsslmode = \"disable\"",
        &[],
        &["the url sets sslmode as well"],
    );
}

#[test]
fn missing_fields_of_postgres_are_named() {
    refused(
        "[database]\nhost = \"h\"\ndbname = \"d\"",
        &[],
        &["[database] user: it is missing"],
    );
    refused(
        "[database]\nhost = \"h\"\nuser = \"u\"",
        &[],
        &["[database] dbname: it is missing"],
    );
    refused(
        "[database]\nuser = \" \"\ndbname = \"d\"",
        &[],
        &["[database] user: it is empty"],
    );
    for port in ["0", "65536", "-1", "\"x\""] {
        refused(
            &format!("[database]\nport = {port}"),
            &[],
            &["line 2: [database] port", "from 1 to 65535"],
        );
    }
}
