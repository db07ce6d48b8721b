//! Warns before the server's certificates end, and when they have.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ciphermq_certificates::{Nearness, Validity};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::current::Credentials;

/// The time between two looks at the clock, which may be set.
const INTERVAL: Duration = Duration::from_secs(60);

/// A certificate of the server or of an authority that it trusts, or an authority's revocation
/// list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The setting of `[tls]` that names its file.
    pub field: &'static str,
    /// Its file.
    pub path: PathBuf,
    /// Its place in the file, from 0: after the server's own are those of intermediate authorities.
    pub index: usize,
    /// Its subject and when it is valid; for a list, its issuer and when the next one comes.
    pub validity: Validity,
}

impl OwnCertificate {
    /// Describes the certificates of a file, as far as they can be parsed.
    pub(super) fn all(
        field: &'static str,
        path: &Path,
        certificates: &[CertificateDer<'_>],
    ) -> Vec<Self> {
        let certificates = certificates.iter().enumerate();
        certificates
            .filter_map(|(index, der)| {
                Some(Self {
                    field,
                    path: path.to_owned(),
                    index,
                    validity: Validity::read(der)?,
                })
            })
            .collect()
    }

    /// Returns what it is, in the words of `list_ends`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match (self.field, self.index) {
            ("ca_cert_path", _) => "authority",
            ("crl_paths", _) => "revocation_list",
            (_, 0) => "certificate",
            _ => "intermediate",
        }
    }

    fn advice(&self) -> &'static str {
        match (self.field, self.index) {
            ("ca_cert_path", _) => {
                "Check the clock; if it is right, renew the authority, or make a new one, and new \
                 certificates of it for the server and all clients (`keygen certs --force \
                 --new-ca`). Without one, this server refuses every client of the authority"
            }
            ("crl_paths", _) => {
                "Check the clock; if it is right, replace the file by a new list of the authority \
                 and send the server SIGHUP. A list that has ended may lack what was revoked since; \
                 with `crl_policy = \"required\"` every client of the authority is refused then"
            }
            (_, 0) => {
                "Check the clock; if it is right, issue a new certificate for the server (`keygen \
                 certs --force --server-name NAME`) and send the server SIGHUP. Without one, every \
                 client refuses to connect"
            }
            _ => {
                "Check the clock; if it is right, renew the certificate of this intermediate \
                 authority, replace it in the file, and send the server SIGHUP. Without it, every \
                 client refuses to connect"
            }
        }
    }

    /// Describes its end, as far as it is at this stage.
    fn end(&self, stage: Nearness, now: Timestamp) -> String {
        let not_after = self.validity.not_after;
        let end = match (stage, self.validity.error_at(now)) {
            (_, Some(error)) => error.to_string(),
            (Nearness::VeryNear, None) => format!("ends within a day, at {not_after}"),
            (Nearness::Near, None) => format!("ends within 14 days, at {not_after}"),
            (_, None) => format!("ends at {not_after}"),
        };
        let what = match self.field {
            "crl_paths" => "revocation list",
            _ => "certificate",
        };
        format!("[tls] {}: a {what} {end}", self.field)
    }

    fn warn(&self, stage: Nearness, now: Timestamp) {
        if stage != Nearness::Far {
            tracing::warn!(
                subject = self.validity.subject,
                path = %self.path.display(),
                advice = self.advice(),
                "{}",
                self.end(stage, now)
            );
        }
    }

    /// Whether another one of the same name replaces it. Of authorities with one name, a valid one
    /// is enough.
    fn is_replaced(&self, all: &[Self], now: Timestamp) -> bool {
        let replaces = |other: &Self| {
            other.kind() == "authority"
                && other.validity.subject == self.validity.subject
                && other.validity.error_at(now).is_none()
        };
        self.kind() == "authority" && all.iter().any(replaces)
    }
}

/// What an operator is told about the ends of certificates.
#[derive(Debug, PartialEq, Eq)]
pub struct EndReport {
    /// A line for each, and below it the advice if it is needed.
    pub text: String,
    /// Whether all of them are valid, except authorities that valid ones of the same name replace.
    pub is_valid: bool,
}

/// Reports when certificates and revocation lists end.
#[must_use]
pub fn report(own: &[OwnCertificate], now: Timestamp) -> EndReport {
    let mut is_valid = true;
    let line = |certificate: &OwnCertificate| {
        let stage = Nearness::of(&certificate.validity, now);
        let urgency = match stage {
            Nearness::Far => "",
            Nearness::Invalid if !certificate.is_replaced(own, now) => {
                is_valid = false;
                "error: "
            }
            _ => "warning: ",
        };
        let end = certificate.end(stage, now);
        let subject = &certificate.validity.subject;
        let line = format!("{urgency}{end} ({subject}, {})", certificate.path.display());
        match stage {
            Nearness::Far => line,
            _ => format!("{line}\n{}.", certificate.advice()),
        }
    };
    let lines: Vec<String> = own.iter().map(line).collect();
    EndReport {
        text: lines.join("\n"),
        is_valid,
    }
}

/// Warns of certificates that end soon, once for each stage.
pub struct EndWarnings {
    credentials: watch::Receiver<Arc<Credentials>>,
    /// The stages of the credentials' own certificates that were looked at last.
    stages: Vec<Nearness>,
}

impl EndWarnings {
    /// Warns of the credentials in force.
    ///
    /// That prevents no start: the clock may be wrong, and be corrected.
    #[must_use]
    pub fn new(credentials: watch::Receiver<Arc<Credentials>>) -> Self {
        let mut warnings = Self {
            credentials,
            stages: Vec::new(),
        };
        warnings.look(Timestamp::now());
        warnings
    }

    /// Warns of what has changed since the last look.
    fn look(&mut self, now: Timestamp) {
        let credentials = Arc::clone(&self.credentials.borrow_and_update());
        let own = credentials.own();
        let stages: Vec<Nearness> = own
            .iter()
            .map(|certificate| Nearness::of(&certificate.validity, now))
            .collect();
        for (index, (certificate, &stage)) in own.iter().zip(&stages).enumerate() {
            if self.stages.get(index) != Some(&stage) {
                certificate.warn(stage, now);
            }
        }
        self.stages = stages;
    }

    /// Warns as time passes and credentials are replaced, as long as the server runs.
    pub async fn run(mut self) {
        loop {
            match tokio::time::timeout(INTERVAL, self.credentials.changed()).await {
                // New files: everything that they have to say is said.
                Ok(Ok(())) => self.stages.clear(),
                Ok(Err(_)) => return,
                Err(_) => {}
            }
            self.look(Timestamp::now());
        }
    }
}
