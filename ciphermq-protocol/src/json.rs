//! JSON objects without duplicate keys, and JSON in lines.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::{fmt, io};

use bytes::{BufMut as _, BytesMut};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// A JSON object without duplicate keys, whose values are deserialized on access.
///
/// Readers differ in which of two values of a duplicate key they take, so the reader that verifies
/// a signature and the reader that uses the value might disagree. A nested object is checked when
/// it is read as an [`Object`] of its own.
#[derive(Debug)]
pub struct Object<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Object<'a> {
    /// Reads an object.
    ///
    /// # Errors
    ///
    /// If the text is not an object, or a key occurs twice, however it is escaped.
    pub fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// Returns the keys, sorted and unescaped.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(|key| &**key)
    }

    /// Deserializes the value of a key; `null` is a value.
    ///
    /// # Errors
    ///
    /// If the key is missing, or its value has another type. The error names the key.
    pub fn get<T: Deserialize<'a>>(&self, key: &'static str) -> Result<T, serde_json::Error> {
        let value = self
            .0
            .get(key)
            .ok_or_else(|| serde_json::Error::missing_field(key))?;
        serde_json::from_str(value.get())
            .map_err(|error| serde_json::Error::custom(format_args!("`{key}`: {error}")))
    }
}

impl<'a> Deserialize<'a> for Object<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'a> Visitor<'a> for ObjectVisitor {
            type Value = Object<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Object<'a>, A::Error> {
                let mut values = BTreeMap::new();
                while let Some(Key(key)) = map.next_key()? {
                    let value: &RawValue = map.next_value()?;
                    if values.contains_key(&key) {
                        let key = key.escape_debug();
                        return Err(A::Error::custom(format_args!("duplicate field `{key}`")));
                    }
                    values.insert(key, value);
                }
                Ok(Object(values))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// A key, borrowed from the text unless it contains escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Appends a value to a line as JSON, which contains no line feed.
pub(crate) fn put<T: Serialize>(out: &mut BytesMut, value: &T) {
    // Infallible: the protocol's objects have string keys, and `out` is memory.
    let written = serde_json::to_writer(out.writer(), value);
    debug_assert!(written.is_ok());
}

/// Returns the length of a value's JSON, in bytes.
#[must_use]
pub fn encoded_len<T: Serialize>(value: &T) -> usize {
    struct Counter(usize);

    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut counter = Counter(0);
    let written = serde_json::to_writer(&mut counter, value);
    debug_assert!(written.is_ok());
    counter.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_deserialized_by_key() {
        let object =
            Object::parse(r#"{"n":18446744073709551615,"t":"x","list":[{"a":1}],"null":null}"#)
                .unwrap();
        assert_eq!(object.get::<u64>("n").unwrap(), u64::MAX);
        assert_eq!(object.get::<String>("t").unwrap(), "x");
        let list: Vec<Object<'_>> = object.get("list").unwrap();
        assert_eq!(list[0].get::<u64>("a").unwrap(), 1);
        assert_eq!(object.get::<Option<u64>>("null").unwrap(), None);
        assert_eq!(
            object.keys().collect::<Vec<_>>(),
            ["list", "n", "null", "t"]
        );
        for (key, error) in [
            ("missing", "missing field `missing`"),
            ("t", "`t`: invalid type"),
        ] {
            let message = object.get::<u64>(key).unwrap_err().to_string();
            assert!(message.starts_with(error), "{message}");
        }
    }

    #[test]
    fn duplicate_keys_are_refused() {
        for json in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":null,"b":1,"a":null}"#,
            r#"[["a",1]]"#,
            "null",
            "{} {}",
            "{",
            "",
        ] {
            assert!(Object::parse(json).is_err(), "{json}");
        }
        // Nested objects are checked when they are read.
        let object = Object::parse(r#"{"a":{"b":1,"b":2}}"#).unwrap();
        assert!(object.get::<Object<'_>>("a").is_err());
    }
}
