use super::*;

/// Explains an error of the client `c`, which sees this flaw of its own certificate.
fn explained(
    address: &str,
    name: &str,
    stage: Stage,
    error: io::Error,
    flaw: Option<&Flaw>,
) -> ConnectError {
    let client_id = &ClientId::new("c").unwrap();
    explain(address, name, stage, error, Own { client_id, flaw })
}

fn kind(stage: Stage, error: impl Into<io::Error>) -> ConnectErrorKind {
    explained("localhost:5672", "localhost", stage, error.into(), None).kind()
}

fn tls(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[test]
fn the_same_io_error_means_different_things_at_different_stages() {
    let eof = || io::Error::from(io::ErrorKind::UnexpectedEof);
    assert_eq!(
        kind(Stage::Tcp, io::ErrorKind::ConnectionRefused),
        ConnectErrorKind::Refused
    );
    assert_eq!(kind(Stage::Handshake, eof()), ConnectErrorKind::Broken);
    assert_eq!(
        kind(Stage::FirstReply, eof()),
        ConnectErrorKind::CertificateRefused
    );
    assert_eq!(kind(Stage::Running, eof()), ConnectErrorKind::Broken);
}

#[test]
fn an_interrupted_connection_is_reported_in_our_words() {
    let interrupted = io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "peer closed connection without sending TLS close_notify: https://docs.rs/rustls",
    );
    let error = explained("h:1", "h", Stage::Running, interrupted, None);
    assert_eq!(
        error.to_string(),
        "The connection to h:1 broke: the server closed the connection without a goodbye."
    );
    assert!(!format!("{error:?}").contains("docs.rs"), "{error:?}");
}

#[test]
fn certificate_alerts_have_their_own_kind() {
    for alert in [
        AlertDescription::UnknownCA,
        AlertDescription::CertificateExpired,
        AlertDescription::BadCertificate,
    ] {
        let error = tls(rustls::Error::AlertReceived(alert));
        assert_eq!(
            kind(Stage::FirstReply, error),
            ConnectErrorKind::CertificateRefused,
            "{alert:?}"
        );
    }
}

#[test]
fn a_wrong_name_is_reported_with_the_valid_ones() {
    let reason = CertificateError::NotValidForNameContext {
        expected: "example.org".try_into().unwrap(),
        presented: ["DnsName(\"localhost\")", "IpAddress(127.0.0.1)"]
            .map(str::to_owned)
            .into(),
    };
    let error = explained(
        "h:1",
        "example.org",
        Stage::Handshake,
        tls(rustls::Error::InvalidCertificate(reason)),
        None,
    );
    assert_eq!(error.kind(), ConnectErrorKind::ServerName);
    assert!(
        error
            .to_string()
            .contains("not for `example.org`, but for localhost, 127.0.0.1."),
        "{error}"
    );
}

#[test]
fn our_own_flaw_is_reported_when_the_alert_can_refer_to_it() {
    let early = Flaw::NotYetValid(None);
    let text = |alert, own: Option<&Flaw>| {
        let error = tls(rustls::Error::AlertReceived(alert));
        explained("h:1", "h", Stage::FirstReply, error, own).to_string()
    };
    assert!(
        text(AlertDescription::CertificateExpired, Some(&early)).contains("it is not valid yet")
    );
    // The server's alert refers to something else, which the server knows better.
    let renewal = explained(
        "h:1",
        "h",
        Stage::FirstReply,
        tls(rustls::Error::AlertReceived(
            AlertDescription::CertificateExpired,
        )),
        Some(&Flaw::Expired(None)),
    );
    assert!(
        renewal.advice().unwrap().contains("--force --client c`"),
        "{renewal:?}"
    );
    let unknown = text(AlertDescription::UnknownCA, Some(&early));
    assert!(unknown.contains("its CA did not issue it"), "{unknown}");
    let by_its_clock = text(AlertDescription::CertificateExpired, None);
    assert!(by_its_clock.contains("by its clock"), "{by_its_clock}");
    let eof = io::Error::from(io::ErrorKind::UnexpectedEof);
    let silent = explained("h:1", "h", Stage::FirstReply, eof, Some(&early));
    assert!(
        silent.to_string().contains("it is not valid yet"),
        "{silent}"
    );
}

#[test]
fn unusable_names_of_a_certificate_are_not_advised() {
    let about = |name: &'static str, presented: &[&str]| {
        let reason = CertificateError::NotValidForNameContext {
            expected: name.try_into().unwrap(),
            presented: presented.iter().map(|&name| name.to_owned()).collect(),
        };
        let error = tls(rustls::Error::InvalidCertificate(reason));
        explained("h:1", name, Stage::Handshake, error, None)
    };
    // An e-mail address alone; an IP address as a DNS name, while the client connects by
    // another name.
    for presented in [
        &["Unsupported(0x01)"][..],
        &["Unsupported(0x06)", "Unsupported(0x01)"],
        &["DnsName(\"127.0.0.1\")"],
    ] {
        let error = about("localhost", presented);
        assert!(!error.to_string().contains("0x"), "{error}");
        assert!(error.to_string().contains("nothing among"), "{error}");
        let advice = error.advice().unwrap();
        assert!(
            advice.contains("--force --server-name localhost"),
            "{advice}"
        );
        assert!(!advice.contains("by one of its names"), "{advice}");
    }
    let alone = about(
        "127.0.0.1",
        &["DnsName(\"127.0.0.1\")", "Unsupported(0x01)"],
    );
    assert!(!alone.advice().unwrap().contains("one of its names"));
    let other = about(
        "127.0.0.1",
        &["DnsName(\"127.0.0.1\")", "DnsName(\"*.b.org\")"],
    );
    assert!(other.advice().unwrap().contains("one of its names"));
    let mixed = about("c.org", &["DnsName(\"*.b.org\")", "Unsupported(0x01)"]);
    assert!(mixed.to_string().ends_with("but for *.b.org."), "{mixed}");
    let dotted = about("localhost", &["DnsName(\"localhost.\")"]);
    assert!(
        dotted
            .to_string()
            .contains("is for `localhost.`, and a name with a full stop"),
        "{dotted}"
    );
    let v6 = about("localhost", &["IpAddress(0::1)"]);
    assert!(v6.to_string().ends_with("but for ::1."), "{v6}");
}

#[test]
fn an_ip_address_among_the_dns_names_is_reported() {
    let reason = CertificateError::NotValidForNameContext {
        expected: "127.0.0.1".try_into().unwrap(),
        presented: vec!["DnsName(\"127.0.0.1\")".to_owned()],
    };
    let error = tls(rustls::Error::InvalidCertificate(reason));
    let error = explained("127.0.0.1:1", "127.0.0.1", Stage::Handshake, error, None);
    assert!(
        error
            .to_string()
            .contains("as a DNS name only (DNS:127.0.0.1)"),
        "{error}"
    );
    assert!(
        error
            .advice()
            .unwrap()
            .contains("subjectAltName=IP:127.0.0.1")
    );
}
