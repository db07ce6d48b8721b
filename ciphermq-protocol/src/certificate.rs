//! Fingerprints and chains of certificates, as the protocol transfers them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The fingerprint of a certificate: SHA-256 of its DER.
///
/// Its text is 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// An error about a text that is not a fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 lower-case hexadecimal digits")]
pub struct FingerprintError;

crate::debug_as_report!(FingerprintError);

impl Fingerprint {
    /// Creates the fingerprint of a SHA-256 hash.
    #[must_use]
    pub const fn from_bytes(hash: [u8; 32]) -> Self {
        Self(hash)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Parses exactly the form that `Display` writes.
impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        parse_hex(text).map(Self).ok_or(FingerprintError)
    }
}

/// Decodes exactly `N` bytes of lower-case hexadecimal, the only accepted spelling.
#[must_use]
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    let is_lower_case = !text.bytes().any(|byte| byte.is_ascii_uppercase());
    is_lower_case.then_some(bytes)
}

/// A certificate chain, the client's own certificate first, **not verified**.
///
/// It holds the certificates as transferred, base64 of DER each; [`CertificateChain::to_der`]
/// decodes them. Its text, on the wire and in the store, separates them with commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateChain(Vec<String>);

impl CertificateChain {
    /// Creates a chain from certificates in DER.
    pub fn from_der<T: AsRef<[u8]>>(chain: impl IntoIterator<Item = T>) -> Self {
        Self(chain.into_iter().map(|der| STANDARD.encode(der)).collect())
    }

    /// Splits the text of a chain, without decoding it.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(text.split(',').map(str::to_owned).collect())
    }

    /// Decodes the certificates; `None` if one of them is not canonical base64.
    #[must_use]
    pub fn to_der(&self) -> Option<Vec<Vec<u8>>> {
        let decode = |text: &String| STANDARD.decode(text).ok();
        self.0.iter().map(decode).collect()
    }

    /// Returns the total length of the certificates' base64, in bytes.
    #[must_use]
    pub fn base64_len(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }
}

impl fmt::Display for CertificateChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, certificate) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{certificate}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_fingerprints_are_parsed() {
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let fingerprint: Fingerprint = text.parse().unwrap();
        assert_eq!(fingerprint.to_string(), text);
        for other in [
            &text[1..],
            &format!("{text}0"),
            &format!("{text}00"),
            &text.to_uppercase(),
            &text.replace('e', "g"),
            "",
            &format!("+{}", &text[1..]),
        ] {
            assert_eq!(
                other.parse::<Fingerprint>(),
                Err(FingerprintError),
                "{other}"
            );
        }
    }

    #[test]
    fn chains_round_trip() {
        let chain = CertificateChain::from_der([&b"a"[..], b"", b"bc"]);
        assert_eq!(chain.to_string(), "YQ==,,YmM=");
        assert_eq!(CertificateChain::from_text("YQ==,,YmM="), chain);
        let der = chain.to_der().unwrap();
        assert_eq!(der, [&b"a"[..], b"", b"bc"]);
        for other in ["YQ=", "YR==", "YQ==, YQ==", "!"] {
            assert_eq!(CertificateChain::from_text(other).to_der(), None, "{other}");
        }
    }
}
