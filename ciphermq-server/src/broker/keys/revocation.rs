//! `get_crl`: the revocation lists that the server has loaded.

use ciphermq_protocol::{ErrorCode, ErrorReply, Reply};

use crate::broker::ClientSession;

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
}
