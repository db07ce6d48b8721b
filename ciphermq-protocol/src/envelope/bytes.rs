//! An envelope's bytes.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// An envelope's bytes, a JSON object: in one piece as they came, or, of a packed line, in two. The
/// first one is the message's own, the second one may be shared with others; written one after the
/// other they are the object.
#[derive(Clone)]
pub struct EnvelopeBytes {
    own: Bytes,
    shared: Option<Bytes>,
}

impl EnvelopeBytes {
    /// In two pieces.
    #[must_use]
    pub fn packed(own: Bytes, shared: Bytes) -> Self {
        Self {
            own,
            shared: Some(shared),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.own.len() + self.shared.as_ref().map_or(0, Bytes::len)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message's own piece: all of it where nothing is shared.
    #[must_use]
    pub fn own(&self) -> &Bytes {
        &self.own
    }

    /// The piece that other messages have, too.
    #[must_use]
    pub fn shared(&self) -> Option<&Bytes> {
        self.shared.as_ref()
    }

    /// Whether the same piece is shared. One that is in one piece shares with none.
    #[must_use]
    pub fn shares_with(&self, other: &Self) -> bool {
        matches!((&self.shared, &other.shared), (Some(one), Some(other)) if same(one, other))
    }

    /// In one piece.
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

    /// Appends all of them to `out`.
    pub fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.own);
        if let Some(shared) = &self.shared {
            out.put_slice(shared);
        }
    }

    /// The same with its own piece in memory of its own: the line that it came in may be sixteen
    /// megabytes long.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            own: Bytes::copy_from_slice(&self.own),
            shared: self.shared.clone(),
        }
    }
}

/// Whether two pieces are the same bytes; at once if they are one in memory.
pub(super) fn same(one: &Bytes, other: &Bytes) -> bool {
    std::ptr::eq::<[u8]>(&**one, &**other) || one == other
}

impl From<Bytes> for EnvelopeBytes {
    fn from(own: Bytes) -> Self {
        Self { own, shared: None }
    }
}

/// Pieces don't matter.
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
