//! `get_crl` and `list_ends`: the server's revocation lists, and when they and its certificates
//! end.

use ciphermq_protocol::ends::{EndInfo, EndsPage};
use ciphermq_protocol::{ErrorCode, ErrorReply, Reply};

use crate::broker::ClientSession;
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
}
