//! The check that no argument of a command line is a key, for all programs that have options.
//!
//! A key that is typed where its file's name, a client's name or a server's address belongs would
//! be shown by errors, sent to a server, or become the name of a file.

use std::path::Path;

use ciphermq_crypto::text::{holds_key, name_holds_key};
use clap::{Arg, ArgMatches, Command};

/// An argument that is a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldKey {
    argument: String,
    is_path: bool,
}

impl HeldKey {
    /// Returns what is wrong, without the key.
    #[must_use]
    pub fn problem(&self) -> String {
        let instead = match self.is_path {
            true => "a key or certificate, not the path of one",
            false => "a key, which is not shown",
        };
        format!("{} on the command line holds {instead}", self.argument)
    }

    /// Returns what to do.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self.is_path {
            true => "Write it to a file that only you can read (chmod 600), and name that file.",
            false => {
                "Write the name or the value there. If it is a private key, and others can read \
                 this command in the shell's history, replace the key."
            }
        }
    }
}

/// Returns the first argument of a command, or of its subcommands, that is a key.
///
/// Existing files may have any name. `exempt` arguments may be anything, such as messages.
#[must_use]
pub fn held_key(command: &Command, matches: &ArgMatches, exempt: &[&str]) -> Option<HeldKey> {
    let mut arguments = command.get_arguments();
    let held = arguments.find_map(|argument| {
        let id = argument.get_id().as_str();
        if exempt.contains(&id) {
            return None;
        }
        let values = matches.try_get_raw(id).ok().flatten()?;
        let is_path = is_path(argument);
        let mut values = values.into_iter();
        let is_held = values.any(|value| match is_path {
            true => holds_key(value) && !Path::new(value).exists(),
            false => name_holds_key(value),
        });
        is_held.then(|| HeldKey {
            argument: name_of(argument),
            is_path,
        })
    });
    held.or_else(|| {
        let (name, matches) = matches.subcommand()?;
        held_key(command.find_subcommand(name)?, matches, exempt)
    })
}

/// Whether an argument is the path of a file or a folder.
fn is_path(argument: &Arg) -> bool {
    let names = argument.get_value_names().unwrap_or_default();
    names.iter().any(|name| name == "FILE" || name == "FOLDER")
}

fn name_of(argument: &Arg) -> String {
    match argument.get_long() {
        Some(name) => format!("--{name}"),
        None => argument.get_id().as_str().to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[derive(Debug, clap::Parser)]
    struct Args {
        #[arg(long, value_name = "FILE")]
        file: Option<std::path::PathBuf>,
        #[arg(long)]
        message: Option<String>,
        #[command(subcommand)]
        command: Sub,
    }

    #[derive(Debug, clap::Subcommand)]
    enum Sub {
        Get { client: Vec<String> },
    }

    const KEY: &str = "4IZCJdI0yQ8u4cnW1Ll3bMTRJRDE7j9eZFgHDuEnm2g=";
    const HEX: &str = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";

    fn held(line: &[&str]) -> Option<HeldKey> {
        let mut command = Args::command();
        command.build();
        let matches = command.clone().try_get_matches_from(line).unwrap();
        held_key(&command, &matches, &["message"])
    }

    #[test]
    fn keys_are_found_in_options_and_subcommands_and_not_in_messages() {
        for line in [
            &["p", "--file", KEY, "get", "x"][..],
            &["p", "--file", HEX, "get", "x"],
            &["p", "get", "x", KEY],
        ] {
            let found = held(line).unwrap();
            assert!(!found.problem().contains(KEY), "{found:?}");
        }
        for line in [
            &["p", "--message", KEY, "get", "x"][..],
            &["p", "--file", "certs/ca.crt", "get", HEX],
        ] {
            assert_eq!(held(line), None, "{line:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(HEX);
        std::fs::write(&path, "").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(held(&["p", "--file", path, "get", "x"]), None);
    }
}
