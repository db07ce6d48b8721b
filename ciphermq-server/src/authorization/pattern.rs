//! Patterns of names: globs, in which `${client_id}` stands for the calling client.

use ciphermq_protocol::ClientId;
use ciphermq_protocol::name::{self, NameError};
use wildmatch::WildMatchPattern;

/// The variable for the id of the calling client.
const CLIENT_ID: &str = "${client_id}";

/// Stands for `*` in a compiled pattern. No name holds a control character, so a client id that is
/// filled in is never read as a pattern.
const ANY_CHARACTERS: char = '\u{1}';
/// Stands for `?` in a compiled pattern.
const ONE_CHARACTER: char = '\u{2}';

/// A glob: `*` matches any characters, `?` matches one character, and others match themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern(WildMatchPattern<ANY_CHARACTERS, ONE_CHARACTER>);

/// A glob that may hold `${client_id}`, which matches the id of the calling client and nothing
/// else.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    /// The pieces of the compiled pattern between the variables, at least one.
    pieces: Vec<String>,
}

/// The reason why a text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No name matches the text.
    #[error("no name matches it: {0}")]
    NoName(NameError),
    /// The text holds a character that other kinds of patterns use.
    #[error("it holds {0:?}, which patterns do not know")]
    Reserved(char),
    /// The text holds a variable other than `${client_id}`.
    #[error("it holds a variable other than ${{client_id}}")]
    Variable,
    /// The text holds `${client_id}` where no client has been found yet.
    #[error("${{client_id}} would match every client here")]
    EveryClient,
}

impl PatternError {
    /// Returns what to do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoName(_) => "Write a name, or a part of one with * for the others.",
            Self::Reserved(_) => {
                "Write * for any characters and ? for one; ? also stands for a character such as \
                 this one."
            }
            Self::Variable => "Write ${client_id} for the client's own id.",
            Self::EveryClient => "Write the ids of the clients, or * if all are meant.",
        }
    }
}

impl Pattern {
    /// Parses a pattern without `${client_id}`.
    ///
    /// # Errors
    ///
    /// [`PatternError`] if no name can match it, or its meaning is not certain.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        match Template::parse(text)?.pieces.as_slice() {
            [piece] => Ok(Self::compiled(piece)),
            _ => Err(PatternError::EveryClient),
        }
    }

    /// Creates a pattern that matches one client id and nothing else, whatever characters it has.
    #[must_use]
    pub fn literal(client_id: &ClientId) -> Self {
        Self::compiled(client_id.as_str())
    }

    /// Returns whether a name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }

    fn compiled(text: &str) -> Self {
        Self(WildMatchPattern::new(text))
    }
}

impl Template {
    /// Parses a pattern.
    ///
    /// # Errors
    ///
    /// [`PatternError`] if no name can match it, or its meaning is not certain.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        name::check(text).map_err(PatternError::NoName)?;
        let pieces = text.split(CLIENT_ID).map(|piece| {
            if piece.contains("${") {
                return Err(PatternError::Variable);
            }
            let is_reserved = |c: &char| matches!(c, '[' | ']' | '{' | '}' | '\\');
            if let Some(reserved) = piece.chars().find(is_reserved) {
                return Err(PatternError::Reserved(reserved));
            }
            let wildcard = |c| match c {
                '*' => ANY_CHARACTERS,
                '?' => ONE_CHARACTER,
                c => c,
            };
            Ok(piece.chars().map(wildcard).collect())
        });
        let pieces = pieces.collect::<Result<_, _>>()?;
        Ok(Self { pieces })
    }

    /// Returns the pattern for one client.
    #[must_use]
    pub fn for_client(&self, client_id: &ClientId) -> Pattern {
        Pattern::compiled(&self.pieces.join(client_id.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: &str) -> ClientId {
        ClientId::new(id).unwrap()
    }

    #[test]
    fn wildcards_match_characters_not_bytes() {
        for (pattern, name, matches) in [
            ("sensor-*", "sensor-7", true),
            ("sensor-*", "sensor-", true),
            ("sensor-*", "sensor", false),
            ("*", "a/b.c", true),
            ("*.eu.*", "a.eu.b", true),
            ("*.eu.*", "a.us.b", false),
            ("s?", "sü", true),
            ("s?", "s", false),
            ("s?", "s12", false),
            ("a**b", "ab", true),
            ("a$b", "a$b", true),
            ("Sensor", "sensor", false),
        ] {
            let pattern_matches = Pattern::parse(pattern).unwrap().matches(name);
            assert_eq!(pattern_matches, matches, "{pattern} {name}");
        }
    }

    #[test]
    fn a_client_id_is_filled_in_literally() {
        let template = Template::parse("${client_id}-*").unwrap();
        for (id, name, matches) in [
            ("a", "a-mirror", true),
            ("a", "b-mirror", false),
            ("*", "*-mirror", true),
            ("*", "b-mirror", false),
            ("?", "b-mirror", false),
            ("${client_id}", "${client_id}-mirror", true),
            ("${client_id}", "a-mirror", false),
        ] {
            let pattern = template.for_client(&client(id));
            assert_eq!(pattern.matches(name), matches, "{id} {name}");
        }
        let twice = Template::parse("${client_id}.${client_id}").unwrap();
        assert!(twice.for_client(&client("a")).matches("a.a"));
    }

    #[test]
    fn a_literal_matches_itself_only() {
        let literal = Pattern::literal(&client("a*"));
        assert!(literal.matches("a*"));
        assert!(!literal.matches("ab"));
    }

    #[test]
    fn patterns_of_uncertain_meaning_are_refused() {
        for (text, error) in [
            ("", PatternError::NoName(NameError::Empty)),
            ("a b", PatternError::NoName(NameError::Unprintable(' '))),
            (
                "\u{1}",
                PatternError::NoName(NameError::Unprintable('\u{1}')),
            ),
            ("sensor-[0-9]", PatternError::Reserved('[')),
            ("{a,b}", PatternError::Reserved('{')),
            (r"a\*", PatternError::Reserved('\\')),
            ("${client}", PatternError::Variable),
            ("${client_id", PatternError::Variable),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text}");
            assert_eq!(Pattern::parse(text), Err(error), "{text}");
        }
        for text in ["${client_id}", "a-${client_id}"] {
            assert_eq!(
                Pattern::parse(text),
                Err(PatternError::EveryClient),
                "{text}"
            );
        }
    }
}
