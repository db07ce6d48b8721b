//! The JSON of the reply to `list_ends`: when the server's certificates end.

use serde::{Deserialize, Serialize};

/// The server's certificates, those of its authorities, and its revocation lists.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndsPage {
    /// The certificates and lists.
    pub ends: Vec<EndInfo>,
}

/// When a certificate or a revocation list ends, as the server says.
///
/// Unknown fields are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndInfo {
    /// `certificate` for the server's own certificate, `intermediate` for one above it,
    /// `authority` for one that is trusted, `revocation_list` for a list. There may be others.
    pub kind: String,
    /// Its subject; for a list, the issuer.
    pub subject: String,
    /// When its validity begins, RFC 3339 in UTC.
    pub not_before: String,
    /// When it ends; for a list, when the next one is due.
    pub not_after: String,
}
