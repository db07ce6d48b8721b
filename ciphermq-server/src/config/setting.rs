//! Values as written, each with its location in the file or the environment.

use std::fmt;

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::Secret;

/// A value as written, with its location.
#[derive(Debug, Clone)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) location: Location,
}

/// The location of a value in the file or the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Location {
    /// The byte offset in the file.
    Offset(usize),
    /// The name of the environment variable.
    Variable(String),
}

impl<T: From<String>> Setting<T> {
    /// Creates the setting of an environment variable.
    pub(super) fn of_variable(value: String, variable: &str) -> Self {
        Self {
            value: value.into(),
            location: Location::Variable(variable.to_owned()),
        }
    }
}

impl<T> Setting<T> {
    /// Returns whether the value comes from an environment variable.
    pub(super) fn is_variable(&self) -> bool {
        matches!(self.location, Location::Variable(_))
    }
}

/// A TOML string.
#[derive(Debug, Clone)]
pub(super) struct Text(pub(super) String);

/// A TOML integer, or a string such as `64MiB` or `30s`.
///
/// It is kept as text, so that the same code validates values of the file and the environment.
#[derive(Debug, Clone)]
pub(super) struct Quantity(pub(super) String);

/// A TOML boolean, kept as text for the same reason as a [`Quantity`].
#[derive(Debug, Clone)]
pub(super) struct Boolean(pub(super) String);

/// A TOML array of strings.
///
/// In an environment variable, commas separate the strings.
#[derive(Debug, Clone, Default)]
pub(super) struct List(pub(super) Vec<String>);

/// A text, or a list of texts. In a variable they are separated by commas.
#[derive(Debug, Clone, Default)]
pub(super) struct OneOrMore(pub(super) List);

/// A value that may be blank: empty, or only whitespace.
pub(super) trait Blank {
    /// Returns whether the value is blank.
    fn is_blank(&self) -> bool;
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<String> for Quantity {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<String> for Boolean {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<String> for List {
    fn from(text: String) -> Self {
        Self(text.split(',').map(|item| item.trim().to_owned()).collect())
    }
}

impl From<String> for OneOrMore {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl Blank for OneOrMore {
    fn is_blank(&self) -> bool {
        self.0.is_blank()
    }
}

impl Blank for List {
    fn is_blank(&self) -> bool {
        self.0.iter().all(|item| item.trim().is_empty())
    }
}

impl Blank for Text {
    fn is_blank(&self) -> bool {
        self.0.trim().is_empty()
    }
}

impl Blank for Quantity {
    fn is_blank(&self) -> bool {
        self.0.trim().is_empty()
    }
}

impl Blank for Boolean {
    fn is_blank(&self) -> bool {
        self.0.trim().is_empty()
    }
}

impl Blank for Secret {
    fn is_blank(&self) -> bool {
        self.expose().trim().is_empty()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Setting<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        let location = Location::Offset(spanned.span().start);
        Ok(Self {
            value: spanned.into_inner(),
            location,
        })
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(TextVisitor {
                integers_allowed: false,
            })
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(TextVisitor {
                integers_allowed: false,
            })
            .map(Self::from)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(TextVisitor {
                integers_allowed: true,
            })
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for Boolean {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BooleanVisitor).map(Self)
    }
}

/// A visitor that accepts `true`, `false`, and blank text, which stands for the default.
struct BooleanVisitor;

impl de::Visitor<'_> for BooleanVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false, without quotes")
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<String, E> {
        Ok(on.to_string())
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        if text.trim().is_empty() {
            return Ok(text.to_owned());
        }
        Err(E::invalid_type(de::Unexpected::Str(text), &self))
    }
}

/// A visitor that accepts a string and, if allowed, an integer.
struct TextVisitor {
    integers_allowed: bool,
}

impl de::Visitor<'_> for TextVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.integers_allowed {
            "a whole number, or text in double quotes"
        } else {
            "text in double quotes"
        })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<String, E> {
        Ok(text)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        if self.integers_allowed {
            return Ok(number.to_string());
        }
        Err(E::invalid_type(de::Unexpected::Signed(number), &self))
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor)
    }
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMoreVisitor)
    }
}

/// A visitor that accepts a string or an array of strings.
struct OneOrMoreVisitor;

impl<'de> de::Visitor<'de> for OneOrMoreVisitor {
    type Value = OneOrMore;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in double quotes, or a list of them in brackets")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<OneOrMore, E> {
        Ok(OneOrMore(List(vec![text.to_owned()])))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, list: A) -> Result<OneOrMore, A::Error> {
        ListVisitor.visit_seq(list).map(OneOrMore)
    }
}

/// A visitor that accepts an array of strings.
struct ListVisitor;

impl<'de> de::Visitor<'de> for ListVisitor {
    type Value = List;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of texts in double quotes, in brackets: [\"one\", \"other\"]")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<List, A::Error> {
        let mut texts = Vec::new();
        while let Some(Text(text)) = list.next_element()? {
            texts.push(text);
        }
        Ok(List(texts))
    }
}
