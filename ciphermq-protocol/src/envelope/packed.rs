//! Packed envelopes of one session: their shared part is sent once.
//!
//! ```text
//!   {"message_id":"…","sent_time":"…","nonce":"…","ciphertext":"…","tag":"…"}  {"receiver_client_id":"…",…}
//!   └──────────────────────────── own, one a message ─────────────────────────┘└── shared, one a line ─────┘
//! ```
//!
//! An envelope is the union of both objects: the own part without its last brace, a comma, and the
//! shared part without its first brace.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::EnvelopeBytes;
use super::own;

/// Splits `<count> <own> ... <own> <shared>`; `None` if the list has another form.
///
/// Own parts share the line's memory and are not checked.
pub(crate) fn split(line: &Bytes, list: &[u8]) -> Option<Vec<EnvelopeBytes>> {
    let mut rest = list;
    let mut next = || {
        let (part, after) = rest.split_at_checked(memchr::memchr(b' ', rest)?)?;
        rest = after.get(1..)?;
        Some(part)
    };
    let count: usize = std::str::from_utf8(next()?).ok()?.parse().ok()?;
    let mut own = Vec::new();
    for _ in 0..count {
        let part = next()?.strip_suffix(b"}")?;
        // Only what can be a text, so that a line has no more messages than its length allows.
        own.push(line.slice_ref(own::may_be_text(part).then_some(part)?));
    }
    let shared = after_brace(rest)?;
    let pack = |own| EnvelopeBytes::packed(own, shared.clone());
    (count > 0).then(|| own.into_iter().map(pack).collect())
}

/// Returns the shared part as envelopes have it, after a comma instead of its first brace.
pub(super) fn after_brace(object: &[u8]) -> Option<Bytes> {
    let mut shared = BytesMut::with_capacity(object.len());
    shared.put_u8(b',');
    shared.put_slice(object.strip_prefix(b"{")?);
    Some(shared.freeze())
}

/// Appends `<count> <own> ... <own> <shared>`.
///
/// All envelopes must have this shared part.
pub(crate) fn put<'a>(
    envelopes: impl ExactSizeIterator<Item = &'a EnvelopeBytes>,
    shared: &Bytes,
    out: &mut BytesMut,
) {
    out.put_slice(envelopes.len().to_string().as_bytes());
    for envelope in envelopes {
        out.put_u8(b' ');
        own::put_text(envelope.own(), out);
        out.put_u8(b'}');
    }
    out.put_slice(b" {");
    out.put_slice(shared.get(1..).unwrap_or_default());
}

#[cfg(test)]
mod tests;
