//! Checks the PEM files that TLS to PostgreSQL needs, before the driver reads them.
//!
//! The driver does not report which of them is wrong, and treats an empty one as absent.

use std::path::PathBuf;

use ciphermq_certificates::pem::{self, PemError};
use ciphermq_protocol::text::shown;
use rustls::RootCertStore;
use sqlx::postgres::PgSslMode;
use url::Url;
use zeroize::Zeroizing;

use crate::config::{Postgres, Target};
use crate::store::Error;

/// Refuses files that do not hold what they must, as far as this mode reads them.
pub(super) fn check(settings: &Postgres, mode: PgSslMode) -> Result<(), Error> {
    let verifies = matches!(mode, PgSslMode::VerifyCa | PgSslMode::VerifyFull);
    if verifies && let Some(file) = PemFile::find(settings, "sslrootcert") {
        let found = file.read(pem::certificates)?;
        for certificate in found {
            RootCertStore::empty()
                .add(certificate)
                .map_err(|error| file.unusable(&format!("holds no usable certificate: {error}")))?;
        }
    }
    if verifies || matches!(mode, PgSslMode::Require) {
        if let Some(file) = PemFile::find(settings, "sslcert") {
            file.read(pem::certificates)?;
        }
        if let Some(file) = PemFile::find(settings, "sslkey") {
            file.read(pem::private_key)?;
        }
    }
    Ok(())
}

struct PemFile {
    /// The parameter that names it.
    name: &'static str,
    path: PathBuf,
}

impl PemFile {
    /// Finds the file that is named for this: in a field, in the URL, or in a variable of
    /// PostgreSQL's own. PEM text in place of a name is left to the driver.
    fn find(settings: &Postgres, name: &'static str) -> Option<Self> {
        let field = settings
            .sslrootcert
            .clone()
            .filter(|_| name == "sslrootcert");
        let path = field
            .or_else(|| in_url(&settings.target, name))
            .or_else(|| {
                let variable = format!("PG{}", name.to_ascii_uppercase());
                std::env::var_os(variable).map(PathBuf::from)
            })?;
        let is_text = path.as_os_str().as_encoded_bytes().trim_ascii();
        (!is_text.starts_with(b"-----BEGIN")).then_some(Self { name, path })
    }

    fn read<T>(&self, parse: fn(&[u8]) -> Result<T, PemError>) -> Result<T, Error> {
        let text = std::fs::read(&self.path)
            .map_err(|error| self.unusable(&format!("cannot be read: {error}")))?;
        parse(&Zeroizing::new(text)).map_err(|wrong| {
            let path = self.path.display().to_string();
            self.unusable(&format!(
                "holds {}. {}",
                wrong.reason(),
                wrong.advice(&path).trim_end_matches('.')
            ))
        })
    }

    fn unusable(&self, what: &str) -> Error {
        let (name, path) = (self.name, shown(&self.path));
        Error::Unusable(format!(
            "{name} of the PostgreSQL database: {path} {what}; name the right PEM file there"
        ))
    }
}

/// The last one counts, as it does for the driver.
fn in_url(target: &Target, name: &str) -> Option<PathBuf> {
    let Target::Url(url) = target else {
        return None;
    };
    let url = Url::parse(url.expose()).ok()?;
    let spellings = match name {
        "sslrootcert" => &["sslrootcert", "ssl-root-cert", "ssl-ca"][..],
        "sslcert" => &["sslcert", "ssl-cert"],
        _ => &["sslkey", "ssl-key"],
    };
    url.query_pairs()
        .filter(|(key, _)| spellings.contains(&&**key))
        .last()
        .map(|(_, value)| PathBuf::from(value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(query: &str) -> Postgres {
        Postgres {
            target: Target::Url(format!("postgres://u@h/d?{query}").into()),
            sslmode: None,
            sslrootcert: None,
        }
    }

    fn refused(settings: &Postgres, mode: PgSslMode) -> String {
        match check(settings, mode).unwrap_err() {
            Error::Unusable(text) => text,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_file_that_is_missing_empty_or_of_another_kind_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.crt");
        let name = path.to_str().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap();
        let in_field = Postgres {
            sslrootcert: Some(path.clone()),
            ..url("")
        };
        for settings in [
            in_field,
            url(&format!("sslrootcert={name}")),
            url(&format!("ssl-ca=/other&ssl-root-cert={name}")),
        ] {
            let _ = std::fs::remove_file(&path);
            let text = refused(&settings, PgSslMode::VerifyFull);
            assert!(
                text.contains("sslrootcert") && text.contains(name),
                "{text}"
            );
            for (content, told) in [
                (String::new(), "It is empty"),
                ("hello".to_owned(), "must be PEM"),
                (key.serialize_pem(), "It holds a private key"),
            ] {
                std::fs::write(&path, content).unwrap();
                let text = refused(&settings, PgSslMode::VerifyCa);
                assert!(text.contains(told) && text.contains(name), "{text}");
                // This mode reads no file.
                check(&settings, PgSslMode::Prefer).unwrap();
            }
            std::fs::write(&path, certificate.pem()).unwrap();
            check(&settings, PgSslMode::VerifyFull).unwrap();
        }
        let own = url(&format!("sslcert={name}&sslkey={name}"));
        let text = refused(&own, PgSslMode::Require);
        assert!(
            text.contains("sslkey") && text.contains("swapped"),
            "{text}"
        );
    }
}
