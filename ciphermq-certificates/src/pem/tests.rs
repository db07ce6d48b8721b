use super::error::BinaryFormat;
use super::*;

fn pair() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&key)
        .unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn utf16(text: &str, mark: [u8; 2], bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    mark.into_iter()
        .chain(text.encode_utf16().flat_map(bytes))
        .collect()
}

#[test]
fn variants_of_pem_are_read() {
    let (certificate, key) = pair();
    let der = certificates(certificate.as_bytes()).unwrap();
    let secret = private_key(key.as_bytes()).unwrap();
    let forms: [fn(&str) -> Vec<u8>; 9] = [
        |text| text.as_bytes().to_vec(),
        |text| text.replace('\n', "\r\n").into_bytes(),
        |text| text.replace('\n', "\r").into_bytes(),
        |text| format!("\u{feff}{text}").into_bytes(),
        |text| format!("Bag Attributes\n    friendlyName: me\n{text}\nand so on").into_bytes(),
        |text| text.replace('\n', "  \n    ").into_bytes(),
        |text| text.trim_end().to_owned().into_bytes(),
        |text| utf16(text, [0xff, 0xfe], u16::to_le_bytes),
        |text| utf16(text, [0xfe, 0xff], u16::to_be_bytes),
    ];
    for form in forms {
        assert_eq!(certificates(&form(&certificate)), Ok(der.clone()));
        assert_eq!(private_key(&form(&key)).unwrap(), secret);
        // A file may hold both.
        let both = form(&format!("{key}{certificate}"));
        assert_eq!(certificates(&both), Ok(der.clone()));
        assert_eq!(private_key(&both).unwrap(), secret);
    }
    // Two files in one, the second one with its own byte order mark.
    let chain = certificates(format!("{certificate}\u{feff}{certificate}").as_bytes()).unwrap();
    assert_eq!(chain.len(), 2);
    let older = certificate.replace("CERTIFICATE-", "X509 CERTIFICATE-");
    assert_eq!(certificates(older.as_bytes()), Ok(der));
}

#[test]
fn an_encrypted_key_does_not_hide_a_certificate() {
    let (certificate, _) = pair();
    let encrypted = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: \
                     AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let both = format!("{encrypted}{certificate}");
    assert_eq!(certificates(both.as_bytes()).unwrap().len(), 1);
    assert_eq!(private_key(both.as_bytes()), Err(PemError::Encrypted));
}

#[test]
fn errors_describe_the_contents_and_advise() {
    let (certificate, key) = pair();
    let relabelled =
        |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
    let der = certificates(certificate.as_bytes()).unwrap()[0].to_vec();
    let secret = private_key(key.as_bytes()).unwrap().secret_der().to_vec();
    for (text, reason, advice) in [
        (b"".to_vec(), "no certificate", "empty"),
        (b" \n".to_vec(), "no certificate", "empty"),
        (b"hello".to_vec(), "no certificate", "must be PEM"),
        (key.clone().into_bytes(), "no certificate", "swapped"),
        (
            relabelled("CERTIFICATE REQUEST").into_bytes(),
            "no certificate",
            "request",
        ),
        (
            relabelled("TRUSTED CERTIFICATE").into_bytes(),
            "no certificate",
            "openssl x509 -in F",
        ),
        (
            relabelled("PKCS7").into_bytes(),
            "no certificate",
            "openssl pkcs7",
        ),
        (
            relabelled("X509 CRL").into_bytes(),
            "no certificate",
            "`X509 CRL`",
        ),
        (
            der.clone(),
            "no certificate in PEM",
            "openssl x509 -inform der -in F",
        ),
        (secret.clone(), "no certificate in PEM", "swapped"),
        (
            certificate.replace("END", "EMD").into_bytes(),
            "a broken certificate",
            "truncated or altered",
        ),
        (
            certificate.replacen('M', "*", 1).into_bytes(),
            "a broken certificate",
            "truncated or altered",
        ),
    ] {
        let error = certificates(&text).unwrap_err();
        assert_eq!(error.reason(), reason, "{error:?}");
        assert!(error.advice("F").contains(advice), "{}", error.advice("F"));
    }
    for (text, reason, advice) in [
        (b"".to_vec(), "no unencrypted private key", "empty"),
        (
            certificate.clone().into_bytes(),
            "no unencrypted private key",
            "swapped",
        ),
        (
            relabelled("ENCRYPTED PRIVATE KEY").into_bytes(),
            "no unencrypted private key",
            "openssl pkey -in F",
        ),
        (
            relabelled("OPENSSH PRIVATE KEY").into_bytes(),
            "no unencrypted private key",
            "SSH",
        ),
        (
            secret,
            "no private key in PEM",
            "openssl pkey -inform der -in F",
        ),
        (der, "no private key in PEM", "swapped"),
        (
            key.replacen('M', "*", 1).into_bytes(),
            "a broken private key",
            "truncated or altered",
        ),
    ] {
        let error = private_key(&text).unwrap_err();
        assert_eq!(error.reason(), reason, "{error:?}");
        assert!(error.advice("F").contains(advice), "{}", error.advice("F"));
    }
}

