//! Rows of the key directory, sealed at rest.

use crate::at_rest::RowKind;

/// A sealed key, in base64 texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRow {
    /// The sealed bytes.
    pub ciphertext: String,
    /// The nonce.
    pub nonce: String,
    /// The tag.
    pub tag: String,
    /// The algorithm that sealed it; `None` in rows of older servers.
    pub algorithm: Option<String>,
}

/// All sealed keys, each with the client id in its row.
#[derive(Debug, Clone, Default)]
pub struct SealedKeys {
    /// Bare public keys.
    pub public: Vec<(String, SealedRow)>,
    /// Signed keys.
    pub signed: Vec<(String, SealedRow)>,
    /// Whether rows of older servers were adopted before.
    pub is_adopted: bool,
}

/// A key of an older server, sealed anew.
#[derive(Debug, Clone)]
pub struct AdoptedRow {
    /// The table that it belongs to.
    pub kind: RowKind,
    /// The client id in its row.
    pub client_id: String,
    /// The row that replaces it.
    pub row: SealedRow,
}
