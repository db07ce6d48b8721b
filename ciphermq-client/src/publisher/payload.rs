//! The content of a message and its media type.

/// The bytes of a message and their media type, which is authenticated but not encrypted.
///
/// The default is `text/plain; charset=utf-8` for texts and `application/octet-stream` for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) content_type: &'a str,
}

impl<'a> Payload<'a> {
    /// Creates a payload of bytes, `application/octet-stream`.
    #[must_use]
    pub fn bytes(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            content_type: "application/octet-stream",
        }
    }

    /// Creates a payload of text, `text/plain; charset=utf-8`.
    #[must_use]
    pub fn text(text: &'a str) -> Self {
        Self {
            bytes: text.as_bytes(),
            content_type: "text/plain; charset=utf-8",
        }
    }

    /// Creates a payload of JSON text, `application/json`. It is not validated.
    #[must_use]
    pub fn json(json: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self {
            bytes: json.as_ref(),
            content_type: "application/json",
        }
    }

    /// Sets the media type.
    #[must_use]
    pub fn content_type(mut self, content_type: &'a str) -> Self {
        self.content_type = content_type;
        self
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
