//! Sections of the low-level form: a list of fields becomes a TOML reader and a table of variables.

use super::file::Place;

/// A section of the configuration file, as it was written.
pub(super) trait Section {
    /// The name between the brackets.
    const NAME: &'static str;
    /// The names of all its fields, in the order of the documentation.
    const FIELDS: &'static [&'static str];

    /// Removes fields that are blank and have a default.
    fn drop_blanks(&mut self);

    /// Sets a field to the value of an environment variable; `false` if there is no such field.
    fn set(&mut self, field: &str, value: String, variable: &str) -> bool;
}

/// A value that may be blank: empty, or only white space.
pub(super) trait Blank {
    /// Whether nothing stands between the quotes.
    fn is_blank(&self) -> bool;
}

/// The place of a value that an environment variable set.
pub(super) fn variable_place(variable: &str) -> Place {
    Place::Variable(variable.to_owned())
}

/// Defines a section: its struct, whose fields are all optional, and [`Section`] for it.
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
                let place = $crate::config::section::variable_place(variable);
                match field {
                    $(stringify!($field) => {
                        let value = <$Kind>::from(value);
                        self.$field = Some($crate::config::file::Setting { value, place });
                    })*
                    _ => return false,
                }
                true
            }
        }
    };
}

pub(super) use section;
