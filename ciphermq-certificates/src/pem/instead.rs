//! What stands in a file instead of what is wanted, and what to do about it.

use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::Wanted;
use super::sections::{Section, are_lines_joined};

/// Why a text holds no certificate, or no private key, that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotPem {
    /// It is empty.
    Empty(Wanted),
    /// The private key is encrypted.
    Encrypted,
    /// What is wanted is there, and damaged.
    Broken(Wanted),
    /// It is PEM of other kinds; this is the first one.
    Other(Wanted, String),
    /// Its line breaks are lost, or something stands beside a `BEGIN` in its line.
    Joined(Wanted),
    /// It is a binary form.
    Binary(Wanted, Binary),
    /// It is neither PEM nor a binary form that is known.
    Unknown(Wanted),
}

/// A binary form that certificates and keys come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binary {
    /// A certificate in DER.
    Certificate,
    /// A private key in DER.
    PrivateKey,
    /// A private key in DER, encrypted (RFC 5958, section 3).
    EncryptedPrivateKey,
    /// PKCS #12: certificates and keys under a password.
    Pkcs12,
    /// PKCS #7: certificates.
    Pkcs7,
    /// DER, and nothing of these.
    Other,
}

impl NotPem {
    /// What is wrong: what stands between "There is" and "in the file".
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Encrypted | Self::Binary(Wanted::PrivateKey, Binary::EncryptedPrivateKey) => {
                "only an encrypted private key"
            }
            Self::Broken(Wanted::Certificates) => "a broken certificate",
            Self::Broken(Wanted::PrivateKey) => "a broken private key",
            Self::Binary(Wanted::Certificates, _) | Self::Joined(Wanted::Certificates) => {
                "no certificate in PEM"
            }
            Self::Binary(Wanted::PrivateKey, _) | Self::Joined(Wanted::PrivateKey) => {
                "no private key in PEM"
            }
            Self::Empty(wanted) | Self::Other(wanted, _) | Self::Unknown(wanted) => match wanted {
                Wanted::Certificates => "no certificate",
                Wanted::PrivateKey => "no unencrypted private key",
            },
        }
    }

    /// What to do about it, for a file of this name.
    #[must_use]
    pub fn advice(&self, file: &str) -> String {
        match self {
            Self::Empty(_) => "It is empty: name the right file, or write it anew.".to_owned(),
            Self::Encrypted => decrypt(file),
            Self::Broken(_) => {
                "It was cut or changed: copy or write it anew, from its `-----BEGIN` to its \
                 `-----END` line."
                    .to_owned()
            }
            Self::Other(wanted, label) => other(*wanted, label, file),
            Self::Joined(_) => format!(
                "Its line breaks are lost, or something stands beside its `-----BEGIN` line: copy \
                 it anew as it was, or put the line breaks back and name that file: (umask 077; \
                 awk '{PUT_LINE_BREAKS}' {file} > {file}.pem)"
            ),
            Self::Binary(wanted, binary) => convert(*wanted, *binary, file),
            Self::Unknown(_) => "It must be PEM, as `ciphermq-cli certs` and OpenSSL write \
                                 it."
            .to_owned(),
        }
    }
}

/// A program for awk that puts what begins and ends a section on lines of their own.
const PUT_LINE_BREAKS: &str =
    r#"{gsub(/\\n/,"\n"); gsub(/-----(BEGIN|END) [A-Z0-9 ]*-----/,"\n&\n"); print}"#;

fn decrypt(file: &str) -> String {
    format!(
        "Decrypt it into a file of its own: (umask 077; openssl pkey -in {file} -out \
         {file}.plain), and name that one."
    )
}

fn other(wanted: Wanted, label: &str, file: &str) -> String {
    match (wanted, label) {
        (Wanted::PrivateKey, "ENCRYPTED PRIVATE KEY") => decrypt(file),
        (Wanted::PrivateKey, "OPENSSH PRIVATE KEY") => {
            "It is a key for SSH. Name the private key that was made with the \
             certificate."
                .to_owned()
        }
        (Wanted::PrivateKey, "CERTIFICATE") => {
            "It holds a certificate: are the certificate and the private key swapped?".to_owned()
        }
        (Wanted::Certificates, label) if label.ends_with("PRIVATE KEY") => {
            "It holds a private key: are the certificate and the private key swapped?".to_owned()
        }
        (Wanted::Certificates, "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST") => {
            "It holds a request for a certificate: have the authority issue the certificate, and \
             name that."
                .to_owned()
        }
        (Wanted::Certificates, "TRUSTED CERTIFICATE") => {
            format!(
                "It holds a certificate in OpenSSL's own form. Convert it: openssl x509 -in {file} \
                 -out {file}.pem"
            )
        }
        (Wanted::Certificates, "PKCS7") => {
            format!(
                "It holds PKCS #7. Convert it: openssl pkcs7 -print_certs -in {file} -out \
                     {file}.pem"
            )
        }
        (_, label) => format!("It holds `{label}`: name the right file."),
    }
}

