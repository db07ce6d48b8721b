//! Opening of messages that were fetched one by one.

use ciphermq_crypto::identity::certificates;
use ciphermq_crypto::{OpenError, Opened, Opener};
use ciphermq_protocol::Envelope;
use jiff::Timestamp;

use super::Client;
use crate::error::RequestError;
use crate::revocation::{Needs, Tries};

impl Client {
    /// Opens a message that [`Client::fetch`] has returned. Requests its sender's certificate if
    /// necessary, and puts the revocation lists of all authorities above it in force first.
    ///
    /// # Errors
    ///
    /// [`RequestError`] if the server did not answer. The inner [`OpenError`] says why the message
    /// cannot be opened.
    pub async fn open(
        &self,
        opener: &mut Opener,
        envelope: &Envelope,
    ) -> Result<Result<Opened, OpenError>, RequestError> {
        let (mut tries, mut has_asked) = (Tries::default(), false);
        loop {
            let authority = self.core.credentials.authority_at(Timestamp::now());
            opener.set_authority(authority);
            let opened = opener.open(envelope);
            match &opened {
                Err(OpenError::CertificateNeeded {
                    sender,
                    fingerprint,
                }) if !has_asked => {
                    has_asked = true;
                    let chain = self.certificate(sender, Some(*fingerprint)).await?;
                    if let Some(chain) = chain.and_then(|chain| certificates(&chain)) {
                        opener.add_sender_chain(chain);
                    }
                }
                Err(error) => {
                    let (lists, handle) = (&self.core.lists, &self.core.handle);
                    let needs = Needs::of_message(error);
                    if !lists.provide(handle, needs, &mut tries).await {
                        return Ok(opened);
                    }
                }
                Ok(_) => return Ok(opened),
            }
        }
    }
}
