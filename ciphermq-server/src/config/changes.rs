//! The settings that differ between two configurations.

use ciphermq_logging::Settings as Logging;

use super::{Config, Encryption, Server};

/// Appends the settings of a section that differ: by the name of their field, or by the one after
/// `as` if the file has another. It does not compile if a field is left out, except those `without`
/// which it compares.
macro_rules! compare {
    (
        $names:ident, $section:literal, $Type:ident { $($field:ident $(as $name:literal)?),* }
        $(without { $($without:ident),* })?, $old:expr, $new:expr
    ) => {
        let ($Type { $($field,)* $($($without: _),*)? }, new) = ($old, $new);
        $(if *$field != new.$field {
            let names = [stringify!($field), $($name)?];
            let name = names.last().unwrap_or(&"");
            $names.push(format!("[{}] {name}", $section));
        })*
    };
}

impl Config {
    /// Returns the names of the settings that differ in another configuration, except those that
    /// can be replaced while the server runs: most of `[tls]`, the rules and administrators, the
    /// limits of clients, and the log level.
    #[must_use]
    pub fn changed_settings(&self, other: &Self) -> Vec<String> {
        let mut names = Vec::new();
        compare!(
            names,
            "server",
            Server { address },
            &self.server,
            &other.server
        );
        // Those who are connected would have other names.
        if self.tls.client_id_from != other.tls.client_id_from {
            names.push("[tls] client_id_from".to_owned());
        }
        compare!(
            names,
            "logging",
            Logging {
                messages,
                info_file_path,
                debug_file_path,
                error_file_path,
                rotation,
                max_size_bytes as "max_size_mb",
                max_total_bytes as "max_total_mb",
                max_files
            } without { level },
            &self.logging,
            &other.logging
        );
        // One value follows from several fields.
        if self.database != other.database {
            names.push("[database]".to_owned());
        }
        let (old, new) = (&self.encryption, &other.encryption);
        compare!(names, "encryption", Encryption { algorithm, key as "aes_key", older_rows }, old, new);
        let limits = self.limits.changed(&other.limits);
        // The older name of a limit of clients.
        let limits = limits.filter(|name| *name != "max_connections_per_client");
        names.extend(limits.map(|name| format!("[limits] {name}")));
        names
    }
}
