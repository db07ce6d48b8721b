//! Fetches the certificate of a sender that is seen for the first time.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ciphermq_crypto::Fingerprint;
use ciphermq_crypto::identity::certificates;
use ciphermq_protocol::{ClientId, Command, Envelope, Reply};
use rustls_pki_types::CertificateDer;

use super::shared::ConsumerCore;
use crate::error::RequestErrorKind;

/// Pause before a certificate is requested again after a failed request.
const PAUSE: Duration = Duration::from_secs(1);

/// A message that waits for its sender's certificate. The answer need not be trusted: the opener
/// verifies it.
pub(super) struct CertificateLookup(Pin<Box<dyn Future<Output = LookupResult> + Send + Sync>>);

/// The result of a lookup.
pub(super) struct LookupResult {
    pub(super) envelope: Envelope,
    pub(super) sender: ClientId,
    pub(super) fingerprint: Fingerprint,
    pub(super) chain: Result<Vec<CertificateDer<'static>>, NotFound>,
}

/// Why there is no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotFound {
    /// The server has no certificate, or sent something that is not one.
    Certificate,
    /// The consumer is closed.
    Closed,
}

impl CertificateLookup {
    pub(super) fn start(
        shared: Arc<ConsumerCore>,
        envelope: Envelope,
        sender: ClientId,
        fingerprint: Fingerprint,
    ) -> Self {
        Self(Box::pin(async move {
            let chain = chain(&shared, &sender, fingerprint).await;
            LookupResult {
                envelope,
                sender,
                fingerprint,
                chain,
            }
        }))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<LookupResult> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for CertificateLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateLookup")
    }
}

async fn chain(
    shared: &ConsumerCore,
    sender: &ClientId,
    fingerprint: Fingerprint,
) -> Result<Vec<CertificateDer<'static>>, NotFound> {
    loop {
        let command = Command::GetCertificate {
            client_id: sender.clone(),
            fingerprint: Some(fingerprint),
        };
        let asked = shared.handle.expect(command, |reply| match reply {
            Reply::Certificate(chain) => Some(Some(chain)),
            Reply::CertificateNotFound => Some(None),
            _ => None,
        });
        match asked.await {
            Ok(Some(chain)) => return certificates(&chain).ok_or(NotFound::Certificate),
            Ok(None) => return Err(NotFound::Certificate),
            Err(error) if error.kind() == RequestErrorKind::Closed || shared.handle.has_ended() => {
                return Err(NotFound::Closed);
            }
            // The message waits, as it would without a connection.
            Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                tracing::warn!(%sender, %fingerprint, %error, "The sender's certificate could \
                    not be fetched");
                return Err(NotFound::Certificate);
            }
        }
    }
}
