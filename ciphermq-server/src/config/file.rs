//! The raw form: the values of the file and the environment as written, each with its location.
//!
//! The lists of fields below, and the table of limits, are the single definition of the settings.
//! They generate the deserializer and the names of the environment variables, and tests compare
//! them with the documentation.

use std::{fmt, path::Path};

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{
    Error, Secret,
    authorization::Authorization,
    error,
    limits::LimitsSection,
    older::{self, OlderSection},
    section::{Blank, Section as _, section},
    service_link,
};

/// The prefix of the server's environment variables.
pub(super) const PREFIX: &str = "CIPHERMQ_";

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

/// Fields for which an empty value is an error.
///
/// With the default instead, the server would listen on another address, use another database, or
/// seal with another key than intended.
pub(super) const NEVER_BLANK: &[(&str, &str)] = &[
    ("server", "address"),
    ("server", "connection_type"),
    ("database", "url"),
    ("database", "user"),
    ("database", "dbname"),
    ("encryption", "aes_key"),
];

/// Defines the struct of the file from its sections, and the assignment of variables to fields.
macro_rules! sections {
    ($($section:ident: $Section:ident,)*) => {
        /// A configuration file as written, with its sections.
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct File {
            $(pub(super) $section: $Section,)*
            pub(super) acl: Option<OlderSection>,
            pub(super) admin: Option<OlderSection>,
            pub(super) rate_limit: Option<OlderSection>,
            pub(super) performance: Option<OlderSection>,
            /// The names of environment variables of the four older sections, sorted.
            #[serde(skip)]
            pub(super) older_variables: Vec<String>,
        }

        /// The name of every section, with the names of its fields.
        pub(super) const SECTIONS: &[(&str, &[&str])] =
            &[$(($Section::NAME, $Section::FIELDS),)*];

        impl File {
            /// Removes blank values of fields that have a default.
            ///
            /// Older configurations select a default with an empty string.
            fn drop_blanks(&mut self) {
                $(self.$section.drop_blanks();)*
            }

            /// Sets a field to the value of an environment variable; `false` if there is no such
            /// field.
            fn set(&mut self, section: &str, field: &str, value: String, variable: &str) -> bool {
                match section {
                    $($Section::NAME => self.$section.set(field, value, variable),)*
                    _ => false,
                }
            }
        }
    };
}

sections! {
    server: Server,
    tls: Tls,
    logging: Logging,
    database: Database,
    encryption: Encryption,
    limits: LimitsSection,
    authorization: Authorization,
}

section! {
    /// The section `[server]` as written.
    Server("server") {
        address: Text,
        connection_type: Text,
    }
}

section! {
    /// The section `[tls]` as written.
    Tls("tls") {
        cert_path: Text,
        key_path: Text,
        ca_cert_path: Text,
    }
}

section! {
    /// The section `[logging]` as written.
    Logging("logging") {
        level: Text,
        messages: Boolean,
        info_file_path: Text,
        debug_file_path: Text,
        error_file_path: Text,
        rotation: Text,
        max_size_mb: Quantity,
        max_total_mb: Quantity,
        max_files: Quantity,
    }
}

section! {
    /// The section `[database]` as written.
    Database("database") {
        url: Secret,
        host: Text,
        port: Quantity,
        user: Text,
        password: Secret,
        dbname: Text,
        sslmode: Text,
        sslrootcert: Text,
    }
}

section! {
    /// The section `[encryption]` as written.
    Encryption("encryption") {
        algorithm: Text,
        aes_key: Secret,
        aes_key_file: Text,
        older_rows: Text,
    }
}

impl File {
    /// Parses TOML text; `path` is only used in errors.
    ///
    /// # Errors
    ///
    /// [`Error::Syntax`] if the text is not TOML, or has an unknown name or a value of the wrong
    /// type.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| error::from_toml(&error, text, path))
    }

    /// Overrides settings with the environment variables `CIPHERMQ_<SECTION>_<FIELD>`.
    ///
    /// An empty variable counts as not set, whatever its name, because container tools pass on
    /// variables without a value. Variables that Kubernetes sets for its services are ignored.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownVariable`] for a variable of a section without such a field, and
    /// [`Error::VariableNotUtf8`] for a value with U+FFFD.
    pub(super) fn apply_environment(
        &mut self,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<(), Error> {
        self.drop_blanks();
        self.database.drop_blank_url();
        for (name, value) in env {
            if value.is_empty() || service_link::is_service_link(&name, &value) {
                continue;
            }
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            if older::section_of(rest).is_some() {
                self.older_variables.push(name);
                continue;
            }
            let Some((section, field)) = rest.split_once('_') else {
                continue;
            };
            let (section, field) = (section.to_ascii_lowercase(), field.to_ascii_lowercase());
            let Some((_, fields)) = SECTIONS.iter().find(|(known, _)| **known == section) else {
                continue;
            };
            if !fields.contains(&field.as_str()) {
                let known: Vec<String> = fields
                    .iter()
                    .map(|field| variable(&section, field))
                    .collect();
                let advice = format!("Unset it, or correct its name: {}.", known.join(", "));
                return Err(Error::UnknownVariable { name, advice });
            }
            if value.contains(char::REPLACEMENT_CHARACTER) {
                return Err(Error::VariableNotUtf8 { name });
            }
            self.set(&section, &field, value, &name);
        }
        self.older_variables.sort_unstable();
        self.drop_blanks();
        self.database.resolve_overrides();
        Ok(())
    }
}

impl Database {
    /// Removes a blank `url` if other fields name the database; on its own it is an error.
    fn drop_blank_url(&mut self) {
        if self.host.is_some() || self.user.is_some() || self.dbname.is_some() {
            self.url.take_if(|url| url.value.is_blank());
        }
    }

    /// Removes the file's `url` or its five fields if variables set the other of the two.
    ///
    /// If both come from the same source, validation reports the contradiction.
    fn resolve_overrides(&mut self) {
        let url_set = self.url.as_ref().is_some_and(Setting::is_variable);
        let field_set = [
            self.host.as_ref().map(Setting::is_variable),
            self.port.as_ref().map(Setting::is_variable),
            self.user.as_ref().map(Setting::is_variable),
            self.password.as_ref().map(Setting::is_variable),
            self.dbname.as_ref().map(Setting::is_variable),
        ]
        .contains(&Some(true));
        match (url_set, field_set) {
            (true, false) => {
                self.host = None;
                self.port = None;
                self.user = None;
                self.password = None;
                self.dbname = None;
            }
            (false, true) => self.url = None,
            // Neither: nothing to override. Both: a contradiction, which validation refuses.
            (false, false) | (true, true) => {}
        }
    }
}

/// Returns the name of a field's environment variable.
pub(super) fn variable(section: &str, field: &str) -> String {
    format!(
        "{PREFIX}{}_{}",
        section.to_ascii_uppercase(),
        field.to_ascii_uppercase()
    )
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
