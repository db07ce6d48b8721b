//! The own part of an envelope: the fields that differ between the messages of a session.
//!
//! It is a text or binary. Both say the same, and the text follows from the binary form:
//!
//! ```text
//!   text     {"message_id":"…","sent_time":"…","nonce":"…","ciphertext":"…","tag":"…"
//!   binary   1, length of message_id, length of sent_time        a byte each
//!            message_id, sent_time
//!            nonce, tag                                          12 and 16 bytes
//!            ciphertext
//! ```
//!
//! The text is without its last brace, white space and escapes, so no JSON parser is needed to read
//! and check it. The first byte tells the form.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::Encoded;
use super::encoded::{put_base64, text_len};
use crate::name::MessageId;

/// The text before each value of an own part.
pub(super) const KEYS: [&str; 5] = [
    r#"{"message_id":""#,
    r#"","sent_time":""#,
    r#"","nonce":""#,
    r#"","ciphertext":""#,
    r#"","tag":""#,
];

/// The first byte of the binary form.
const BINARY: u8 = 1;
/// The bytes of the binary form before its first text.
const HEAD: usize = 3;
const NONCE: usize = 12;
const TAG: usize = 16;

/// The bytes of the shortest binary form.
pub(crate) const MIN_BINARY: usize = HEAD + NONCE + TAG + 1;

/// The fields of an own part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Own<'a> {
    /// The message's unique id.
    pub(super) message_id: &'a str,
    /// The time of sealing.
    pub(super) sent_time: &'a str,
    /// The nonce, 12 bytes.
    pub(super) nonce: Encoded<'a>,
    /// The sealed payload.
    pub(super) ciphertext: Encoded<'a>,
    /// The tag, 16 bytes.
    pub(super) tag: Encoded<'a>,
}

impl<'a> Own<'a> {
    /// Parses an own part of either form.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        if is_binary(bytes) {
            return Self::read_binary(bytes);
        }
        Self::read_text(std::str::from_utf8(bytes).ok()?)
    }

    /// Parses a text, without its last brace.
    fn read_text(text: &'a str) -> Option<Self> {
        let mut rest = text;
        let mut value = |key: &str| {
            let after = rest.strip_prefix(key)?;
            let end = memchr::memchr(b'"', after.as_bytes())?;
            let (value, end) = after.split_at_checked(end)?;
            rest = end;
            is_plain(value).then_some(value)
        };
        let [message_id, sent_time, nonce, ciphertext, tag] = KEYS;
        let own = Self {
            message_id: value(message_id)?,
            sent_time: value(sent_time)?,
            nonce: value(nonce)?.into(),
            ciphertext: value(ciphertext)?.into(),
            tag: value(tag)?.into(),
        };
        (rest == "\"").then_some(own)
    }

    fn read_binary(bytes: &'a [u8]) -> Option<Self> {
        let (&[_, id, time], rest) = bytes.split_first_chunk::<HEAD>()?;
        let (message_id, rest) = rest.split_at_checked(id.into())?;
        let (sent_time, rest) = rest.split_at_checked(time.into())?;
        let (nonce, rest) = rest.split_at_checked(NONCE)?;
        let (tag, ciphertext) = rest.split_at_checked(TAG)?;
        let bytes = |bytes: &'a [u8]| Encoded::Bytes(bytes.into());
        Some(Self {
            message_id: plain_text(message_id)?,
            sent_time: plain_text(sent_time)?,
            nonce: bytes(nonce),
            ciphertext: bytes(ciphertext),
            tag: bytes(tag),
        })
    }
}

/// The values of an own part, to be written in the binary form.
#[derive(Debug, Clone, Copy)]
pub struct OwnPart<'a> {
    /// The message's unique id.
    pub message_id: &'a MessageId,
    /// The time of sealing.
    pub sent_time: &'a str,
    /// The nonce.
    pub nonce: &'a [u8; 12],
    /// The sealed payload.
    pub ciphertext: &'a [u8],
    /// The tag.
    pub tag: &'a [u8; 16],
}

