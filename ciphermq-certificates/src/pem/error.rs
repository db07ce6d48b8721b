//! The reason why a file is not the expected PEM, and what to do.

use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Expected;
use super::sections::{Section, are_lines_joined};

/// The reason why a text has no usable certificate or private key.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PemError {
    /// The text is empty.
    Empty(Expected),
    /// The private key is encrypted.
    Encrypted,
    /// The expected section is damaged.
    Broken(Expected),
    /// The text is PEM of another kind; the label is that of the first section.
    Other(Expected, String),
    /// The line breaks are lost, or a line holds more than its `BEGIN`.
    Joined(Expected),
    /// The contents are binary.
    Binary(Expected, BinaryFormat),
    /// The contents are neither PEM nor a known binary format.
    Unknown(Expected),
}

/// A binary format of certificates and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BinaryFormat {
    /// A certificate in DER.
    Certificate,
    /// A private key in DER.
    PrivateKey,
    /// An encrypted private key in DER (RFC 5958, section 3).
    EncryptedPrivateKey,
    /// PKCS #12: certificates and keys, encrypted with a password.
    Pkcs12,
    /// PKCS #7: certificates.
    Pkcs7,
    /// Other DER.
    Other,
}

impl PemError {
    /// Returns the reason, as text between "There is" and "in the file".
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Encrypted
            | Self::Binary(Expected::PrivateKey, BinaryFormat::EncryptedPrivateKey) => {
                "only an encrypted private key"
            }
            Self::Broken(Expected::Certificates) => "a broken certificate",
            Self::Broken(Expected::PrivateKey) => "a broken private key",
            Self::Binary(Expected::Certificates, _) | Self::Joined(Expected::Certificates) => {
                "no certificate in PEM"
            }
            Self::Binary(Expected::PrivateKey, _) | Self::Joined(Expected::PrivateKey) => {
                "no private key in PEM"
            }
            Self::Empty(expected) | Self::Other(expected, _) | Self::Unknown(expected) => {
                match expected {
                    Expected::Certificates => "no certificate",
                    Expected::PrivateKey => "no unencrypted private key",
                }
            }
        }
    }

    /// Returns advice for a file that must keep its name.
    #[must_use]
    pub fn advice_in_place(&self, file: &str) -> String {
        let advice = self.advice(file);
        // The commands write the result beside the file.
        let result = [".plain", ".pem"].map(|end| format!("{file}{end}"));
        match result.iter().find(|result| advice.contains(*result)) {
            Some(result) => {
                let command = advice
                    .trim_end_matches('.')
                    .trim_end_matches(", and name that one")
                    .replace(" into another file", "")
                    .replace(" and name that file", "");
                format!("{command} && mv {result} {file}")
            }
            None => advice,
        }
    }

    /// Returns advice for a file with this name, which may be replaced by another.
    #[must_use]
    pub fn advice(&self, file: &str) -> String {
        match self {
            Self::Empty(_) => "It is empty: name the right file, or create it again.".to_owned(),
            Self::Encrypted => decrypt(file),
            Self::Broken(_) => {
                "It is truncated or altered: copy or create it again, from its `-----BEGIN` to its \
                 `-----END` line."
                    .to_owned()
            }
            Self::Other(expected, label) => other(*expected, label, file),
            Self::Joined(_) => format!(
                "Its line breaks are lost, or its `-----BEGIN` line contains other text: copy it \
                 again unchanged, or restore the line breaks and name that file: (umask 077; \
                 awk '{PUT_LINE_BREAKS}' {file} > {file}.pem)"
            ),
            Self::Binary(expected, binary) => convert(*expected, *binary, file),
            Self::Unknown(_) => "It must be PEM, as `ciphermq-cli certs` and OpenSSL write \
                                 it."
            .to_owned(),
        }
    }
}

/// An awk program that puts the `BEGIN` and `END` marks of sections on separate lines.
const PUT_LINE_BREAKS: &str =
    r#"{gsub(/\\n/,"\n"); gsub(/-----(BEGIN|END) [A-Z0-9 ]*-----/,"\n&\n"); print}"#;

fn decrypt(file: &str) -> String {
    format!(
        "Decrypt it into another file: (umask 077; openssl pkey -in {file} -out \
         {file}.plain), and name that one."
    )
}

fn other(expected: Expected, label: &str, file: &str) -> String {
    match (expected, label) {
        (Expected::PrivateKey, "ENCRYPTED PRIVATE KEY") => decrypt(file),
        (Expected::PrivateKey, "OPENSSH PRIVATE KEY") => {
            "It is a key for SSH. Name the private key that was made with the \
             certificate."
                .to_owned()
        }
        (Expected::PrivateKey, "CERTIFICATE") => {
            "It holds a certificate: are the certificate and the private key swapped?".to_owned()
        }
        (Expected::Certificates, label) if label.ends_with("PRIVATE KEY") => {
            "It holds a private key: are the certificate and the private key swapped?".to_owned()
        }
        (Expected::Certificates, "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => {
            "It holds a request for a certificate: have the authority issue the certificate, and \
             name that."
                .to_owned()
        }
        (Expected::Certificates, "TRUSTED CERTIFICATE") => {
            format!(
                "It holds a certificate in OpenSSL's own form. Convert it: openssl x509 -in {file} \
                 -out {file}.pem"
            )
        }
        (Expected::Certificates, "PKCS7") => {
            format!(
                "It holds PKCS #7. Convert it: openssl pkcs7 -print_certs -in {file} -out \
                     {file}.pem"
            )
        }
        (_, label) => format!("It holds `{label}`: name the right file."),
    }
}

