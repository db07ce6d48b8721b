//! What is needed to decide about another client's certificate, and its provision.

use std::sync::Arc;

use ciphermq_crypto::identity::{CertificateError, Intermediate};
use ciphermq_crypto::{OpenError, SenderError, SignedKeyError, VerifiedKeys, signed_key};
use ciphermq_protocol::ClientId;
use jiff::Timestamp;

use super::Fetcher;
use super::fetch::not_taken;
use crate::blocking::blocking;
use crate::credentials::Taken;
use crate::driver::Handle;

/// The limit of tries to learn the authorities above one certificate: others may be learned in
/// their place meanwhile.
const MAX_LEARNING: usize = 8;

/// What is needed to decide about another client's certificate.
#[derive(Debug, Clone)]
pub(crate) enum Needs {
    /// These authorities are to be learned.
    Issuers(Vec<Intermediate>),
    /// A newer list is to be fetched.
    NewerList,
}

impl Needs {
    /// Returns what is needed to decide otherwise; `None` if the decision is final.
    pub(crate) fn of(error: &CertificateError) -> Option<Self> {
        match error {
            CertificateError::UnknownIssuers(issuers) => Some(Self::Issuers(issuers.clone())),
            CertificateError::OldList { .. } => Some(Self::NewerList),
            _ => None,
        }
    }

    /// Returns what is needed to open a message; `None` if the decision is final.
    pub(crate) fn of_message(error: &OpenError) -> Option<Self> {
        match error {
            OpenError::Sender(SenderError::Certificate(error)) => Self::of(error),
            _ => None,
        }
    }
}

/// What was tried to decide about one certificate.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tries {
    learned: usize,
    has_fetched: bool,
}

/// The outcome of a verification of signed keys.
#[derive(Debug)]
pub(crate) struct Verification {
    pub(crate) keys: Result<VerifiedKeys, SignedKeyError>,
    /// The generation of the authorities in use, read before it.
    pub(crate) generation: u64,
}

impl Fetcher {
    /// Provides what is needed, and says whether the certificate is to be verified again. Lists are
    /// fetched once for being too old, unless they were just now, and if a new authority has none.
    /// Without an answer, the verification fails for now.
    pub(crate) async fn provide(
        &self,
        handle: &Handle,
        needs: Option<Needs>,
        tries: &mut Tries,
    ) -> bool {
        match needs {
            Some(Needs::Issuers(issuers)) if tries.learned < MAX_LEARNING => {
                tries.learned += 1;
                self.learn(handle, issuers).await
            }
            Some(Needs::NewerList) if !tries.has_fetched => {
                tries.has_fetched = true;
                self.renew_unless_just_asked(handle).await;
                true
            }
            _ => false,
        }
    }

    /// Learns authorities above another client, puts their lists in force, and says whether all are
    /// learned. The others are once the server has answered.
    async fn learn(&self, handle: &Handle, issuers: Vec<Intermediate>) -> bool {
        let (credentials, asked) = (Arc::clone(&self.credentials), issuers.clone());
        let Taken { events, unknown } = blocking(move || Ok(credentials.learn(&asked)))
            .await
            .unwrap_or_else(|reason| not_taken(reason, issuers));
        self.report(handle, events);
        if unknown.is_empty() {
            return true;
        }
        let unknown = match self.fetch_for(handle, unknown.clone()).await {
            Ok(Taken { events, unknown }) => {
                self.report(handle, events);
                unknown
            }
            Err(error) => {
                tracing::warn!(%error, "The revocation lists cannot be fetched");
                unknown
            }
        };
        self.credentials.learn_later(&unknown);
        unknown.is_empty()
    }

    /// Returns the generation of the authorities in use and their lists: it is raised by changes.
    pub(crate) fn generation(&self) -> u64 {
        self.credentials.generation()
    }

    /// Verifies the signed keys of another client, with the lists of all authorities on its path in
    /// force.
    pub(crate) async fn verify_keys(
        &self,
        handle: &Handle,
        signed_key: &str,
        client: &ClientId,
    ) -> Verification {
        let mut tries = Tries::default();
        loop {
            let generation = self.generation();
            let now = Timestamp::now();
            let authority = self.credentials.authority_at(now);
            let keys = signed_key::verify(signed_key, client, &authority, now);
            let needs = match &keys {
                Err(SignedKeyError::Certificate(error)) => Needs::of(error),
                _ => None,
            };
            if !self.provide(handle, needs, &mut tries).await {
                return Verification { keys, generation };
            }
        }
    }
}