impl OwnPart<'_> {
    /// Returns the binary form; `None` if it has none: if the text would have escapes, or the time
    /// is longer than 255 bytes.
    #[must_use]
    pub fn to_binary(&self) -> Option<Bytes> {
        let (id, time) = (self.message_id.as_str(), self.sent_time);
        if !is_plain(id) || !is_plain(time) {
            return None;
        }
        let lengths = [id.len(), time.len()].map(u8::try_from);
        let [Ok(id_bytes), Ok(time_bytes)] = lengths else {
            return None;
        };
        let length = HEAD + id.len() + time.len() + NONCE + TAG + self.ciphertext.len();
        let mut own = BytesMut::with_capacity(length);
        own.put_slice(&[BINARY, id_bytes, time_bytes]);
        own.put_slice(id.as_bytes());
        own.put_slice(time.as_bytes());
        own.put_slice(self.nonce);
        own.put_slice(self.tag);
        own.put_slice(self.ciphertext);
        Some(own.freeze())
    }

    /// Returns the text, without its last brace, and with the escapes that it needs.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let mut own = BytesMut::with_capacity(text_len(self.ciphertext.len()) + 512);
        own.put_slice(br#"{"message_id":"#);
        put_json(self.message_id.as_str(), &mut own);
        own.put_slice(br#","sent_time":"#);
        put_json(self.sent_time, &mut own);
        for (key, bytes) in [
            (r#","nonce":""#, &self.nonce[..]),
            (r#"","ciphertext":""#, self.ciphertext),
            (r#"","tag":""#, self.tag),
        ] {
            own.put_slice(key.as_bytes());
            put_base64(bytes, &mut own);
        }
        own.put_u8(b'"');
        own.freeze()
    }
}

/// Appends a JSON string.
fn put_json(text: &str, out: &mut BytesMut) {
    // Infallible: serializing a string into memory.
    let written = serde_json::to_writer(out.writer(), text);
    debug_assert!(written.is_ok());
}

/// The bytes of the shortest text of an own part in the binary form.
pub(crate) const MIN_TEXT: usize = KEY_BYTES + text_len(NONCE) + text_len(TAG) + 2;

/// The bytes of all keys.
const KEY_BYTES: usize = {
    let [id, time, nonce, ciphertext, tag] = KEYS;
    id.len() + time.len() + nonce.len() + ciphertext.len() + tag.len()
};

/// Returns whether an own part begins like a text and is long enough for one.
pub(super) fn may_be_text(own: &[u8]) -> bool {
    own.len() > KEY_BYTES && own.starts_with(KEYS[0].as_bytes())
}

/// Returns whether an own part has the binary form, valid or not.
pub(super) fn is_binary(own: &[u8]) -> bool {
    own.first() == Some(&BINARY)
}

/// Returns the length of an own part's text, in bytes.
///
/// An invalid binary form has no text, and stands for itself.
pub(super) fn text_length(own: &[u8]) -> usize {
    let Some(read) = read_binary(own) else {
        return own.len();
    };
    let ciphertext = own.len() - HEAD - read.message_id.len() - read.sent_time.len() - NONCE - TAG;
    let values = [NONCE, TAG, ciphertext].map(text_len);
    KEY_BYTES + read.message_id.len() + read.sent_time.len() + values.iter().sum::<usize>() + 1
}

/// Parses an own part of the binary form.
fn read_binary(own: &[u8]) -> Option<Own<'_>> {
    is_binary(own).then(|| Own::read_binary(own)).flatten()
}

/// Appends an own part's text, without its last brace.
pub(super) fn put_text(own: &[u8], out: &mut BytesMut) {
    let Some(read) = read_binary(own) else {
        return out.put_slice(own);
    };
    out.reserve(text_length(own));
    let [message_id, sent_time, nonce, ciphertext, tag] = KEYS;
    for (key, text) in [(message_id, read.message_id), (sent_time, read.sent_time)] {
        out.put_slice(key.as_bytes());
        out.put_slice(text.as_bytes());
    }
    for (key, value) in [
        (nonce, &read.nonce),
        (ciphertext, &read.ciphertext),
        (tag, &read.tag),
    ] {
        out.put_slice(key.as_bytes());
        if let Encoded::Bytes(bytes) = value {
            put_base64(bytes, out);
        }
    }
    out.put_u8(b'"');
}

/// Reads the id in an own part, without checking the rest.
pub(crate) fn message_id(own: &[u8]) -> Option<MessageId> {
    let id = if is_binary(own) {
        let (&[_, id, _], rest) = own.split_first_chunk::<HEAD>()?;
        rest.get(..id.into())?
    } else {
        let id = own.strip_prefix(KEYS[0].as_bytes())?;
        id.get(..memchr::memchr(b'"', id)?)?
    };
    MessageId::new(std::str::from_utf8(id).ok()?).ok()
}

/// Returns whether an envelope with this id can be packed.
#[must_use]
pub fn can_pack(message_id: &MessageId) -> bool {
    is_plain(message_id.as_str())
}

fn plain_text(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    is_plain(text).then_some(text)
}

/// Returns whether a text needs no escape in JSON, and does not end an argument of a line.
fn is_plain(text: &str) -> bool {
    // No early exit, so that the compiler vectorises the loop.
    text.bytes().fold(true, |plain, byte| {
        plain & (byte > b' ') & (byte != b'"') & (byte != b'\\') & (byte != 0x7f)
    })
}

#[cfg(test)]
mod tests;
