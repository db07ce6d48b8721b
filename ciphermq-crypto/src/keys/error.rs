//! The error of texts that are not keys.

/// The reason why a text is not a key.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not canonical base64 with padding (RFC 4648, section 4).
    #[error("a key is base64 with padding, this is not")]
    NotBase64,
    /// The length is not that of a key, in bytes.
    #[error("a key has {expected} bytes, this one has {actual}")]
    Length {
        /// The length of a key of this kind.
        expected: usize,
        /// The length of the input.
        actual: usize,
    },
    /// The bytes have the length of a key, but do not encode one.
    #[error("these bytes are not a key")]
    Invalid,
}

ciphermq_protocol::debug_as_report!(KeyError);
