//! Sections of the raw form: a list of fields defines a deserializer and a set of variables.

/// A section of the configuration file, as written.
pub(super) trait Section {
    /// The name in the section's header, without brackets. A section within another one has both
    /// names, with a dot between them.
    const NAME: &'static str;
    /// The names of all fields, in the order of the documentation.
    const FIELDS: &'static [&'static str];

    /// Removes fields that are blank and have a default.
    fn drop_blanks(&mut self);

    /// Sets a field to the value of an environment variable; `false` if there is no such field.
    fn set(&mut self, field: &str, value: String, variable: &str) -> bool;
}

/// The prefix of the server's environment variables.
pub(super) const PREFIX: &str = "CIPHERMQ_";

/// Returns the name of a field's environment variable.
pub(super) fn variable(section: &str, field: &str) -> String {
    format!(
        "{PREFIX}{}_{}",
        section.to_ascii_uppercase().replace('.', "_"),
        field.to_ascii_uppercase()
    )
}

/// Fields for which an empty value is an error.
///
/// With the default instead, the server would listen on another address, admit revoked clients,
/// take clients for others, use another database, or seal with another key than intended.
pub(super) const NEVER_BLANK: &[(&str, &str)] = &[
    ("server", "address"),
    ("server", "connection_type"),
    ("tls", "client_id_from"),
    ("tls", "crl_paths"),
    ("database", "url"),
    ("database", "user"),
    ("database", "dbname"),
    ("encryption", "aes_key"),
];

/// Defines the struct of a section, with all fields optional, and implements [`Section`] for it.
///
/// The tables within it that follow `with` have no variables as its fields.
macro_rules! section {
    (
        $(#[$meta:meta])*
        $Section:ident($name:literal) { $($field:ident: $Kind:ty,)* }
        $(with { $($table:ident: $Table:ty,)* })?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields, expecting = "a section: its name in brackets, \
            its fields below")]
        pub(in crate::config) struct $Section {
            $(pub(in crate::config) $field: Option<$crate::config::setting::Setting<$Kind>>,)*
            $($(pub(in crate::config) $table: $Table,)*)?
        }

        impl $crate::config::section::Section for $Section {
            const NAME: &'static str = $name;
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];

            fn drop_blanks(&mut self) {
                use $crate::config::{section::NEVER_BLANK, setting::Blank as _};
                $(
                    if !NEVER_BLANK.contains(&($name, stringify!($field))) {
                        self.$field.take_if(|setting| setting.value.is_blank());
                    }
                )*
            }

            fn set(&mut self, field: &str, value: String, variable: &str) -> bool {
                match field {
                    $(stringify!($field) => {
                        self.$field =
                            Some($crate::config::setting::Setting::of_variable(value, variable));
                    })*
                    _ => return false,
                }
                true
            }
        }
    };
}

pub(super) use section;
