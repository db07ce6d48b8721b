//! Certificate revocation lists, as the protocol transfers them.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::json::encoded_len;

/// The most lists that are read: each authority has one.
const MAX_LISTS: usize = 64;

/// What precedes the lists in the reply to `get_crl`.
pub(crate) const PREFIX: &str = "Revocation lists: ";

/// Certificate revocation lists (RFC 5280, section 5), **not verified**. Cheap to clone.
///
/// It holds the lists as transferred, base64 of DER each; [`RevocationLists::to_der`] decodes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationLists(Arc<[String]>);

impl RevocationLists {
    /// Creates the value from lists in DER.
    pub fn from_der<T: AsRef<[u8]>>(lists: impl IntoIterator<Item = T>) -> Self {
        Self(lists.into_iter().map(|der| STANDARD.encode(der)).collect())
    }

    /// Whether there is no list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Decodes the lists; `None` if one of them is not canonical base64.
    #[must_use]
    pub fn to_der(&self) -> Option<Vec<Vec<u8>>> {
        let decode = |text: &String| STANDARD.decode(text).ok();
        self.0.iter().map(decode).collect()
    }

    /// Returns the length of the reply that carries the lists, in bytes, without its ending.
    #[must_use]
    pub fn line_len(&self) -> usize {
        PREFIX.len() + encoded_len(self)
    }
}

impl Serialize for RevocationLists {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

impl<'de> Deserialize<'de> for RevocationLists {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(AtMost)
    }
}

/// Reads at most [`MAX_LISTS`] lists: a line of short ones would take many times its length in
/// memory.
struct AtMost;

impl<'de> Visitor<'de> for AtMost {
    type Value = RevocationLists;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX_LISTS} revocation lists")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut lists = Vec::new();
        while let Some(list) = sequence.next_element::<String>()? {
            if lists.len() == MAX_LISTS {
                return Err(serde::de::Error::invalid_length(MAX_LISTS + 1, &self));
            }
            lists.push(list);
        }
        Ok(RevocationLists(lists.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_round_trip() {
        let lists = RevocationLists::from_der([&b"a"[..], b"bc"]);
        let json = serde_json::to_string(&lists).unwrap();
        assert_eq!(json, r#"["YQ==","YmM="]"#);
        let again: RevocationLists = serde_json::from_str(&json).unwrap();
        assert_eq!(again.to_der().unwrap(), [&b"a"[..], b"bc"]);
        let damaged: RevocationLists = serde_json::from_str(r#"["YR=="]"#).unwrap();
        assert_eq!(damaged.to_der(), None);
        let many = |count| serde_json::to_string(&vec![""; count]).unwrap();
        assert!(serde_json::from_str::<RevocationLists>(&many(MAX_LISTS)).is_ok());
        assert!(serde_json::from_str::<RevocationLists>(&many(MAX_LISTS + 1)).is_err());
    }
}
