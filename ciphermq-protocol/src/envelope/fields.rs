//! An envelope's fields.

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
        /// Every field of an envelope that CipherMQ knows, as text, unescaped but not decoded.
        ///
        /// Serialising writes the fields in this order and leaves out what is `None`.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        pub struct Fields<'a> {
            $($(#[$rdoc])* pub $required: Cow<'a, str>,)*
            $($(#[$odoc])* #[serde(skip_serializing_if = "Option::is_none")] pub $optional: Option<Cow<'a, str>>,)*
        }

        impl Fields<'_> {
            /// The same texts, borrowed.
            #[must_use]
            pub fn borrowed(&self) -> Fields<'_> {
                Fields {
                    $($required: Cow::Borrowed(&*self.$required),)*
                    $($optional: self.$optional.as_deref().map(Cow::Borrowed),)*
                }
            }

            /// The same texts, owned.
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
        /// What tells the message from all others.
        message_id,
        /// Whom the message is for.
        receiver_client_id,
        /// Base64: the session key, sealed for the receiver. Its form is the suite's.
        enc_session_key,
        /// Base64: 12 bytes.
        nonce,
        /// Base64: the sealed payload, and at the end of it the tag where `tag` is left out.
        ciphertext,
    }
    optional {
        /// Base64: 16 bytes. Some older clients append it to the ciphertext instead.
        tag,
        /// How the message is sealed. An envelope without it comes from an older client.
        suite,
        /// Who says to have sent it. The broker refuses what is not the certificate's.
        sender_client_id,
        /// The first 8 bytes of SHA-256 of the receiver's public key, in hexadecimal.
        receiver_key_id,
        /// The exchange that it was published to.
        exchange,
        /// The routing key that it was published by.
        routing_key,
        /// When it was sealed, RFC 3339, by the sender's clock.
        sent_time,
        /// What the payload is, a media type.
        content_type,
        /// When the session began, RFC 3339, by the sender's clock.
        session_time,
        /// SHA-256 of the sender's certificate (DER), in hexadecimal.
        sender_certificate,
        /// Base64: the sender's signature over the session.
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
    /// Reads an envelope's fields. They borrow from `json` where nothing is escaped.
    ///
    /// # Errors
    ///
    /// [`EnvelopeError`] if `json` is no object, lacks a required field, has a field twice, or
    /// holds something else than a text in a field that is known.
    pub fn parse(json: &'a str) -> Result<Self, EnvelopeError> {
        Ok(serde_json::from_str(json)?)
    }
}

/// A text that borrows from the input where it can.
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
