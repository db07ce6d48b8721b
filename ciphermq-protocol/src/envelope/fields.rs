//! The fields of an envelope.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::EnvelopeError;

macro_rules! fields {
    (
        required { $($(#[$rdoc:meta])* $required:ident,)* }
        optional { $($(#[$odoc:meta])* $optional:ident,)* }
    ) => {
        /// All known fields of an envelope, as unescaped text; base64 is not decoded.
        ///
        /// Serializing writes the fields in this order and omits those that are `None`.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        pub struct Fields<'a> {
            $($(#[$rdoc])* pub $required: Cow<'a, str>,)*
            $($(#[$odoc])* #[serde(skip_serializing_if = "Option::is_none")] pub $optional: Option<Cow<'a, str>>,)*
        }

        impl Fields<'_> {
            /// Returns the same texts, borrowed.
            #[must_use]
            pub fn borrowed(&self) -> Fields<'_> {
                Fields {
                    $($required: Cow::Borrowed(&*self.$required),)*
                    $($optional: self.$optional.as_deref().map(Cow::Borrowed),)*
                }
            }

            /// Returns the same texts, owned.
            #[must_use]
            pub fn into_owned(self) -> Fields<'static> {
                Fields {
                    $($required: Cow::Owned(self.$required.into_owned()),)*
                    $($optional: self.$optional.map(|text| Cow::Owned(text.into_owned())),)*
                }
            }
        }

        impl<'a> Visitor<'a> for FieldsVisitor {
            type Value = Fields<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an envelope, a JSON object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Fields<'a>, A::Error> {
                $(let mut $required: Option<Cow<'a, str>> = None;)*
                $(let mut $optional: Option<Option<Cow<'a, str>>> = None;)*
                let mut others = HashSet::new();
                while let Some(Text(key)) = map.next_key()? {
                    match &*key {
                        $(stringify!($required) => {
                            let twice = $required.replace(map.next_value::<Text<'a>>()?.0).is_some();
                            if twice {
                                return Err(A::Error::duplicate_field(stringify!($required)));
                            }
                        })*
                        $(stringify!($optional) => {
                            let value = map.next_value::<Option<Text<'a>>>()?.map(|text| text.0);
                            if $optional.replace(value).is_some() {
                                return Err(A::Error::duplicate_field(stringify!($optional)));
                            }
                        })*
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            if let Some(twice) = others.replace(key) {
                                return Err(A::Error::custom(format_args!("duplicate field \
                                    `{}`", twice.escape_debug())));
                            }
                        }
                    }
                }
                Ok(Fields {
                    $($required: $required.ok_or_else(|| A::Error::missing_field(stringify!($required)))?,)*
                    $($optional: $optional.flatten(),)*
                })
            }
        }
    };
}

fields! {
    required {
        /// The message's unique id.
        message_id,
        /// The receiver.
        receiver_client_id,
        /// Base64: the session key, sealed for the receiver in the form of the suite.
        enc_session_key,
        /// Base64: the nonce, 12 bytes.
        nonce,
        /// Base64: the sealed payload, followed by the tag if `tag` is left out.
        ciphertext,
    }
    optional {
        /// Base64: the tag, 16 bytes. Some older clients append it to the ciphertext instead.
        tag,
        /// The suite that seals the message. Older clients do not name it.
        suite,
        /// The sender, as claimed; the broker refuses a name that is not the certificate's.
        sender_client_id,
        /// The first 8 bytes of SHA-256 of the receiver's public key, in hexadecimal.
        receiver_key_id,
        /// The exchange of the publication.
        exchange,
        /// The routing key of the publication.
        routing_key,
        /// The time of sealing by the sender's clock, RFC 3339.
        sent_time,
        /// The payload's media type.
        content_type,
        /// The start of the session by the sender's clock, RFC 3339.
        session_time,
        /// SHA-256 of the sender's certificate (DER), in hexadecimal.
        sender_certificate,
        /// Base64: the sender's signature of the session.
        sender_signature,
    }
}

struct FieldsVisitor;

impl<'a> Deserialize<'a> for Fields<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

impl<'a> Fields<'a> {
    /// Parses an envelope's fields, which borrow from `json` unless they contain escapes.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] if `json` is not an object, lacks a required field, has a field twice, or
    /// has a known field that is not a string.
    pub fn parse(json: &'a str) -> Result<Self, EnvelopeError> {
        Ok(serde_json::from_str(json)?)
    }
}

/// A text, borrowed from the input unless it contains escapes.
#[derive(PartialEq, Eq, Hash)]
struct Text<'a>(Cow<'a, str>);

impl<'a> Deserialize<'a> for Text<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'a> Visitor<'a> for TextVisitor {
            type Value = Text<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'a>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}
