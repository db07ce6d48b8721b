//! The low-level form: what stands in the file and the environment, each value with its place.
//!
//! The lists of fields below, and the table of limits, are the only ones. From them come the TOML
//! reader, the names of the environment variables, and the test that the documentation leaves out
//! none of them.

use std::{fmt, path::Path};

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{
    Error, Secret, error,
    limits::LimitsSection,
    older::{self, OlderSection},
    section::{Blank, Section as _, section},
    service_link,
};

/// What all our environment variables begin with.
pub(super) const PREFIX: &str = "CIPHERMQ_";

/// A value as it was written, and where.
#[derive(Debug, Clone)]
pub(super) struct Setting<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// In the file, at this byte.
    Offset(usize),
    /// In this environment variable.
    Variable(String),
}

impl<T> Setting<T> {
    /// Whether an environment variable made this setting.
    pub(super) fn is_variable(&self) -> bool {
        matches!(self.place, Place::Variable(_))
    }
}

/// A text in quotes.
#[derive(Debug, Clone)]
pub(super) struct Text(pub(super) String);

/// A number, or a text such as `64MiB` or `30s`: kept as text, so that the file and the environment
/// are checked by the same code.
#[derive(Debug, Clone)]
pub(super) struct Quantity(pub(super) String);

/// `true` or `false`; kept as text, as a [`Quantity`] is.
#[derive(Debug, Clone)]
pub(super) struct Switch(pub(super) String);

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

impl From<String> for Switch {
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

impl Blank for Switch {
    fn is_blank(&self) -> bool {
        self.0.trim().is_empty()
    }
}

impl Blank for Secret {
    fn is_blank(&self) -> bool {
        self.expose().trim().is_empty()
    }
}

/// Fields whose emptiness is a mistake that must be told: with a default in their place the server
/// would listen elsewhere, store elsewhere, or seal with another key than meant.
pub(super) const NEVER_BLANK: &[(&str, &str)] = &[
    ("server", "address"),
    ("server", "connection_type"),
    ("database", "url"),
    ("database", "user"),
    ("database", "dbname"),
    ("encryption", "aes_key"),
];

/// Defines the file from its sections: the reader, and how a variable finds its field.
macro_rules! sections {
    ($($section:ident: $Section:ident,)*) => {
        /// The whole file.
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct File {
            $(pub(super) $section: $Section,)*
            pub(super) acl: Option<OlderSection>,
            pub(super) admin: Option<OlderSection>,
            pub(super) rate_limit: Option<OlderSection>,
            pub(super) performance: Option<OlderSection>,
            /// Environment variables of those four sections, sorted.
            #[serde(skip)]
            pub(super) older_variables: Vec<String>,
        }

        /// Every section, with every one of its fields.
        pub(super) const SECTIONS: &[(&str, &[&str])] =
            &[$(($Section::NAME, $Section::FIELDS),)*];

        impl File {
            /// Removes blank values that have a default: older configurations leave texts empty
            /// for that.
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
}

section! {
    /// `[server]` as it was written.
    Server("server") {
        address: Text,
        connection_type: Text,
    }
}

section! {
    /// `[tls]` as it was written.
    Tls("tls") {
        cert_path: Text,
        key_path: Text,
        ca_cert_path: Text,
    }
}

section! {
    /// `[logging]` as it was written.
    Logging("logging") {
        level: Text,
        messages: Switch,
        info_file_path: Text,
        debug_file_path: Text,
        error_file_path: Text,
        rotation: Text,
        max_size_mb: Quantity,
    }
}

section! {
    /// `[database]` as it was written.
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
    /// `[encryption]` as it was written.
    Encryption("encryption") {
        algorithm: Text,
        aes_key: Secret,
        aes_key_file: Text,
        older_rows: Text,
    }
}

impl File {
    /// Reads the TOML text; `path` only stands in errors.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        toml::from_str(text).map_err(|error| error::syntax(&error, text, path))
    }

    /// Lays environment variables over the file: `CIPHERMQ_<SECTION>_<FIELD>`.
    ///
    /// An empty variable counts as not set, whatever its name, as container tools hand over what
    /// nobody has filled in.
    /// Variables that Kubernetes makes for its services are not ours, whatever their names begin
    /// with.
    pub(super) fn overlay(
        &mut self,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<(), Error> {
        self.drop_blanks();
        self.database.drop_blank_url();
        for (name, value) in env {
            if value.is_empty() || service_link::is_one(&name, &value) {
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
                return Err(Error::VariableNotText { name });
            }
            self.set(&section, &field, value, &name);
        }
        self.older_variables.sort_unstable();
        self.drop_blanks();
        self.database.settle();
        Ok(())
    }
}

impl Database {
    /// An empty url beside the fields names nothing. Alone it is a mistake.
    fn drop_blank_url(&mut self) {
        if self.host.is_some() || self.user.is_some() || self.dbname.is_some() {
            self.url.take_if(|url| url.value.is_blank());
        }
    }

    /// `url` on one side, the five fields on the other: where the environment names one side, what
    /// the file says on the other is overridden with it. Both on the same side of the file is left
    /// for validation.
    fn settle(&mut self) {
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
            // None: nothing to override. Both: a contradiction, which validation refuses.
            (false, false) | (true, true) => {}
        }
    }
}

/// The environment variable of a field.
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
        let place = Place::Offset(spanned.span().start);
        Ok(Self {
            value: spanned.into_inner(),
            place,
        })
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(Words { numbers: false })
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(Words { numbers: false })
            .map(Self::from)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(Words { numbers: true })
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bool::deserialize(deserializer).map(|on| Self(on.to_string()))
    }
}

/// Takes a string and, if wanted, a whole number.
struct Words {
    numbers: bool,
}

impl de::Visitor<'_> for Words {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.numbers {
            "a whole number, or a text in double quotes"
        } else {
            "a text in double quotes"
        })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<String, E> {
        Ok(text)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        if self.numbers {
            return Ok(number.to_string());
        }
        Err(E::invalid_type(de::Unexpected::Signed(number), &self))
    }
}
