//! The manifest of a backup, `backup.json`: what the backup holds, and the hash of every file.
//!
//! It is written last, so that a folder without it is no backup, or one that was interrupted.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use ciphermq_files::{Access, Existing, FileError, write};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Error;
use crate::model::Time;
use crate::store::offline::{Contents, Copied, Sequence, Table};

/// The manifest's name.
pub(super) const NAME: &str = "backup.json";

/// The version of the format of backups.
const FORMAT: u32 = 1;

/// The size limit of a manifest, so that another file of this name is not read at length.
const MAX_BYTES: u64 = 1 << 20;

/// The kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// A file of SQLite.
    Sqlite,
    /// A database of PostgreSQL.
    Postgres,
}

impl Kind {
    /// Returns the name for people.
    #[must_use]
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The name in the backup's folder.
    pub(super) name: String,
    /// The size.
    pub(super) bytes: u64,
    /// The hash, in hexadecimal digits.
    pub(super) sha256: String,
    /// The columns of a table, in the order of the file; not for a file of SQLite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) columns: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Position {
    table: String,
    column: String,
    last: i64,
    is_given: bool,
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    /// The program that has made it.
    pub(super) program: String,
    /// The kind of its database.
    pub(super) database: Kind,
    schema: i64,
    commit: i64,
    waiting: i64,
    /// When it was begun, RFC 3339 in UTC.
    pub(super) time: String,
    /// Its files.
    pub(super) files: Vec<File>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sequences: Vec<Position>,
    /// The hash of this text with nothing in this place.
    sha256: String,
}

/// The part of every format that says which format it is.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Manifest {
    /// Describes a backup that was begun at `time`.
    pub(super) fn new(
        database: Kind,
        time: Time,
        contents: Contents,
        files: Vec<File>,
        sequences: Vec<Sequence>,
    ) -> Self {
        Self {
            format: FORMAT,
            program: format!("ciphermq-server {}", env!("CARGO_PKG_VERSION")),
            database,
            schema: contents.schema,
            commit: contents.commit,
            waiting: contents.waiting,
            time: time.to_string(),
            files,
            sequences: sequences
                .into_iter()
                .map(|sequence| Position {
                    table: sequence.table,
                    column: sequence.column,
                    last: sequence.last,
                    is_given: sequence.is_given,
                })
                .collect(),
            sha256: String::new(),
        }
    }

    /// Writes it, as the last file of a backup.
    ///
    /// # Errors
    ///
    /// The file system's error, with its path.
    pub(super) fn write(mut self, folder: &Path) -> Result<(), Error> {
        self.sha256 = hash(&self)?;
        let text = text(&self)?;
        write(
            folder.join(NAME),
            text.as_bytes(),
            Access::Private,
            Existing::Keep,
        )
        .map_err(|error| match error {
            FileError::Io { path, source } => Error::Write { path, source },
            FileError::Exists(_) => Error::Refused(format!("{error}\nName another folder.")),
        })
    }

    /// Reads the manifest of a backup, and checks that it has not changed.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if there is none, it is of a later format, or it was changed.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let text = read(folder)?;
        let shown = folder.display();
        let changed = |what: &dyn std::fmt::Display| {
            Error::Refused(format!(
                "the manifest {NAME} of the backup {shown} was changed or is damaged: {what}\nUse \
                 another backup."
            ))
        };
        let Version { format } = serde_json::from_str(&text).map_err(|error| changed(&error))?;
        if format > FORMAT {
            return Err(Error::Refused(format!(
                "the backup {shown} has the format {format}, and this program knows \
                 {FORMAT}\nUse the ciphermq-server of the version that has made it, or a later one."
            )));
        }
        let manifest: Self = serde_json::from_str(&text).map_err(|error| changed(&error))?;
        if self::text(&manifest)? != text || hash(&manifest)? != manifest.sha256 {
            return Err(changed(&"its hash is another one"));
        }
        for file in &manifest.files {
            // So that no path leads out of the folder.
            if !is_plain(&file.name) {
                return Err(changed(&"a file has no plain name"));
            }
        }
        Ok(manifest)
    }

    /// Returns the database's state.
    #[must_use]
    pub(super) fn contents(&self) -> Contents {
        Contents {
            schema: self.schema,
            commit: self.commit,
            waiting: self.waiting,
        }
    }

    /// Returns the number of bytes of all files.
    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Returns the tables of a PostgreSQL database, without the ends of their files' names.
    pub(super) fn copied(&self, end: &str) -> Copied {
        let tables = self.files.iter().map(|file| Table {
            name: file.name.trim_end_matches(end).to_owned(),
            columns: file.columns.clone(),
        });
        let sequences = self.sequences.iter().map(|sequence| Sequence {
            table: sequence.table.clone(),
            column: sequence.column.clone(),
            last: sequence.last,
            is_given: sequence.is_given,
        });
        Copied {
            contents: self.contents(),
            tables: tables.collect(),
            sequences: sequences.collect(),
        }
    }
}

/// Reads the manifest's text.
fn read(folder: &Path) -> Result<String, Error> {
    let shown = folder.display();
    if !folder.is_dir() {
        return Err(Error::Refused(format!(
            "there is no folder {shown}\nName the folder of a backup."
        )));
    }
    let path = folder.join(NAME);
    let mut text = String::new();
    let read =
        fs::File::open(&path).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::Refused(format!(
            "{shown} has no {NAME}: it is no backup, or one that was interrupted\nUse another \
             backup. To make one, run `ciphermq-server backup` with a new folder."
        ))),
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Err(Error::Refused(format!(
                "the manifest {NAME} of the backup {shown} was changed or is damaged\nUse another \
                 backup."
            )))
        }
        Err(source) => Err(Error::Read { path, source }),
    }
}

fn text(manifest: &Manifest) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(manifest).map_err(std::io::Error::from);
    let text = text.map_err(|source| Error::Write {
        path: NAME.into(),
        source,
    })?;
    Ok(text + "\n")
}

fn hash(manifest: &Manifest) -> Result<String, Error> {
    let bare = Manifest {
        sha256: String::new(),
        ..manifest.clone()
    };
    Ok(hex::encode(Sha256::digest(text(&bare)?)))
}

/// Whether this is the name of a file in the folder.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0']) && name != NAME
}

#[cfg(test)]
mod tests;
