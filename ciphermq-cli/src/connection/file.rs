//! The client's configuration file.

use std::io;
use std::path::{Path, PathBuf};

use ciphermq_client::text::{command_line_error, shown};
use ciphermq_files::advice;
use serde::Deserialize;

use super::options::RETRIES;
use crate::exit::Failure;

const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The client's configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) server: Option<String>,
    #[serde(alias = "server_name")]
    pub(super) server_name: Option<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) pins: Option<PathBuf>,
    #[serde(alias = "client_id_from")]
    pub(super) client_id_from: Option<Fields>,
    #[serde(alias = "signing_cert")]
    pub(super) signing_cert: Option<PathBuf>,
    #[serde(alias = "signing_key")]
    pub(super) signing_key: Option<PathBuf>,
    #[serde(alias = "signed_key_lifetime")]
    pub(super) signed_key_lifetime: Option<String>,
    #[serde(alias = "private_key")]
    pub(super) private_key: Option<OneOrMore>,
    #[serde(alias = "connect_timeout")]
    pub(super) connect_timeout: Option<f64>,
    pub(super) retries: Option<u32>,
    #[serde(alias = "retry_timeout")]
    pub(super) retry_timeout: Option<f64>,
    #[serde(alias = "require_crl_newer_than")]
    pub(super) require_crl_newer_than: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a path, or a list of paths, in double quotes"
)]
pub(super) enum OneOrMore {
    One(PathBuf),
    More(Vec<PathBuf>),
}

/// Fields of certificates: one, a list of them, or a text with commas.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a field, or a list of fields, in double quotes"
)]
pub(super) enum Fields {
    One(String),
    More(Vec<String>),
}

impl Fields {
    /// Returns the texts, separated by commas.
    pub(super) fn joined(&self) -> String {
        match self {
            Self::One(text) => text.clone(),
            Self::More(texts) => texts.join(","),
        }
    }
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let unreadable = |error: &io::Error| {
            if error.kind() == io::ErrorKind::IsADirectory {
                return Failure::usage(
                    format!("The configuration file {} is a folder.", shown(path)),
                    "Name the file in it.",
                );
            }
            Failure::usage(
                format!(
                    "The configuration file {} cannot be read: {error}.",
                    shown(path)
                ),
                advice(error).unwrap_or("Check its path and that it is a readable text file."),
            )
        };
        let file = std::fs::File::open(path).map_err(|error| unreadable(&error))?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_CONFIG_BYTES), &mut text)
            .map_err(|error| unreadable(&error))?;
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| {
                text.bytes()
                    .take(span.start)
                    .filter(|&byte| byte == b'\n')
                    .count()
                    + 1
            });
            Failure::usage(
                format!(
                    "The configuration file {}, line {line}: {}.",
                    shown(path),
                    in_plain_words(error.message())
                ),
                "It may have the connection options of `ciphermq-cli`, named like the flags: server, \
                 server-name, ca, cert, key, client-id-from, signing-cert, signing-key, \
                 signed-key-lifetime, pins, private-key, connect-timeout, retries, retry-timeout, \
                 require-crl-newer-than.",
            )
        })
    }
}

/// Puts an error of the TOML parser, which is written for programmers, in plain words. It leaves
/// the value out, which may be secret.
fn in_plain_words(message: &str) -> String {
    let is_of_value = message.starts_with("invalid type") || message.starts_with("invalid value");
    let expected = message.strip_prefix("expected ").or_else(|| {
        message
            .rsplit_once(", expected ")
            .map(|(_, expected)| expected)
    });
    match expected {
        Some(expected) if is_of_value || message.starts_with("expected ") => {
            let expected = match expected {
                "u32" => RETRIES,
                "f64" => "a number of seconds",
                "path string" => "a path in double quotes",
                "a string" => "text in double quotes",
                other => other,
            };
            format!("the value must be {expected}")
        }
        _ => command_line_error(message),
    }
}
