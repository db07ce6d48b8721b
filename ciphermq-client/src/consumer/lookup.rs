//! Asking for the certificate of a sender that was not met before.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ciphermq_crypto::Fingerprint;
use ciphermq_crypto::identity::certificates;
use ciphermq_protocol::{ClientId, Command, Envelope, Reply};
use rustls_pki_types::CertificateDer;

use super::ConsumerCore;
use crate::error::RequestErrorKind;

/// The pause before a certificate is asked for again, if the server could not be asked.
const PAUSE: Duration = Duration::from_secs(1);

/// A message whose sender's certificate is being asked for. The answer need not be believed: the
/// opener verifies it.
pub(super) struct Lookup(Pin<Box<dyn Future<Output = Found> + Send + Sync>>);

/// What came of it.
pub(super) struct Found {
    pub(super) envelope: Envelope,
    pub(super) sender: ClientId,
    pub(super) fingerprint: Fingerprint,
    pub(super) chain: Result<Vec<CertificateDer<'static>>, NotFound>,
}

/// Why there is no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotFound {
    /// The server has none, or what it has is none.
    Certificate,
    /// The consumer is closed.
    Closed,
}

impl Lookup {
    pub(super) fn start(
        shared: Arc<ConsumerCore>,
        envelope: Envelope,
        sender: ClientId,
        fingerprint: Fingerprint,
    ) -> Self {
        Self(Box::pin(async move {
            let chain = chain(&shared, &sender, fingerprint).await;
            Found {
                envelope,
                sender,
                fingerprint,
                chain,
            }
        }))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Found> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lookup")
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
            Err(error) if error.kind() == RequestErrorKind::Closed => return Err(NotFound::Closed),
            // The message waits, as it would without a connection.
            Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
            Err(error) => {
                tracing::warn!(%sender, %fingerprint, %error, "the sender's certificate could not \
                    be had");
                return Err(NotFound::Certificate);
            }
        }
    }
}
