//! When a client's certificate is no longer accepted, while it is connected.

use std::sync::Arc;
use std::time::Duration;

use ciphermq_certificates::{Flaw, Validity};
use ciphermq_protocol::{ErrorCode, ErrorReply};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Semaphore, watch};

use crate::tls::current::Credentials;
use crate::tls::trust::Trust;

/// The time between two looks at the clock, which may be set.
const INTERVAL: Duration = Duration::from_secs(60);

/// More than a handshake may take after the client's certificate was verified, and what follows it.
const HANDSHAKE: SignedDuration = SignedDuration::from_mins(15);

/// The right to verify a connected client's certificate again.
static VERIFYING: Semaphore = Semaphore::const_new(1);

/// Returns why the client is no longer accepted, once it is not: its certificate, an intermediate
/// one or its authority has ended or is revoked, or the server's authorities were replaced by
/// others.
///
/// `trust` is that of the handshake, which has accepted the chain, or a later one.
pub(super) async fn no_longer_accepted(
    chain: &[CertificateDer<'static>],
    mut trust: Arc<Trust>,
    mut credentials: watch::Receiver<Arc<Credentials>>,
) -> Flaw {
    let ends = chain.iter().filter_map(|der| Validity::read(der));
    let ends: Vec<Timestamp> = ends.map(|validity| validity.not_after).collect();
    // What has ended since the chain was verified is found as well.
    let mut looked = Timestamp::now() - HANDSHAKE;
    loop {
        // They are valid to the end of their last second.
        let over = |end: &Timestamp| end.checked_add(SignedDuration::from_secs(1));
        let ends = ends.iter().chain(trust.ends());
        let ends: Vec<_> = ends.filter_map(|end| over(end).ok()).collect();
        let next = ends.iter().filter(|end| **end > looked).min();
        let pause = next.map_or(INTERVAL, |end| pause(*end, Timestamp::now()));
        match tokio::time::timeout(pause, credentials.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            // The server stops, which ends the connection anyway.
            Ok(Err(_)) => std::future::pending().await,
        }
        let current = Arc::clone(credentials.borrow_and_update().trust());
        let now = Timestamp::now();
        let is_same = Arc::ptr_eq(&trust, &current);
        trust = current;
        if !is_same || ends.iter().any(|end| looked < *end && *end <= now) {
            // New authorities concern all connections at once: the others' commands go first.
            let _turn = VERIFYING.acquire().await;
            if let Some(flaw) = trust.refusal(chain, now) {
                return flaw;
            }
            tokio::task::yield_now().await;
        }
        looked = now;
    }
}

/// Returns how long to wait until a certificate has ended, or until the next look at the clock.
fn pause(end: Timestamp, now: Timestamp) -> Duration {
    let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
    (left + Duration::from_millis(10)).min(INTERVAL)
}

/// Returns the last line of a connection that ends for this reason.
pub(super) fn last_line(flaw: &Flaw) -> ErrorReply {
    let advice = match flaw {
        // The server's list is missing or old; the client's certificate may be valid.
        Flaw::UnknownRevocation | Flaw::OldRevocationList(_) => "",
        _ => "; connect again with a valid one",
    };
    let text = format!("the client's certificate {flaw}{advice}");
    ErrorReply::new(ErrorCode::BadCertificate, text)
}
