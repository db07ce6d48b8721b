//! Makes a backup of a database, of a running server or a stopped one.

use std::path::Path;

use super::folder::{NewFolder, Part};
use super::manifest::{Kind, Manifest};
use super::report::{Line, count, waiting};
use super::{DATABASE, Error, TABLE_END};
use crate::config::{Config, Database, KeySource};
use crate::model::Time;
use crate::store::offline::{Contents, TableSink, copy_postgres, copy_sqlite};

/// Makes a backup in a new folder, and returns what to print.
///
/// # Errors
///
/// [`Error`], with what to do about it. The folder holds no backup then.
pub async fn create(config: &Config, folder: &Path) -> Result<Vec<Line>, Error> {
    let time = Time::now();
    let mut files = NewFolder::create(folder)?;
    let (kind, contents, sequences) = match &config.database {
        Database::Sqlite { path } => {
            let contents = sqlite(path, config.limits.disk_reserve, &mut files)?;
            (Kind::Sqlite, contents, Vec::new())
        }
        Database::Postgres(settings) => {
            let mut tables = Tables {
                files: &mut files,
                open: None,
            };
            let copied = copy_postgres(settings, &mut tables).await?;
            for (entry, table) in files.entries().iter_mut().zip(&copied.tables) {
                entry.columns.clone_from(&table.columns);
            }
            (Kind::Postgres, copied.contents, copied.sequences)
        }
    };
    let entries = files.entries().clone();
    let manifest = Manifest::new(kind, time, contents, entries, sequences);
    let (number, bytes) = (manifest.files.len(), manifest.bytes());
    files.complete(manifest)?;
    let shown = folder.display();
    let mut lines = vec![
        Line(format!("backed up {} to {shown}", config.database)),
        Line(format!(
            "commit {}, schema {}, {}, {}, {}",
            contents.commit,
            contents.schema,
            waiting(contents.waiting),
            count(number as u64, "file", "files"),
            count(bytes, "byte", "bytes"),
        )),
    ];
    lines.push(Line(match &config.encryption.key {
        KeySource::File { path, .. } => format!(
            "The key that seals the public keys is not in it: keep a copy of {} in another place.",
            path.display()
        ),
        KeySource::Inline(_) => "The key that seals the public keys is not in it: keep a copy of \
                                 [encryption] aes_key in another place."
            .to_owned(),
    }));
    Ok(lines)
}

fn sqlite(database: &Path, disk_reserve: u64, files: &mut NewFolder) -> Result<Contents, Error> {
    let contents = copy_sqlite(database, &files.part(DATABASE), disk_reserve)?;
    files.place(DATABASE)?;
    Ok(contents)
}

/// Writes each table into a file of its own.
struct Tables<'a> {
    files: &'a mut NewFolder,
    open: Option<Part>,
}

impl TableSink for Tables<'_> {
    type Error = Error;

    fn begin(&mut self, table: &str) -> Result<(), Error> {
        self.open = Some(self.files.begin(&format!("{table}{TABLE_END}"))?);
        Ok(())
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.open.as_mut().map_or(Ok(()), |part| part.write(piece))
    }

    fn end(&mut self) -> Result<(), Error> {
        self.open.take().map_or(Ok(()), |part| self.files.end(part))
    }
}
