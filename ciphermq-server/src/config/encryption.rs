//! The section `[encryption]`: the encryption of public keys in the database, and its key.

use std::path::{Path, PathBuf};

use super::{Error, file, setting::Setting, validator::Validator};
use crate::at_rest::adopted::AdoptionRecord;
pub use crate::at_rest::{Algorithm, KeySource, OlderRows};
use crate::at_rest::{AtRestKey, MAKE_KEY};

/// The key file if the configuration names no key; the first start creates it.
const DEFAULT_KEY_FILE: &str = "data/at-rest.key";

/// The section `[encryption]`.
#[derive(Debug, Clone)]
pub struct Encryption {
    /// The algorithm for new rows. Existing rows name the algorithm that they were sealed with.
    pub algorithm: Algorithm,
    /// The source of the key; [`KeySource::load`] reads or creates it.
    pub key: KeySource,
    /// Whether rows that older servers sealed are adopted.
    pub older_rows: OlderRows,
}

impl Encryption {
    /// Returns the record of adopted rows, beside the key file.
    ///
    /// For a key in the configuration itself, it is beside the default key file.
    #[must_use]
    pub fn adoption_record(&self) -> AdoptionRecord {
        match &self.key {
            KeySource::File { path, .. } => AdoptionRecord::beside(path),
            KeySource::Inline(_) => AdoptionRecord::beside(Path::new(DEFAULT_KEY_FILE)),
        }
    }
}

/// Validates the section without opening a key file.
///
/// # Errors
///
/// [`Error::Setting`] for an unknown word, an invalid key, or a key that is set twice.
pub(super) fn validate(
    section: file::Encryption,
    validator: &Validator<'_>,
) -> Result<Encryption, Error> {
    let file::Encryption {
        algorithm,
        aes_key,
        aes_key_file,
        older_rows,
    } = section;
    let algorithm = validator.choice(
        ("encryption", "algorithm"),
        algorithm.as_ref(),
        Algorithm::default(),
        Algorithm::from_setting,
        "aes-256-gcm or chacha20-poly1305",
    )?;

    let older_rows = validator.choice(
        ("encryption", "older_rows"),
        older_rows.as_ref(),
        OlderRows::default(),
        |text| {
            Some(match text {
                "once" => OlderRows::Once,
                "refuse" => OlderRows::Refuse,
                "accept" => OlderRows::Accept,
                _ => return None,
            })
        },
        "once, refuse or accept",
    )?;

    // A variable of either field overrides both fields of the file.
    let variable_file = aes_key_file.as_ref().is_some_and(Setting::is_variable);
    let variable_key = aes_key.as_ref().is_some_and(Setting::is_variable);
    let key = match (aes_key, aes_key_file) {
        (Some(_), Some(file)) if variable_file == variable_key => {
            return Err(validator.invalid(
                ("encryption", "aes_key_file"),
                Some(&file.location),
                "aes_key is set as well",
                "Keep one of the two.",
            ));
        }
        (Some(key), file) if variable_key || file.is_none() => {
            let key = AtRestKey::from_base64(key.value.expose()).map_err(|error| {
                let advice = format!("Create one with `{MAKE_KEY}`, or remove aes_key.");
                validator.invalid(
                    ("encryption", "aes_key"),
                    Some(&key.location),
                    error.to_string(),
                    advice,
                )
            })?;
            KeySource::Inline(key)
        }
        (_, Some(file)) => {
            let path = validator.path(("encryption", "aes_key_file"), Some(&file), "")?;
            KeySource::File {
                path,
                create_if_missing: false,
            }
        }
        (_, None) => KeySource::File {
            path: PathBuf::from(DEFAULT_KEY_FILE),
            create_if_missing: true,
        },
    };
    Ok(Encryption {
        algorithm,
        key,
        older_rows,
    })
}