fn convert(wanted: Wanted, binary: Binary, file: &str) -> String {
    match (wanted, binary) {
        (Wanted::Certificates, Binary::Certificate) => {
            format!(
                "It is a certificate in DER. Convert it: openssl x509 -inform der -in {file} -out \
                 {file}.pem"
            )
        }
        (Wanted::PrivateKey, Binary::PrivateKey) => format!(
            "It is a private key in DER. Convert it: (umask 077; openssl pkey -inform der -in \
             {file} -out {file}.pem)"
        ),
        (Wanted::PrivateKey, Binary::EncryptedPrivateKey) => format!(
            "It is DER. Decrypt it into a file of its own: (umask 077; openssl pkcs8 -inform der \
             -in {file} -out {file}.plain), and name that one."
        ),
        (Wanted::Certificates, Binary::Pkcs12) => {
            format!(
                "It is PKCS #12. Take the certificates out (with -legacy for old ones): openssl \
                 pkcs12 -nokeys -in {file} -out {file}.pem"
            )
        }
        (Wanted::PrivateKey, Binary::Pkcs12) => format!(
            "It is PKCS #12. Take the private key out (with -legacy for old ones): (umask 077; \
             openssl pkcs12 -nocerts -noenc -in {file} -out {file}.pem)"
        ),
        (Wanted::Certificates, Binary::Pkcs7) => format!(
            "It is PKCS #7. Convert it: openssl pkcs7 -inform der -print_certs -in {file} -out \
             {file}.pem"
        ),
        (Wanted::Certificates, Binary::PrivateKey | Binary::EncryptedPrivateKey) => {
            "It is a private key in DER: are the certificate and the private key swapped? Both \
             must be PEM."
                .to_owned()
        }
        (Wanted::PrivateKey, Binary::Certificate | Binary::Pkcs7) => {
            "It is a certificate in DER: are the certificate and the private key swapped? Both \
             must be PEM."
                .to_owned()
        }
        (_, Binary::Other) => "It is binary (DER): convert it to PEM with OpenSSL.".to_owned(),
    }
}

/// What stands in a text that does not hold what is wanted.
pub(super) fn instead(text: &[u8], sections: &[Section], wanted: Wanted) -> NotPem {
    if text.trim_ascii().is_empty() {
        return NotPem::Empty(wanted);
    }
    if are_lines_joined(text) {
        return NotPem::Joined(wanted);
    }
    // Curves' parameters stand before keys, and say nothing of what the file is.
    if let Some(section) = sections
        .iter()
        .find(|section| section.label != "EC PARAMETERS")
    {
        return NotPem::Other(wanted, section.label.clone());
    }
    binary(text).map_or(NotPem::Unknown(wanted), |binary| {
        NotPem::Binary(wanted, binary)
    })
}

/// Which binary form it is, by what stands first in it.
fn binary(bytes: &[u8]) -> Option<Binary> {
    if X509Certificate::from_der(bytes).is_ok() {
        return Some(Binary::Certificate);
    }
    let inner = inside_sequence(bytes)?;
    Some(match inner {
        // Version 3 (RFC 7292, section 4).
        [2, 1, 3, ..] => Binary::Pkcs12,
        // signedData (RFC 2315, section 14).
        [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2, ..] => Binary::Pkcs7,
        // Version 0 or 1 of PKCS #8, PKCS #1 and SEC 1.
        [2, 1, 0 | 1, ..] => Binary::PrivateKey,
        _ => match inside_sequence(inner) {
            // What encrypts by a password: PKCS #5 and PKCS #12 (RFC 8018, RFC 7292).
            Some([6, _, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 5 | 12, ..]) => {
                Binary::EncryptedPrivateKey
            }
            _ => Binary::Other,
        },
    })
}

/// What follows the header of a sequence in DER.
fn inside_sequence(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [0x30, length, rest @ ..] if *length < 0x80 => Some(rest),
        [0x30, 0x81, _, rest @ ..]
        | [0x30, 0x82, _, _, rest @ ..]
        | [0x30, 0x83, _, _, _, rest @ ..] => Some(rest),
        // Of no length that is known beforehand.
        [0x30, 0x80, rest @ ..] => Some(rest),
        _ => None,
    }
}
