//! Names of queues, exchanges, routing keys, clients and messages.
//!
//! All five follow one rule, [`check`]: 1 to 255 bytes of printable UTF-8 without spaces or control
//! characters. A name that is new to a server follows a stricter one, [`check_new`], which older
//! names need not. Each has a type of its own, so that a queue name cannot be passed as a routing
//! key. Cloning is cheap. A [`pattern`] matches several names.

pub mod pattern;

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The limit for a name, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// The reason why a text is not a name.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than [`MAX_NAME_BYTES`].
    #[error("a name has at most {MAX_NAME_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// The text holds white space, a control character or an invisible format character.
    #[error("a name holds no spaces and no control characters, this one has {0:?}")]
    Unprintable(char),
    /// The text of a new name holds a character that is invisible or changes the text direction.
    #[error("a new name holds no invisible characters, this one has {0:?}")]
    Invisible(char),
}

crate::debug_as_report!(NameError);

/// Checks the rule that all names follow.
///
/// # Errors
///
/// [`NameError`] says which part of the rule is broken.
pub fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong(text.len()));
    }
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    match text.chars().find(|&c| is_unprintable(c)) {
        Some(c) => Err(NameError::Unprintable(c)),
        None => Ok(()),
    }
}

/// Checks the rule for names that are new to a server.
///
/// Two names that look alike would be mistaken for each other. Beyond [`check`] it refuses the
/// default-ignorable characters (`Default_Ignorable_Code_Point` of Unicode 16, unassigned code
/// points included). They are invisible, such as the soft hyphen, fillers, variation selectors and
/// tags, or change the direction of the text, such as the Arabic letter mark.
///
/// # Errors
///
/// [`NameError`] says which part of the rule is broken.
pub fn check_new(text: &str) -> Result<(), NameError> {
    check(text)?;
    match text.chars().find(|&c| is_invisible(c)) {
        Some(c) => Err(NameError::Invisible(c)),
        None => Ok(()),
    }
}

/// Returns whether a character is default-ignorable.
///
/// Those that [`is_unprintable`] includes are left out.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}'
        | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}' | '\u{3164}'
        | '\u{FE00}'..='\u{FE0F}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFF8}'
        | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// A name that is known and checked at compile time, and converts into any type of name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticName(&'static str);

impl StaticName {
    /// Creates a name of printable ASCII without spaces, for a `const`.
    ///
    /// # Panics
    ///
    /// If the text is something else; in a `const` it does not compile then.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        assert!(!text.is_empty() && text.len() <= MAX_NAME_BYTES);
        let mut rest = text.as_bytes();
        while let [first, after @ ..] = rest {
            assert!(first.is_ascii_graphic());
            rest = after;
        }
        Self(text)
    }

    /// Returns the name as text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Returns whether names must not contain a character.
///
/// These are spaces, controls, line and paragraph separators, and marks that change the reading
/// direction or are invisible: two names that look alike must not differ by them.
fn is_unprintable(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}')
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Creates a name from a text that follows the rule for names.
            ///
            /// # Errors
            ///
            /// [`NameError`] if it does not.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.into()))
            }

            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<StaticName> for $name {
            fn from(name: StaticName) -> Self {
                Self(name.0.into())
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// The id of a client, as its certificate states it.
    ClientId
);
name_type!(
    /// The name of a queue.
    QueueName
);
name_type!(
    /// The name of an exchange.
    ExchangeName
);
name_type!(
    /// The key by which an exchange selects the queues of a message.
    RoutingKey
);
name_type!(
    /// The unique id of a message.
    ///
    /// [`crate::StreamId`] makes those of this implementation; older clients send other texts.
    MessageId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_printable_names() {
        for text in [
            "q",
            "my_queue",
            "sensor.readings/2010",
            "Zürich→Bern",
            "温度",
            &"x".repeat(255),
        ] {
            assert_eq!(QueueName::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn refuses_spaces_and_control_characters() {
        assert_eq!(QueueName::new(""), Err(NameError::Empty));
        assert_eq!(
            QueueName::new(&"x".repeat(256)),
            Err(NameError::TooLong(256))
        );
        for c in [
            ' ', '\n', '\r', '\t', '\0', '\x7f', '\u{85}', '\u{a0}', '\u{2028}', '\u{202e}',
            '\u{feff}',
        ] {
            assert_eq!(
                QueueName::new(&format!("a{c}b")),
                Err(NameError::Unprintable(c)),
                "{c:?}"
            );
        }
    }

    #[test]
    fn new_names_show_all_that_is_in_them() {
        for c in [
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{e0041}',
            '\u{e0100}',
        ] {
            let text = format!("a{c}b");
            assert_eq!(check_new(&text), Err(NameError::Invisible(c)), "{c:?}");
            // Names in use stay valid.
            assert_eq!(QueueName::new(&text).unwrap().as_str(), text);
        }
        assert_eq!(check_new("a b"), Err(NameError::Unprintable(' ')));
        for text in ["q", "Zürich→Bern", "温度", "مرحبا", "한국어", "ᠮᠣᠩᠭᠣᠯ"]
        {
            assert_eq!(check_new(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn reads_and_writes_json() {
        let name: ClientId = serde_json::from_str("\"sender\\u005f1\"").unwrap();
        assert_eq!(name.as_str(), "sender_1");
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"sender_1\"");
        assert!(serde_json::from_str::<ClientId>("\"a b\"").is_err());
    }
}
