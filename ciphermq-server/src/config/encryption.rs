//! `[encryption]`: how public keys are sealed in the database, and where the key for it is.

use std::path::{Path, PathBuf};

use super::{
    Error,
    file::{self, Setting},
    validate::Check,
};
use crate::at_rest::adopted::Notes;
pub use crate::at_rest::{Algorithm, KeySource};
use crate::at_rest::{AtRestKey, MAKE_KEY};
pub use crate::keys::OlderRows;

/// Where the key is kept when the configuration says nothing: made on the first start.
const DEFAULT_KEY_FILE: &str = "data/at-rest.key";

/// `[encryption]`
#[derive(Debug, Clone)]
pub struct Encryption {
    /// What new rows are sealed with. Rows say themselves what they were sealed with.
    pub algorithm: Algorithm,
    /// Where the key comes from; [`KeySource::load`] reads or makes it.
    pub key: KeySource,
    /// Whether rows that older servers have sealed are taken over.
    pub older_rows: OlderRows,
}

impl Encryption {
    /// Where it is noted that they were: beside the key's file, or where that is by default.
    #[must_use]
    pub fn notes(&self) -> Notes {
        match &self.key {
            KeySource::File { path, .. } => Notes::beside(path),
            KeySource::Given(_) => Notes::beside(Path::new(DEFAULT_KEY_FILE)),
        }
    }
}

/// Checks algorithm and key. A key file is not looked at yet.
pub(super) fn validate(section: file::Encryption, check: &Check<'_>) -> Result<Encryption, Error> {
    let file::Encryption {
        algorithm,
        aes_key,
        aes_key_file,
        older_rows,
    } = section;
    let algorithm = check.choice(
        ("encryption", "algorithm"),
        algorithm.as_ref(),
        Algorithm::default(),
        Algorithm::from_setting,
        "aes-256-gcm or chacha20-poly1305",
    )?;

    let older_rows = check.choice(
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

    // What a variable says overrides the file, though it says it by the other field.
    let variable_file = aes_key_file.as_ref().is_some_and(Setting::is_variable);
    let variable_key = aes_key.as_ref().is_some_and(Setting::is_variable);
    let key = match (aes_key, aes_key_file) {
        (Some(_), Some(file)) if variable_file == variable_key => {
            return Err(check.wrong(
                ("encryption", "aes_key_file"),
                Some(&file.place),
                "aes_key is there too",
                "Keep one of the two.",
            ));
        }
        (Some(key), file) if variable_key || file.is_none() => {
            let key = AtRestKey::from_base64(key.value.expose()).map_err(|error| {
                let advice = format!("Make one with `{MAKE_KEY}`, or remove aes_key.");
                check.wrong(
                    ("encryption", "aes_key"),
                    Some(&key.place),
                    error.to_string(),
                    advice,
                )
            })?;
            KeySource::Given(key)
        }
        (_, Some(file)) => {
            let path = PathBuf::from(check.text(("encryption", "aes_key_file"), &file)?);
            KeySource::File { path, make: false }
        }
        (_, None) => KeySource::File {
            path: PathBuf::from(DEFAULT_KEY_FILE),
            make: true,
        },
    };
    Ok(Encryption {
        algorithm,
        key,
        older_rows,
    })
}
