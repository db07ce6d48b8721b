//! The raw form: the sections of the file, and the environment variables that override them.
//!
//! The lists of fields below, and the table of limits, are the single definition of the settings.
//! They generate the deserializer and the names of the environment variables, and tests compare
//! them with the documentation.

use std::path::Path;

use serde::Deserialize;

use super::{
    Error, Secret,
    acl::AclSection,
    authorization::Authorization,
    error,
    limits::{ClientSection, LimitsSection},
    older::{self, OlderSection},
    section::{PREFIX, Section as _, section, variable},
    service_link,
    setting::{Blank as _, Boolean, List, OneOrMore, Quantity, Setting, Text},
};

/// Defines the struct of the file from its sections, and the assignment of variables to fields.
macro_rules! sections {
    ($($section:ident: $Section:ident,)*) => {
        /// A configuration file as written, with its sections.
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct File {
            $(pub(super) $section: $Section,)*
            pub(super) acl: Option<AclSection>,
            pub(super) admin: Option<OlderSection>,
            pub(super) rate_limit: Option<OlderSection>,
            pub(super) performance: Option<OlderSection>,
            /// The names of environment variables of the four older sections, sorted.
            #[serde(skip)]
            pub(super) older_variables: Vec<String>,
        }

        /// The name of every section, with the names of its fields.
        pub(super) const SECTIONS: &[(&str, &[&str])] =
            &[$(($Section::NAME, $Section::FIELDS),)*
                (ClientSection::NAME, ClientSection::FIELDS)];

        impl File {
            /// Removes blank values of fields that have a default.
            ///
            /// Older configurations select a default with an empty string.
            fn drop_blanks(&mut self) {
                $(self.$section.drop_blanks();)*
                self.limits.client.drop_blanks();
            }

            /// Sets a field to the value of an environment variable; `false` if there is no such
            /// field.
            fn set(&mut self, section: &str, field: &str, value: String, variable: &str) -> bool {
                match section {
                    $($Section::NAME => self.$section.set(field, value, variable),)*
                    ClientSection::NAME => self.limits.client.set(field, value, variable),
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
        client_id_from: OneOrMore,
        crl_paths: List,
        crl_policy: Text,
        watch: Boolean,
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
    /// Returns the byte offsets of the older sections without effect that the file has, in the
    /// order of [`older::SECTIONS`].
    pub(super) fn older_sections(&self) -> [Option<usize>; 4] {
        let offset = |section: &Option<OlderSection>| Some(section.as_ref()?.offset);
        [
            self.acl
                .as_ref()
                .and_then(AclSection::offset_without_meaning),
            offset(&self.admin),
            offset(&self.rate_limit),
            offset(&self.performance),
        ]
    }

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
            let Some((section, fields, field)) = section_of(rest) else {
                continue;
            };
            if !fields.contains(&field.as_str()) {
                let known: Vec<String> = fields
                    .iter()
                    .map(|field| variable(section, field))
                    .collect();
                let advice = format!("Unset it, or correct its name: {}.", known.join(", "));
                return Err(Error::UnknownVariable { name, advice });
            }
            if value.contains(char::REPLACEMENT_CHARACTER) {
                return Err(Error::VariableNotUtf8 { name });
            }
            self.set(section, &field, value, &name);
        }
        self.older_variables.sort_unstable();
        self.drop_blanks();
        self.database.resolve_overrides();
        Ok(())
    }
}

/// Splits a variable's name, without its prefix, into a section with its fields and the name of a
/// field: of two sections that begin the name, the one within the other.
fn section_of(rest: &str) -> Option<(&'static str, &'static [&'static str], String)> {
    let rest = rest.to_ascii_lowercase();
    let sections = SECTIONS.iter().filter_map(|&(section, fields)| {
        let field = rest.strip_prefix(&section.replace('.', "_"))?;
        Some((section, fields, field.strip_prefix('_')?.to_owned()))
    });
    sections.max_by_key(|(section, ..)| section.len())
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
