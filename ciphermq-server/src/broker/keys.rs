//! Keys and certificates: the commands that register and return them.

mod certificates;
mod revocation;
mod waiting;

use ciphermq_protocol::{ClientId, ErrorCode, ErrorReply, Reply};

use super::ClientSession;
use crate::at_rest;
use crate::keys;
use crate::repeated::Event;

impl ClientSession {
    /// Executes `register_public_key` and `register_key`.
    pub(super) async fn register_public_key(
        &self,
        client_id: Option<&ClientId>,
        key: &str,
    ) -> Result<Reply, ErrorReply> {
        if client_id.is_some_and(|client_id| *client_id != self.client_id) {
            let text = format!(
                "only the client itself registers its key, and this connection is {}'s",
                self.client_id
            );
            return Err(ErrorReply::new(ErrorCode::NotAuthorized, text));
        }
        self.key(self.broker.keys.register(&self.client_id, key))
            .await?;
        let (repeated, client_id) = (&self.broker.repeated, self.client_id.as_str());
        if repeated.is_first(Event::KeyRegistered, client_id, "Public key") {
            tracing::info!(client_id, "Public key registered");
        }
        Ok(Reply::PublicKeyRegistered)
    }

    /// Executes `get_public_key` and `get_key`.
    pub(super) async fn public_key(&self, client_id: &ClientId) -> Result<Reply, ErrorReply> {
        let key = self.key(self.broker.keys.public_key(client_id)).await?;
        if let Some(key) = &key {
            self.refuse_revoked_bare_key(client_id, key).await?;
        }
        Ok(key.map_or(Reply::PublicKeyNotFound, Reply::PublicKey))
    }

    /// Executes `register_signed_key`.
    pub(super) async fn register_signed_key(&self, signed_key: &str) -> Result<Reply, ErrorReply> {
        self.key(
            self.broker
                .keys
                .register_signed(&self.client_id, signed_key),
        )
        .await?;
        let (repeated, client_id) = (&self.broker.repeated, self.client_id.as_str());
        if repeated.is_first(Event::KeyRegistered, client_id, "Signed key") {
            tracing::info!(client_id, "Signed key registered");
        }
        Ok(Reply::PublicKeyRegistered)
    }

    /// Executes `get_signed_key`.
    pub(super) async fn signed_key(&self, client_id: &ClientId) -> Result<Reply, ErrorReply> {
        let keys = &self.broker.keys;
        let is_own = *client_id == self.client_id;
        let read = async {
            match keys.signed_key(client_id).await {
                // Receivers ask for the stored key before they register. One whose row was altered,
                // or sealed with another key, must be able to register again, which replaces the
                // row.
                Err(keys::Error::AtRest(error)) if is_own => {
                    let repeated = &self.broker.repeated;
                    let reason = error.to_string();
                    if repeated.is_first(Event::KeyUnusable, client_id.as_str(), &reason) {
                        tracing::warn!(%client_id, %error, "A signed key cannot be opened: its \
                            client may register it again");
                    }
                    Ok(None)
                }
                read => read,
            }
        };
        let key = self.key(read).await?;
        // Its owner needs it all the same, to sign one above it.
        if let Some(key) = key.as_ref().filter(|_| !is_own) {
            self.refuse_revoked(client_id, key)?;
        }
        Ok(key.map_or(Reply::PublicKeyNotFound, Reply::SignedKey))
    }

    /// Whether a failure of the key directory is to be logged; otherwise it is counted.
    fn is_first_failure(&self, error: &impl std::fmt::Display) -> bool {
        let (repeated, client_id) = (&self.broker.repeated, self.client_id.as_str());
        repeated.is_first(Event::KeyUnusable, client_id, &error.to_string())
    }

    /// Awaits the key directory, after the client's earlier queries, within `limits.storage_wait`.
    async fn key<T>(
        &self,
        work: impl Future<Output = Result<T, keys::Error>>,
    ) -> Result<T, ErrorReply> {
        match self
            .in_turn(work)
            .await
            .unwrap_or(Err(keys::Error::Unavailable))
        {
            Ok(value) => Ok(value),
            Err(keys::Error::Invalid(text)) => Err(ErrorReply::new(ErrorCode::BadKey, text)),
            Err(error @ keys::Error::OtherClient(_)) => {
                Err(ErrorReply::new(ErrorCode::NotAuthorized, error.to_string()))
            }
            Err(error @ keys::Error::Stale(_)) => {
                Err(ErrorReply::new(ErrorCode::StaleKey, error.to_string()))
            }
            // A retry changes nothing: the key's owner must register it again.
            Err(keys::Error::AtRest(error @ at_rest::Error::OlderForm { .. })) => {
                if self.is_first_failure(&error) {
                    tracing::error!(client_id = %self.client_id, %error, "Cannot open a stored \
                        key");
                }
                Err(ErrorReply::new(ErrorCode::BadKey, error.for_client()))
            }
            Err(error) => {
                if self.is_first_failure(&error) {
                    tracing::error!(client_id = %self.client_id, %error, "Cannot use the key \
                        directory");
                }
                Err(ErrorReply::new(
                    ErrorCode::StorageUnavailable,
                    error.for_client(),
                ))
            }
        }
    }
}
