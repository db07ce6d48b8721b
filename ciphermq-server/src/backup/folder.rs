//! The folder of a backup: files that are written under temporary names, and checked by their
//! hashes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use ciphermq_files::{Access, create_folder, create_new, sync_folder, sync_found_name};
use sha2::{Digest as _, Sha256};

use super::manifest::{self, Manifest};
use super::{Error, manifest::File as Entry};

/// The end of the name of a file that is not complete.
const PART: &str = ".part";

/// The number of bytes that are read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// A folder for a new backup. Its files are removed with the value, unless the backup was
/// completed.
pub(super) struct NewFolder {
    path: PathBuf,
    entries: Vec<Entry>,
    is_new: bool,
    is_complete: bool,
}

impl NewFolder {
    /// Creates the folder, or takes an empty one.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if it is not empty; the file system's error.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let shown = path.display();
        let mut is_new = false;
        let made = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        match fs::read_dir(path) {
            Ok(mut found) => {
                if found.next().is_some() {
                    let what = match path.join(manifest::NAME).exists() {
                        true => "holds a backup",
                        false if is_interrupted(path) => "holds a backup that was interrupted",
                        false => "is not empty",
                    };
                    return Err(Error::Refused(format!(
                        "the folder {shown} {what}\nName a folder that does not exist, or remove \
                         that one."
                    )));
                }
                // Whoever has made it may not have synced its name.
                sync_found_name(path).map_err(made)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_folder(path, Access::Private).map_err(made)?;
                is_new = true;
            }
            Err(source) => {
                return Err(Error::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        }
        // Says of a folder without a manifest why it has none, and keeps another backup out of it.
        let mark = path.join(format!("{}{PART}", manifest::NAME));
        match create_new(&mark, Access::Private) {
            Ok(_) => Ok(Self {
                path: path.to_owned(),
                entries: Vec::new(),
                is_new,
                is_complete: false,
            }),
            Err(source) => Err(Error::Write { path: mark, source }),
        }
    }

    /// Returns the path of a file until it is complete.
    pub(super) fn part(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{PART}"))
    }

    /// Syncs a part that was written completely, hashes it, and gives it its name.
    ///
    /// # Errors
    ///
    /// The file system's error, with its path.
    pub(super) fn place(&mut self, name: &str) -> Result<(), Error> {
        let part = self.part(name);
        let failed = |source| Error::Write {
            path: part.clone(),
            source,
        };
        let file = File::open(&part).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        let (bytes, sha256) = hash(file).map_err(failed)?;
        self.named(name, bytes, sha256, Vec::new())
    }

    /// Begins a file of which each piece is hashed as it is written.
    ///
    /// # Errors
    ///
    /// The file system's error, with its path.
    pub(super) fn begin(&self, name: &str) -> Result<Part, Error> {
        let path = self.part(name);
        match create_new(&path, Access::Private) {
            Ok(file) => Ok(Part {
                name: name.to_owned(),
                path,
                file: BufWriter::with_capacity(PIECE_BYTES, file),
                hash: Sha256::new(),
                bytes: 0,
            }),
            Err(source) => Err(Error::Write { path, source }),
        }
    }

    /// Syncs a file that was begun, and gives it its name.
    ///
    /// # Errors
    ///
    /// The file system's error, with its path.
    pub(super) fn end(&mut self, part: Part) -> Result<(), Error> {
        let Part {
            name,
            path,
            file,
            hash,
            bytes,
        } = part;
        let failed = |source| Error::Write {
            path: path.clone(),
            source,
        };
        let file = file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        self.named(&name, bytes, hex::encode(hash.finalize()), Vec::new())
    }

    fn named(
        &mut self,
        name: &str,
        bytes: u64,
        sha256: String,
        columns: Vec<String>,
    ) -> Result<(), Error> {
        let path = self.path.join(name);
        fs::rename(self.part(name), &path).map_err(|source| Error::Write { path, source })?;
        self.entries.push(Entry {
            name: name.to_owned(),
            bytes,
            sha256,
            columns,
        });
        Ok(())
    }

    /// Returns the files so far, to add what else is known of them.
    pub(super) fn entries(&mut self) -> &mut Vec<Entry> {
        &mut self.entries
    }

    /// Completes the backup: the names of the files are made durable, then the manifest is written.
    ///
    /// # Errors
    ///
    /// The file system's error, with its path.
    pub(super) fn complete(mut self, manifest: Manifest) -> Result<(), Error> {
        sync_folder(&self.path).map_err(|source| Error::Write {
            path: self.path.clone(),
            source,
        })?;
        manifest.write(&self.path)?;
        self.is_complete = true;
        // It does no harm beside a manifest.
        let _ = fs::remove_file(self.part(manifest::NAME));
        Ok(())
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if self.is_complete {
            return;
        }
        // Best effort: without a manifest it is recognised as incomplete in any case.
        for entry in &self.entries {
            let _ = fs::remove_file(self.path.join(&entry.name));
        }
        for file in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().ends_with(PART) {
                let _ = fs::remove_file(file.path());
            }
        }
        if self.is_new {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// A file that is being written.
pub(super) struct Part {
    name: String,
    path: PathBuf,
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Part {
    /// Writes the next piece.
    ///
    /// # Errors
    ///
    /// The file system's error, with its path.
    pub(super) fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.hash.update(piece);
        self.bytes += piece.len() as u64;
        self.file.write_all(piece).map_err(|source| Error::Write {
            path: self.path.clone(),
            source,
        })
    }
}

/// Checks the files of a backup by their sizes and hashes, and returns what is wrong with each.
///
/// # Errors
///
/// The file system's error, with its path.
pub(super) fn check(folder: &Path, manifest: &Manifest) -> Result<Vec<String>, Error> {
    let mut faults = Vec::new();
    for entry in &manifest.files {
        let path = folder.join(&entry.name);
        let shown = path.display();
        let found = File::open(&path).and_then(hash);
        match found {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                faults.push(format!("the file {shown} is missing; use another backup"));
            }
            Err(source) => return Err(Error::Read { path, source }),
            Ok((bytes, _)) if bytes != entry.bytes => faults.push(format!(
                "the file {shown} has {bytes} bytes instead of {}; use another backup",
                entry.bytes
            )),
            Ok((_, sha256)) if sha256 != entry.sha256 => faults.push(format!(
                "the file {shown} has changed since the backup was made; use another backup"
            )),
            Ok(_) => {}
        }
    }
    Ok(faults)
}

/// Copies a file of a backup to a new file, synced, and checks again what is copied.
///
/// # Errors
///
/// The file system's error, with its path; [`Error::Refused`] if the file has changed.
pub(super) fn take(folder: &Path, entry: &Entry, to: &Path) -> Result<(), Error> {
    let from = folder.join(&entry.name);
    let mut source = File::open(&from).map_err(|source| Error::Read {
        path: from.clone(),
        source,
    })?;
    let failed = |source| Error::Write {
        path: to.to_owned(),
        source,
    };
    let mut target = create_new(to, Access::Private).map_err(failed)?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        let length = source.read(&mut piece).map_err(|source| Error::Read {
            path: from.clone(),
            source,
        })?;
        let read = piece.get(..length).unwrap_or_default();
        if read.is_empty() {
            break;
        }
        hash.update(read);
        target.write_all(read).map_err(failed)?;
    }
    if hex::encode(hash.finalize()) != entry.sha256 {
        return Err(Error::Refused(format!(
            "the file {} has changed since the backup was made\nUse another backup.",
            from.display()
        )));
    }
    target.sync_all().map_err(failed)
}

/// Reads a file to its end. Returns its size and its hash.
fn hash(mut file: impl Read) -> io::Result<(u64, String)> {
    let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; PIECE_BYTES]);
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok((bytes, hex::encode(hash.finalize())));
        }
        hash.update(piece.get(..length).unwrap_or_default());
        bytes += length as u64;
    }
}

/// Whether a backup was begun in a folder without a manifest.
fn is_interrupted(folder: &Path) -> bool {
    folder.join(format!("{}{PART}", manifest::NAME)).exists()
}

#[cfg(test)]
mod tests;