#[test]
fn binary_formats_are_recognised_by_their_first_bytes() {
    let pkcs7 = [
        0x30, 0x82, 1, 0, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2, 0xa0,
    ];
    for (bytes, form) in [
        (&[0x30, 0x82, 9, 9, 2, 1, 3, 0x30][..], BinaryFormat::Pkcs12),
        (&[0x30, 0x80, 2, 1, 3, 0x30], BinaryFormat::Pkcs12),
        (&pkcs7, BinaryFormat::Pkcs7),
        (&[0x30, 0x77, 2, 1, 1, 4], BinaryFormat::PrivateKey),
        (
            &[
                0x30, 0x81, 0xef, 0x30, 0x5a, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5, 13,
            ],
            BinaryFormat::EncryptedPrivateKey,
        ),
        (&[0x30, 0x05, 0x30, 3], BinaryFormat::Other),
    ] {
        let error = certificates(bytes).unwrap_err();
        assert_eq!(error, PemError::Binary(Expected::Certificates, form));
    }
}

/// Pasting, environment variables and editors damage files in these ways.
#[test]
fn errors_reveal_nothing_of_a_key_without_line_breaks() {
    let (certificate, key) = pair();
    let forms: [fn(&str) -> String; 6] = [
        |text| text.replace('\n', ""),
        |text| text.replace('\n', " "),
        |text| text.replace('\n', "\\n"),
        |text| text.replacen("-----\n", "-----", 1),
        |text| format!("\"{text}\""),
        |text| text.replace('\n', "\n> ").replacen('-', "> -", 1),
    ];
    let secret: Vec<&str> = key.lines().filter(|line| !line.starts_with('-')).collect();
    for form in forms {
        let error = private_key(form(&key).as_bytes()).unwrap_err();
        assert_eq!(
            error,
            PemError::Joined(Expected::PrivateKey),
            "{}",
            form(&key)
        );
        let message = format!("{error:?} {} {}", error.reason(), error.advice("F"));
        assert!(message.contains("line breaks"), "{message}");
        assert!(
            !secret.iter().any(|line| message.contains(&line[..8])),
            "{message}"
        );
        let error = certificates(form(&certificate).as_bytes()).unwrap_err();
        assert_eq!(error, PemError::Joined(Expected::Certificates));
        // A key that is given in place of a certificate must not be revealed either.
        let error = certificates(form(&key).as_bytes()).unwrap_err();
        assert_eq!(error, PemError::Joined(Expected::Certificates));
    }
    let long = format!("-----BEGIN {}-----\n", "A".repeat(65));
    let error = private_key(long.as_bytes()).unwrap_err();
    assert_eq!(error, PemError::Joined(Expected::PrivateKey));
}

#[test]
fn advice_in_place_ends_with_the_file_itself() {
    let (_, key) = pair();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE \
                     KEY-----\n";
    let advice = |text: &str| {
        let error = private_key(text.as_bytes()).unwrap_err();
        error.advice_in_place("F")
    };
    assert_eq!(
        advice(encrypted),
        "Decrypt it: (umask 077; openssl pkey -in F -out F.plain) && mv F.plain F"
    );
    let joined = advice(&key.replace('\n', " "));
    assert!(
        joined.ends_with("F > F.pem) && mv F.pem F") && !joined.contains("name that file"),
        "{joined}"
    );
    assert!(advice("").contains("empty"));
}

#[test]
fn the_advised_command_restores_line_breaks() {
    let (_, key) = pair();
    let secret = private_key(key.as_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one.key");
    for (from, to) in [("\n", ""), ("\n", " "), ("\n", "\\n"), ("-----\n", "-----")] {
        std::fs::write(&path, key.replace(from, to)).unwrap();
        let name = path.to_str().unwrap();
        let error = private_key(&std::fs::read(&path).unwrap()).unwrap_err();
        let advice = error.advice(name);
        let command = advice.split_once(": (").unwrap().1;
        let status = std::process::Command::new("sh")
            .args(["-c", &format!("({command}")])
            .status()
            .unwrap();
        assert!(status.success(), "{advice}");
        let text = std::fs::read(format!("{name}.pem")).unwrap();
        assert_eq!(private_key(&text).unwrap(), secret, "{to:?}");
    }
}
