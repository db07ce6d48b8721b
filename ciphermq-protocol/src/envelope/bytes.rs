//! The bytes of an envelope.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// The bytes of an envelope, a JSON object, in one part or in two.
///
/// An envelope of a packed line has two parts: its own part, and a shared part that other envelopes
/// of the line have as well. The concatenation of both is the object.
#[derive(Clone)]
pub struct EnvelopeBytes {
    own: Bytes,
    shared: Option<Bytes>,
}

impl EnvelopeBytes {
    /// Creates the bytes of an envelope of a packed line, in two parts.
    #[must_use]
    pub fn packed(own: Bytes, shared: Bytes) -> Self {
        Self {
            own,
            shared: Some(shared),
        }
    }

    /// Returns the number of bytes of all parts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.own.len() + self.shared.as_ref().map_or(0, Bytes::len)
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the own part: the whole object if there is no shared part.
    #[must_use]
    pub fn own(&self) -> &Bytes {
        &self.own
    }

    /// Returns the part that other envelopes of the line have as well.
    #[must_use]
    pub fn shared(&self) -> Option<&Bytes> {
        self.shared.as_ref()
    }

    /// Returns whether both have the same shared part.
    ///
    /// An envelope in one part shares with none.
    #[must_use]
    pub fn shares_with(&self, other: &Self) -> bool {
        matches!((&self.shared, &other.shared), (Some(one), Some(other)) if same(one, other))
    }

    /// Returns the whole object in one part.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match &self.shared {
            None => self.own.clone(),
            Some(shared) => {
                let mut whole = BytesMut::with_capacity(self.len());
                whole.put_slice(&self.own);
                whole.put_slice(shared);
                whole.freeze()
            }
        }
    }

    /// Appends the whole object to `out`.
    pub fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.own);
        if let Some(shared) = &self.shared {
            out.put_slice(shared);
        }
    }

    /// Copies the own part, so that it no longer keeps its line in memory.
    ///
    /// The line may be sixteen megabytes long.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            own: Bytes::copy_from_slice(&self.own),
            shared: self.shared.clone(),
        }
    }
}

/// Compares two parts, in constant time if they are the same memory.
pub(super) fn same(one: &Bytes, other: &Bytes) -> bool {
    std::ptr::eq::<[u8]>(&**one, &**other) || one == other
}

impl From<Bytes> for EnvelopeBytes {
    fn from(own: Bytes) -> Self {
        Self { own, shared: None }
    }
}

/// Compares the objects, however they are divided into parts.
impl PartialEq for EnvelopeBytes {
    fn eq(&self, other: &Self) -> bool {
        match (&self.shared, &other.shared) {
            (None, None) => self.own == other.own,
            (Some(one), Some(another)) if self.own.len() == other.own.len() => {
                self.own == other.own && same(one, another)
            }
            _ => self.to_bytes() == other.to_bytes(),
        }
    }
}

impl Eq for EnvelopeBytes {}

impl fmt::Debug for EnvelopeBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_bytes(), f)
    }
}
