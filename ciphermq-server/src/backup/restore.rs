//! Restores a backup into a place without a database, as a whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ciphermq_files::{beside, resolve, sync_parent};

use super::manifest::{Kind, Manifest};
use super::report::{Line, waiting};
use super::{DATABASE, Error, TABLE_END, folder, kind};
use crate::config::{Config, Database, KeySource};
use crate::store::offline::{RESTORED_PART, TableSource, lock_sqlite, restore_postgres, schema};

/// Restores the backup in a folder, and returns what to print.
///
/// # Errors
///
/// [`Error`], with what to do about it. There is no database then that a server would start with.
pub async fn restore(config: &Config, from: &Path) -> Result<Vec<Line>, Error> {
    let manifest = Manifest::read(from)?;
    refuse_unfit(config, from, &manifest)?;
    if let Some(fault) = folder::check(from, &manifest)?.into_iter().next() {
        return Err(Error::Refused(fault.replacen("; use", "\nUse", 1) + "."));
    }
    match &config.database {
        Database::Sqlite { path } => sqlite(path, from, &manifest)?,
        Database::Postgres(settings) => {
            let mut tables = Tables { folder: from };
            restore_postgres(settings, &manifest.copied(TABLE_END), &mut tables).await?;
        }
    }
    let contents = manifest.contents();
    let mut lines = vec![
        Line(format!(
            "restored {} from {}",
            config.database,
            from.display()
        )),
        Line(format!(
            "commit {}, schema {}, {}; the backup is of {}",
            contents.commit,
            contents.schema,
            waiting(contents.waiting),
            manifest.time,
        )),
    ];
    if let KeySource::File { path, .. } = &config.encryption.key
        && !path.exists()
    {
        lines.push(Line(format!(
            "The key that seals the public keys, {}, is missing: put its copy there before you \
             start the server. Without it receivers have to register their keys again.",
            path.display()
        )));
    }
    Ok(lines)
}

/// Refuses a backup that does not fit the configured database, or this program.
fn refuse_unfit(config: &Config, from: &Path, manifest: &Manifest) -> Result<(), Error> {
    let (shown, of) = (from.display(), manifest.database);
    if of != kind(&config.database) {
        return Err(Error::Refused(format!(
            "the backup {shown} is of {}, and [database] is {}\nName a database of the same kind \
             in [database], or use another backup.",
            of.name(),
            kind(&config.database).name(),
        )));
    }
    let (known, found) = (schema(of == Kind::Postgres), manifest.contents().schema);
    if found > known {
        return Err(Error::Refused(format!(
            "the backup {shown} has schema {found}, and this program knows {known}\nUse the \
             ciphermq-server of the version that has made it ({}), or a later one.",
            manifest.program
        )));
    }
    Ok(())
}

/// Restores a database file: under a temporary name first.
fn sqlite(path: &Path, from: &Path, manifest: &Manifest) -> Result<(), Error> {
    let path = resolve(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    refuse_existing(&path)?;
    let _lock = lock_sqlite(&path)?;
    // Again, with the lock: a server may have started and ended in between.
    refuse_existing(&path)?;
    let mut parts = Parts(Vec::new());
    for entry in &manifest.files {
        if entry.name != DATABASE {
            return Err(Error::Refused(format!(
                "the backup {} has the file {}, which this program does not know\nUse the \
                 ciphermq-server of the version that has made it ({}), or a later one.",
                from.display(),
                entry.name,
                manifest.program
            )));
        }
        let target = path.clone();
        let part = beside(&target, RESTORED_PART);
        // Of a restore that was interrupted.
        let _ = fs::remove_file(&part);
        parts.0.push((part.clone(), target));
        folder::take(from, entry, &part)?;
    }
    while let Some((part, target)) = parts.0.first().cloned() {
        fs::rename(&part, &target)
            .and_then(|()| sync_parent(&target))
            .map_err(|source| Error::Write {
                path: target,
                source,
            })?;
        parts.0.remove(0);
    }
    Ok(())
}

/// Refuses a place where a database is, or where an older one has left its log: SQLite would take
/// that for the restored one's.
fn refuse_existing(path: &Path) -> Result<(), Error> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(Error::Refused(format!(
            "there is a database {} already, and a backup is not restored over it\nStop the server, \
             and move that file away with those beside it ({}-wal, -shm), or name another file in \
             [database] url.",
            path.display(),
            path.display()
        )));
    }
    for left in ["-wal", "-journal"].map(|end| beside(path, end)) {
        // A reader of a database without a log leaves an empty one.
        if fs::symlink_metadata(&left).is_ok_and(|found| found.len() > 0) {
            return Err(Error::Refused(format!(
                "{} is left of a database that is gone, and does not belong to the backup\nMove it \
                 away, or name another file in [database] url.",
                left.display()
            )));
        }
    }
    Ok(())
}

/// Files under temporary names, with those to come. They are removed with the value.
struct Parts(Vec<(PathBuf, PathBuf)>);

impl Drop for Parts {
    fn drop(&mut self) {
        for (part, _) in &self.0 {
            // Best effort: no server reads them, and the next restore removes them.
            let _ = fs::remove_file(part);
        }
    }
}

/// Reads each table from its file.
struct Tables<'a> {
    folder: &'a Path,
}

impl TableSource for Tables<'_> {
    type Error = Error;

    fn open(&mut self, table: &str) -> Result<Box<dyn Read + Send>, Error> {
        let path = self.folder.join(format!("{table}{TABLE_END}"));
        let opened: io::Result<File> = File::open(&path);
        match opened {
            Ok(file) => Ok(Box::new(file)),
            Err(source) => Err(Error::Read { path, source }),
        }
    }
}