fn convert(expected: Expected, binary: BinaryFormat, file: &str) -> String {
    match (expected, binary) {
        (Expected::Certificates, BinaryFormat::Certificate) => {
            format!(
                "It is a certificate in DER. Convert it: openssl x509 -inform der -in {file} -out \
                 {file}.pem"
            )
        }
        (Expected::PrivateKey, BinaryFormat::PrivateKey) => format!(
            "It is a private key in DER. Convert it: (umask 077; openssl pkey -inform der -in \
             {file} -out {file}.pem)"
        ),
        (Expected::PrivateKey, BinaryFormat::EncryptedPrivateKey) => format!(
            "It is DER. Decrypt it into another file: (umask 077; openssl pkcs8 -inform der \
             -in {file} -out {file}.plain), and name that one."
        ),
        (Expected::Certificates, BinaryFormat::Pkcs12) => {
            format!(
                "It is PKCS #12. Take the certificates out (with -legacy for old ones): openssl \
                 pkcs12 -nokeys -in {file} -out {file}.pem"
            )
        }
        (Expected::PrivateKey, BinaryFormat::Pkcs12) => format!(
            "It is PKCS #12. Take the private key out (with -legacy for old ones): (umask 077; \
             openssl pkcs12 -nocerts -noenc -in {file} -out {file}.pem)"
        ),
        (Expected::Certificates, BinaryFormat::Pkcs7) => format!(
            "It is PKCS #7. Convert it: openssl pkcs7 -inform der -print_certs -in {file} -out \
             {file}.pem"
        ),
        (Expected::Certificates, BinaryFormat::PrivateKey | BinaryFormat::EncryptedPrivateKey) => {
            "It is a private key in DER: are the certificate and the private key swapped? Both \
             must be PEM."
                .to_owned()
        }
        (Expected::PrivateKey, BinaryFormat::Certificate | BinaryFormat::Pkcs7) => {
            "It is a certificate in DER: are the certificate and the private key swapped? Both \
             must be PEM."
                .to_owned()
        }
        (_, BinaryFormat::Other) => {
            "It is binary (DER): convert it to PEM with OpenSSL.".to_owned()
        }
    }
}

/// Describes a text without the expected section.
pub(super) fn describe(text: &[u8], sections: &[Section], expected: Expected) -> PemError {
    if text.trim_ascii().is_empty() {
        return PemError::Empty(expected);
    }
    if are_lines_joined(text) {
        return PemError::Joined(expected);
    }
    // Curve parameters precede keys and do not reveal the kind of the file.
    if let Some(section) = sections
        .iter()
        .find(|section| section.label != "EC PARAMETERS")
    {
        return PemError::Other(expected, section.label.clone());
    }
    binary(text).map_or(PemError::Unknown(expected), |binary| {
        PemError::Binary(expected, binary)
    })
}

/// Recognises a binary format by its first bytes.
fn binary(bytes: &[u8]) -> Option<BinaryFormat> {
    if X509Certificate::from_der(bytes).is_ok() {
        return Some(BinaryFormat::Certificate);
    }
    let inner = inside_sequence(bytes)?;
    Some(match inner {
        // Version 3 (RFC 7292, section 4).
        [2, 1, 3, ..] => BinaryFormat::Pkcs12,
        // signedData (RFC 2315, section 14).
        [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2, ..] => BinaryFormat::Pkcs7,
        // Version 0 or 1 of PKCS #8, PKCS #1 and SEC 1.
        [2, 1, 0 | 1, ..] => BinaryFormat::PrivateKey,
        _ => match inside_sequence(inner) {
            // Encryption with a password, PKCS #5 or PKCS #12 (RFC 8018, RFC 7292).
            Some([6, _, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5 | 12, ..]) => {
                BinaryFormat::EncryptedPrivateKey
            }
            _ => BinaryFormat::Other,
        },
    })
}

/// Returns what follows the header of a sequence in DER.
fn inside_sequence(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [0x30, length, rest @ ..] if *length < 0x80 => Some(rest),
        [0x30, 0x81, _, rest @ ..]
        | [0x30, 0x82, _, _, rest @ ..]
        | [0x30, 0x83, _, _, _, rest @ ..] => Some(rest),
        // Indefinite length.
        [0x30, 0x80, rest @ ..] => Some(rest),
        _ => None,
    }
}
