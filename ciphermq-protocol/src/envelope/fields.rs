//! The fields of an envelope.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Encoded, EnvelopeError};

type Text<'a> = Cow<'a, str>;

/// A value of a field, borrowed or owned.
trait Value {
    type Borrowed<'b>
    where
        Self: 'b;
    type Owned;

    fn borrowed(&self) -> Self::Borrowed<'_>;

    fn owned(self) -> Self::Owned;
}

impl Value for Text<'_> {
    type Borrowed<'b>
        = Text<'b>
    where
        Self: 'b;
    type Owned = Text<'static>;

    fn borrowed(&self) -> Text<'_> {
        Cow::Borrowed(self)
    }

    fn owned(self) -> Text<'static> {
        Cow::Owned(self.into_owned())
    }
}

impl Value for Encoded<'_> {
    type Borrowed<'b>
        = Encoded<'b>
    where
        Self: 'b;
    type Owned = Encoded<'static>;

    fn borrowed(&self) -> Encoded<'_> {
        Encoded::borrowed(self)
    }

    fn owned(self) -> Encoded<'static> {
        self.into_owned()
    }
}

macro_rules! fields {
    (
        required { $($(#[$rdoc:meta])* $required:ident: $rtype:ident,)* }
        optional { $($(#[$odoc:meta])* $optional:ident: $otype:ident,)* }
    ) => {
        /// All known fields of an envelope, as unescaped text. What the binary form has without
        /// base64 is [`Encoded`].
        ///
        /// Serializing writes the fields in this order and omits those that are `None`.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        pub struct Fields<'a> {
            $($(#[$rdoc])* pub $required: $rtype<'a>,)*
            $($(#[$odoc])* #[serde(skip_serializing_if = "Option::is_none")] pub $optional: Option<$otype<'a>>,)*
        }

        impl Fields<'_> {
            /// Returns the same texts, borrowed.
            #[must_use]
            pub fn borrowed(&self) -> Fields<'_> {
                Fields {
                    $($required: self.$required.borrowed(),)*
                    $($optional: self.$optional.as_ref().map(|value| value.borrowed()),)*
                }
            }

            /// Returns the same texts, owned.
            #[must_use]
            pub fn into_owned(self) -> Fields<'static> {
                Fields {
                    $($required: self.$required.owned(),)*
                    $($optional: self.$optional.map(|value| value.owned()),)*
                }
            }
        }

        impl<'a> Visitor<'a> for FieldsVisitor {
            type Value = Fields<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an envelope, a JSON object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Fields<'a>, A::Error> {
                $(let mut $required: Option<$rtype<'a>> = None;)*
                $(let mut $optional: Option<Option<$otype<'a>>> = None;)*
                let mut others = HashSet::new();
                while let Some(JsonText(key)) = map.next_key()? {
                    match &*key {
                        $(stringify!($required) => {
                            let twice = $required.replace(map.next_value::<JsonText<'a>>()?.0.into()).is_some();
                            if twice {
                                return Err(A::Error::duplicate_field(stringify!($required)));
                            }
                        })*
                        $(stringify!($optional) => {
                            let value = map.next_value::<Option<JsonText<'a>>>()?.map(|text| text.0.into());
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
        message_id: Text,
        /// The receiver.
        receiver_client_id: Text,
        /// Base64: the session key, sealed for the receiver in the form of the suite.
        enc_session_key: Text,
        /// The nonce, 12 bytes.
        nonce: Encoded,
        /// The sealed payload, followed by the tag if `tag` is left out.
        ciphertext: Encoded,
    }
    optional {
        /// The tag, 16 bytes. Some older clients append it to the ciphertext instead.
        tag: Encoded,
        /// The suite that seals the message. Older clients do not name it.
        suite: Text,
        /// The sender, as claimed; the broker refuses a name that is not the certificate's.
        sender_client_id: Text,
        /// The first 8 bytes of SHA-256 of the receiver's public key, in hexadecimal.
        receiver_key_id: Text,
        /// The exchange of the publication.
        exchange: Text,
        /// The routing key of the publication.
        routing_key: Text,
        /// The time of sealing by the sender's clock, RFC 3339.
        sent_time: Text,
        /// The payload's media type.
        content_type: Text,
        /// The start of the session by the sender's clock, RFC 3339.
        session_time: Text,
        /// SHA-256 of the sender's certificate (DER), in hexadecimal.
        sender_certificate: Text,
        /// Base64: the sender's signature of the session.
        sender_signature: Text,
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
struct JsonText<'a>(Cow<'a, str>);

impl<'a> Deserialize<'a> for JsonText<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'a> Visitor<'a> for TextVisitor {
            type Value = JsonText<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'a str) -> Result<JsonText<'a>, E> {
                Ok(JsonText(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<JsonText<'a>, E> {
                Ok(JsonText(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}
