//! Whether the certificate that has signed a key is revoked.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ciphermq_certificates::{Validity, fingerprint};
use ciphermq_protocol::Fingerprint;
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error};

use crate::keys::signing_chain;

/// The most answers that are remembered.
const MAX_ANSWERS: usize = 10_000;

/// The certificates that revocation lists name, as far as they have signed keys.
///
/// Answers are remembered: anybody may ask, as often as they like.
pub(super) struct RevokedSigners {
    /// Refuses what a list revokes, whether the list has ended or not.
    verifier: Arc<dyn ClientCertVerifier>,
    /// By the hash of the signed key.
    answers: Mutex<HashMap<Fingerprint, bool>>,
}

impl RevokedSigners {
    pub(super) fn new(verifier: Arc<dyn ClientCertVerifier>) -> Self {
        Self {
            verifier,
            answers: Mutex::default(),
        }
    }

    pub(super) fn has_signed(&self, signed_key: &str) -> bool {
        let key = fingerprint(signed_key.as_bytes());
        if let Some(known) = self.answers.lock().get(&key) {
            return *known;
        }
        let answer = self.look_up(signed_key, Timestamp::now());
        let mut answers = self.answers.lock();
        if answers.len() >= MAX_ANSWERS {
            answers.clear();
        }
        answers.insert(key, answer);
        answer
    }

    fn look_up(&self, signed_key: &str, now: Timestamp) -> bool {
        let Some(chain) = signing_chain(signed_key) else {
            return false;
        };
        let Some((own, intermediates)) = chain.split_first() else {
            return false;
        };
        // One that has ended may be revoked as well.
        let at = Validity::read(own).map_or(now, |validity| {
            now.min(validity.not_after).max(validity.not_before)
        });
        let seconds = u64::try_from(at.as_second()).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        matches!(
            self.verifier.verify_client_cert(own, intermediates, at),
            Err(Error::InvalidCertificate(CertificateError::Revoked))
        )
    }
}
