//! Bytes in an envelope, in base64 or as they are.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::Simd;
use base64::engine::general_purpose::PAD;
use serde::{Serialize, Serializer};

/// Bytes that an envelope's text has in base64, and its binary form as they are.
#[derive(Clone)]
pub enum Encoded<'a> {
    /// Base64, which may be invalid.
    Base64(Cow<'a, str>),
    /// The bytes.
    Bytes(Cow<'a, [u8]>),
}

impl Encoded<'_> {
    /// Returns the base64, padded (RFC 4648, section 4).
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Base64(text) => Cow::Borrowed(text),
            Self::Bytes(bytes) => Cow::Owned(engine().encode(bytes)),
        }
    }

    /// Returns the bytes; `None` if the base64 is not canonical: padded, no stray bits, no white
    /// space.
    #[must_use]
    pub fn bytes(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Base64(text) => engine().decode(&**text).ok().map(Cow::Owned),
            Self::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
        }
    }

    /// Returns the same value, borrowed.
    #[must_use]
    pub fn borrowed(&self) -> Encoded<'_> {
        match self {
            Self::Base64(text) => Encoded::Base64(Cow::Borrowed(text)),
            Self::Bytes(bytes) => Encoded::Bytes(Cow::Borrowed(bytes)),
        }
    }

    /// Returns the same value, owned.
    #[must_use]
    pub fn into_owned(self) -> Encoded<'static> {
        match self {
            Self::Base64(text) => Encoded::Base64(Cow::Owned(text.into_owned())),
            Self::Bytes(bytes) => Encoded::Bytes(Cow::Owned(bytes.into_owned())),
        }
    }
}

/// Returns the engine for the standard alphabet. It uses the processor's vector instructions.
fn engine() -> Simd {
    Simd::standard(PAD)
}

/// Returns the length of the base64 of this many bytes.
pub(super) const fn text_len(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Appends base64 with padding.
pub(super) fn put_base64(bytes: &[u8], out: &mut bytes::BytesMut) {
    let start = out.len();
    out.resize(start + text_len(bytes.len()), 0);
    // Infallible: the space has exactly the length of the result.
    if let Some(space) = out.get_mut(start..) {
        let written = engine().encode_slice(bytes, space);
        debug_assert_eq!(written.ok(), Some(text_len(bytes.len())));
    }
}

impl<'a> From<Cow<'a, str>> for Encoded<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Self::Base64(text)
    }
}

impl<'a> From<&'a str> for Encoded<'a> {
    fn from(text: &'a str) -> Self {
        Self::Base64(Cow::Borrowed(text))
    }
}

impl From<String> for Encoded<'_> {
    fn from(text: String) -> Self {
        Self::Base64(Cow::Owned(text))
    }
}

/// Compares the texts.
impl PartialEq for Encoded<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Encoded<'_> {}

/// Formats the text.
impl fmt::Debug for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text(), f)
    }
}

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}
