//! Revocation lists: the commands that return them and their ends, and keys that were signed with a
//! revoked certificate.

use ciphermq_protocol::ends::{EndInfo, EndsPage};
use ciphermq_protocol::{ClientId, ErrorCode, ErrorReply, Reply};

use crate::broker::ClientSession;
use crate::keys;
use crate::tls::ends::OwnCertificate;

impl ClientSession {
    /// Executes `get_crl`.
    pub(in crate::broker) fn revocation_lists(&self) -> Result<Reply, ErrorReply> {
        let credentials = self.broker.tls.get();
        let lists = credentials.trust().revocation_lists();
        let (length, limit) = (lists.line_len(), self.broker.limits.max_line_bytes);
        if length > limit {
            let text = format!(
                "the server's revocation lists take a line of {length} bytes, and \
                 limits.max_line_bytes is {limit}; ask for a higher limit"
            );
            return Err(ErrorReply::new(ErrorCode::LimitReached, text));
        }
        Ok(Reply::RevocationLists(lists.clone()))
    }

    /// Executes `list_ends`.
    pub(in crate::broker) fn list_ends(&self) -> Reply {
        let info = |own: &OwnCertificate| EndInfo {
            kind: own.kind().to_owned(),
            subject: own.validity.subject.clone(),
            not_before: own.validity.not_before.to_string(),
            not_after: own.validity.not_after.to_string(),
        };
        let ends = self.broker.tls.get().own().iter().map(info).collect();
        Reply::Ends(EndsPage { ends })
    }

    /// Refuses to hand out a signed key whose certificate is revoked.
    pub(super) fn refuse_revoked(
        &self,
        client_id: &ClientId,
        signed_key: &str,
    ) -> Result<(), ErrorReply> {
        if !self
            .broker
            .tls
            .get()
            .trust()
            .has_revoked_signer_of(signed_key)
        {
            return Ok(());
        }
        let text = format!(
            "{client_id} has signed its key with a certificate that is revoked, and has to register \
             it again with another one"
        );
        Err(ErrorReply::new(ErrorCode::KeyRevoked, text))
    }

    /// Refuses to hand out a bare key that comes from a signed key whose certificate is revoked.
    pub(super) async fn refuse_revoked_bare_key(
        &self,
        client_id: &ClientId,
        bare: &str,
    ) -> Result<(), ErrorReply> {
        if self.broker.tls.get().trust().revocation_lists().is_empty()
            || *client_id == self.client_id
        {
            return Ok(());
        }
        let signed = self.key(self.broker.keys.signed_key(client_id)).await?;
        let Some(signed) =
            signed.filter(|signed| keys::bare_key(client_id, signed).as_deref() == Some(bare))
        else {
            return Ok(());
        };
        self.refuse_revoked(client_id, &signed)
    }
}
