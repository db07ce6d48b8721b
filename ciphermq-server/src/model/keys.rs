//! Rows of the key directory, sealed at rest.

/// The kind of key that a row contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// A bare public key.
    PublicKey,
    /// A signed key.
    SignedKey,
}

/// A sealed key, as the columns of its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRow {
    /// The name of the algorithm that sealed it; `None` (NULL) in the oldest rows.
    pub algorithm: Option<String>,
    /// Base64 of the ciphertext, which has the length of the plaintext.
    pub ciphertext: String,
    /// Base64 of the 12-byte nonce.
    pub nonce: String,
    /// Base64 of the 16-byte tag.
    pub tag: String,
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
