//! What is sent: bytes, and what they are.

/// The bytes of a message and their media type, which is authenticated with them but not secret.
///
/// Texts are `text/plain; charset=utf-8`, bytes are `application/octet-stream`, unless said
/// otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) content_type: &'a str,
}

impl<'a> Payload<'a> {
    /// Bytes of the media type `application/octet-stream`.
    #[must_use]
    pub fn bytes(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            content_type: "application/octet-stream",
        }
    }

    /// Text, `text/plain; charset=utf-8`.
    #[must_use]
    pub fn text(text: &'a str) -> Self {
        Self {
            bytes: text.as_bytes(),
            content_type: "text/plain; charset=utf-8",
        }
    }

    /// Text that is JSON, `application/json`. It is not looked into.
    #[must_use]
    pub fn json(json: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self {
            bytes: json.as_ref(),
            content_type: "application/json",
        }
    }

    /// The same bytes as another media type.
    #[must_use]
    pub fn content_type(self, content_type: &'a str) -> Self {
        Self {
            content_type,
            ..self
        }
    }
}

impl<'a> From<&'a str> for Payload<'a> {
    fn from(text: &'a str) -> Self {
        Self::text(text)
    }
}

impl<'a> From<&'a String> for Payload<'a> {
    fn from(text: &'a String) -> Self {
        Self::text(text)
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::bytes(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Payload<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::bytes(bytes)
    }
}
