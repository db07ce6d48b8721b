//! Sections of the raw form: a list of fields defines a deserializer and a set of variables.

use super::file::Location;

/// A section of the configuration file, as written.
pub(super) trait Section {
    /// The name in the section's header, without brackets.
    const NAME: &'static str;
    /// The names of all fields, in the order of the documentation.
    const FIELDS: &'static [&'static str];

    /// Removes fields that are blank and have a default.
    fn drop_blanks(&mut self);

    /// Sets a field to the value of an environment variable; `false` if there is no such field.
    fn set(&mut self, field: &str, value: String, variable: &str) -> bool;
}

/// A value that may be blank: empty, or only whitespace.
pub(super) trait Blank {
    /// Returns whether the value is blank.
    fn is_blank(&self) -> bool;
}

/// Returns the location of a value that comes from an environment variable.
pub(super) fn variable_location(variable: &str) -> Location {
    Location::Variable(variable.to_owned())
}

/// Defines the struct of a section, with all fields optional, and implements [`Section`] for it.
macro_rules! section {
    ($(#[$meta:meta])* $Section:ident($name:literal) { $($field:ident: $Kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields, expecting = "a section: its name in brackets, \
            its fields below")]
        pub(in crate::config) struct $Section {
            $(pub(in crate::config) $field: Option<$crate::config::file::Setting<$Kind>>,)*
        }

        impl $crate::config::section::Section for $Section {
            const NAME: &'static str = $name;
            const FIELDS: &'static [&'static str] = &[$(stringify!($field)),*];

            fn drop_blanks(&mut self) {
                use $crate::config::{file::NEVER_BLANK, section::Blank as _};
                $(
                    if !NEVER_BLANK.contains(&($name, stringify!($field))) {
                        self.$field.take_if(|setting| setting.value.is_blank());
                    }
                )*
            }

            fn set(&mut self, field: &str, value: String, variable: &str) -> bool {
                let location = $crate::config::section::variable_location(variable);
                match field {
                    $(stringify!($field) => {
                        let value = <$Kind>::from(value);
                        self.$field = Some($crate::config::file::Setting { value, location });
                    })*
                    _ => return false,
                }
                true
            }
        }
    };
}

pub(super) use section;
