use tempfile::NamedTempFile;

use super::*;

fn resolve(args: ConnectionArgs, env: &[(&str, &str)]) -> Result<ConnectionSettings, Failure> {
    let env = env.to_vec();
    args.resolve_with(Identity::Sender, PrivateKeyArgs::default(), move |name| {
        env.iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.into())
    })
}

fn file(text: &str) -> (NamedTempFile, ConnectionArgs) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let args = ConnectionArgs {
        config: Some(file.path().into()),
        ..ConnectionArgs::default()
    };
    (file, args)
}

#[test]
fn defaults_fit_what_keygen_writes() {
    let sender = resolve(ConnectionArgs::default(), &[]).unwrap();
    assert_eq!(sender.server, "localhost:5672");
    assert_eq!(sender.ca, Path::new("certs/ca.crt"));
    assert_eq!(sender.cert, Path::new("certs/sender_1/client.crt"));
    assert_eq!(sender.key, Path::new("certs/sender_1/client.key"));
    assert_eq!(
        sender.private_keys,
        ("certs/receiver_private.key".into(), vec![])
    );
    assert_eq!(sender.certificates_folder(), Path::new("certs"));
    assert_eq!(sender.pins, None, "the pins are in the same folder");
    let receiver = ConnectionArgs::default()
        .resolve_with(Identity::Receiver, PrivateKeyArgs::default(), |_| None)
        .unwrap();
    assert_eq!(receiver.cert, Path::new("certs/receiver_1/client.crt"));
}

#[test]
fn flags_override_the_environment_which_overrides_the_file_which_overrides_the_default() {
    let (_file, args) = file(
        "server = \"file:1\"\nca = \"file.crt\"\nretries = 5\nretry-timeout = 2.5\n\
              require-crl-newer-than = \"24h\"\n",
    );
    let settings = resolve(args.clone(), &[]).unwrap();
    assert_eq!(
        settings.require_crl_newer_than,
        Some(Duration::from_hours(24))
    );
    assert_eq!(
        (settings.server.as_str(), settings.ca.as_path()),
        ("file:1", Path::new("file.crt"))
    );
    assert_eq!(
        (settings.retries, settings.retry_timeout),
        (Some(5), Some(Duration::from_millis(2500)))
    );

    let env = [
        ("CIPHERMQ_SERVER", "env:2"),
        ("CIPHERMQ_RETRIES", "7"),
        ("CIPHERMQ_CA", ""),
    ];
    let settings = resolve(args.clone(), &env).unwrap();
    assert_eq!(
        (settings.server.as_str(), settings.retries),
        ("env:2", Some(7))
    );
    assert_eq!(
        settings.ca,
        Path::new("file.crt"),
        "an empty variable counts as not set"
    );

    let flags = ConnectionArgs {
        server: Some("flag:3".to_owned()),
        retries: Some(1),
        ..args
    };
    let settings = resolve(flags, &env).unwrap();
    assert_eq!(
        (settings.server.as_str(), settings.retries),
        ("flag:3", Some(1))
    );
}

#[test]
fn the_environment_can_name_the_file() {
    let (file, _) = file("cert = \"x/me.pem\"\nprivate_key = [\"a.key\", \"b.key\"]\n");
    let path = file.path().to_str().unwrap();
    let settings = resolve(ConnectionArgs::default(), &[("CIPHERMQ_CONFIG", path)]).unwrap();
    assert_eq!(
        settings.key,
        Path::new("x/me.key"),
        "the key is looked for beside the certificate"
    );
    assert_eq!(
        settings.private_keys,
        ("a.key".into(), vec!["b.key".into()])
    );
    let env = [
        ("CIPHERMQ_CONFIG", path),
        ("CIPHERMQ_PRIVATE_KEY", "env.key"),
        ("CIPHERMQ_KEY", "other.key"),
    ];
    let settings = resolve(ConnectionArgs::default(), &env).unwrap();
    assert_eq!(settings.private_keys, ("env.key".into(), vec![]));
    assert_eq!(settings.key, Path::new("other.key"));
}

#[test]
fn unusable_values_are_usage_errors_that_name_them() {
    for (text, names) in [
        ("sever = \"x\"\n", "sever"),
        ("\nretries = \"many\"\n", "line 2"),
        ("retries = 0", "retries"),
        ("retry-timeout = -1", "retry-timeout"),
        ("[[[", "line 1"),
        ("private-key = 7", "a path"),
        ("private-key = []", "the list is empty"),
        (
            "private-key = \"\"",
            "private-key in the configuration file",
        ),
        ("private-key = [\"a.key\", \"\"]", "it is empty"),
        ("ca = \"\"", "ca in the configuration file"),
        ("retries = -1", "a whole number from 1 to"),
        ("retries = 4294967296", "a whole number from 1 to"),
        ("connect-timeout = \"ten\"", "a number of seconds"),
        ("ca = 7", "a path in double quotes"),
    ] {
        let (_file, args) = file(text);
        let failure = resolve(args, &[]).unwrap_err();
        assert!(failure.to_string().contains(names), "{failure}");
        assert_eq!(failure.exit().code(), 2);
        assert!(failure.to_string().lines().count() > 1, "{failure}");
    }
    let failure = resolve(ConnectionArgs::default(), &[("CIPHERMQ_RETRIES", "0")]).unwrap_err();
    assert!(
        failure
            .to_string()
            .starts_with("CIPHERMQ_RETRIES in the environment"),
        "{failure}"
    );
    let missing = ConnectionArgs {
        config: Some("/no/such/file".into()),
        ..ConnectionArgs::default()
    };
    assert!(
        resolve(missing, &[])
            .unwrap_err()
            .to_string()
            .contains("/no/such/file")
    );
}

#[test]
fn keys_in_place_of_paths_are_refused_and_not_shown() {
    let base64 = "4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=";
    let pem = "-----BEGIN PRIVATE KEY-----\n4IZCJdI0yQ8u\n-----END PRIVATE KEY-----\n";
    for option in ["ca", "cert", "key", "pins", "private-key", "config"] {
        for key in [base64, pem] {
            let name = variable(option);
            let failure = resolve(ConnectionArgs::default(), &[(&name, key)]).unwrap_err();
            let text = failure.to_string();
            assert!(
                text.starts_with(&format!("{name} in the environment holds a key")),
                "{text}"
            );
            assert!(!text.contains("4IZCJ"), "{text}");
            assert_eq!(failure.exit(), Exit::Usage);
        }
    }
    for option in ["ca", "cert", "key", "pins", "private-key", "retries"] {
        let (_file, args) = file(&format!("{option} = \"{base64}\""));
        let failure = resolve(args, &[]).unwrap_err().to_string();
        assert!(!failure.contains("4IZCJ"), "{failure}");
    }
    let flag = ConnectionArgs {
        key: Some(pem.into()),
        ..ConnectionArgs::default()
    };
    let failure = resolve(flag, &[]).unwrap_err().to_string();
    assert!(
        failure.starts_with("--key on the command line"),
        "{failure}"
    );
    for option in [
        "CIPHERMQ_SERVER",
        "CIPHERMQ_RETRIES",
        "CIPHERMQ_RETRY_TIMEOUT",
    ] {
        let failure = resolve(ConnectionArgs::default(), &[(option, base64)]).unwrap_err();
        assert!(!failure.to_string().contains("4IZCJ"), "{failure}");
    }
}
