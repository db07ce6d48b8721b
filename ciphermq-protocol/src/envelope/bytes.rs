//! The bytes of an envelope.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use super::own::{is_binary, put_text, text_length};

/// The bytes of an envelope, a JSON object, in one part or in two.
///
/// An envelope of a packed line has two parts: its own part, and a shared part that other envelopes
/// of the line have as well. The concatenation of both is the object. The own part may be in its
/// binary form, from which the text follows.
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

    /// Returns the number of bytes of the object, which is a text.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.shared {
            Some(shared) => text_length(&self.own) + shared.len(),
            None => self.own.len(),
        }
    }

    /// Returns the number of bytes of all parts as they are: fewer than those of the text if the
    /// own part is binary.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        self.own.len() + self.shared.as_ref().map_or(0, Bytes::len)
    }

    /// Returns whether the own part is in its binary form.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        self.shared.is_some() && is_binary(&self.own)
    }

    /// Returns the same envelope with its own part as a text.
    #[must_use]
    pub fn with_text(&self) -> Self {
        if !self.is_binary() {
            return self.clone();
        }
        let mut own = BytesMut::new();
        put_text(&self.own, &mut own);
        Self {
            own: own.freeze(),
            shared: self.shared.clone(),
        }
    }

    /// Returns whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stored_len() == 0
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
                put_text(&self.own, &mut whole);
                whole.put_slice(shared);
                whole.freeze()
            }
        }
    }

    /// Appends the whole object to `out`.
    pub fn put(&self, out: &mut BytesMut) {
        match &self.shared {
            Some(shared) => {
                put_text(&self.own, out);
                out.put_slice(shared);
            }
            None => out.put_slice(&self.own),
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

/// Compares the objects, however they are divided into parts, and in whichever form they are.
impl PartialEq for EnvelopeBytes {
    fn eq(&self, other: &Self) -> bool {
        match (&self.shared, &other.shared) {
            (None, None) => self.own == other.own,
            (Some(one), Some(another))
                if self.own.len() == other.own.len() && self.is_binary() == other.is_binary() =>
            {
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
