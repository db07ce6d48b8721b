//! The key for data at rest, and secrets in places where none belong.

use super::*;

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
