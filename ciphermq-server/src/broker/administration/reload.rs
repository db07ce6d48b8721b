//! `reload`: has the server read its configuration and its certificates again.

use ciphermq_protocol::{ErrorCode, ErrorReply, Reply};

use crate::broker::{ClientSession, write_error_reply};
use crate::store::writer::WriteError;

impl ClientSession {
    /// Executes `reload`.
    pub(in crate::broker) async fn reload(&self) -> Result<Reply, ErrorReply> {
        let client_id = &self.client_id;
        tracing::warn!(%client_id, "A reload is requested by {client_id}");
        match self.broker.reloads.reload().await {
            Some(Ok(reloaded)) => Ok(Reply::Reloaded(reloaded)),
            Some(Err(error)) => {
                let text = error.to_string().replace('\n', ". ");
                Err(ErrorReply::new(ErrorCode::BadConfiguration, text))
            }
            None => Err(write_error_reply(&WriteError::Closed)),
        }
    }
}
