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

/// The reason why a list of packed envelopes cannot be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SplitError {
    /// It has another form.
    Form,
    /// The own part at this index cannot be one.
    Own(usize),
}

/// Splits `<count> <own> ... <own> <shared>`.
///
/// Own parts share the line's memory. Of them is checked only that they can be texts, so that a
/// line has no more messages than its length allows.
pub(crate) fn split(line: &Bytes, list: &[u8]) -> Result<Vec<EnvelopeBytes>, SplitError> {
    let mut rest = list;
    let mut next = || {
        let (part, after) = rest.split_at_checked(memchr::memchr(b' ', rest)?)?;
        rest = after.get(1..)?;
        Some(part)
    };
    let count = next().and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
    let count: usize = count.filter(|count| *count > 0).ok_or(SplitError::Form)?;
    let mut own = Vec::new();
    for index in 0..count {
        let part = next().and_then(|part| part.strip_suffix(b"}"));
        let part = part.ok_or(SplitError::Form)?;
        if !own::may_be_text(part) {
            return Err(SplitError::Own(index));
        }
        own.push(line.slice_ref(part));
    }
    let shared = after_brace(rest).ok_or(SplitError::Form)?;
    let pack = |own| EnvelopeBytes::packed(own, shared.clone());
    Ok(own.into_iter().map(pack).collect())
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
