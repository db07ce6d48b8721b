//! Checks a database, or a backup.

use std::path::Path;

use super::manifest::{Kind, Manifest};
use super::report::{Line, count, waiting};
use super::{DATABASE, Error, folder};
use crate::config::{Config, Database};
use crate::store::offline::{Checked, Fault, check_postgres, check_sqlite};

/// Checks the configured database, or the backup in a folder. Passes each line on, and returns
/// whether there was no fault.
///
/// # Errors
///
/// [`Error`] if it cannot be read.
pub async fn verify(
    config: &Config,
    backup: Option<&Path>,
    print: &mut (dyn FnMut(Line) + Send),
) -> Result<bool, Error> {
    let mut faults = 0;
    let subject = match backup {
        None => config.database.to_string(),
        Some(folder) => format!("the backup {}", folder.display()),
    };
    let checked = {
        let mut report = |fault: &dyn std::fmt::Display| {
            faults += 1;
            print(Line(fault.to_string()));
        };
        match backup {
            None => Some(check_database(&config.database, &mut report).await?),
            Some(folder) => check_backup(folder, &mut report)?,
        }
    };
    if faults > 0 {
        print(Line(format!(
            "{subject} has {}",
            count(faults, "fault", "faults")
        )));
        return Ok(false);
    }
    print(Line(format!("{subject} has no fault")));
    if let Some(checked) = checked {
        print(Line(format!(
            "commit {}, schema {}, {}, {}",
            checked.contents.commit,
            checked.contents.schema,
            waiting(checked.contents.waiting),
            count(checked.batches, "batch", "batches"),
        )));
    }
    Ok(true)
}

/// Takes each fault.
type Report<'a> = &'a mut (dyn FnMut(&dyn std::fmt::Display) + Send);

async fn check_database(database: &Database, report: Report<'_>) -> Result<Checked, Error> {
    let mut report = |fault: Fault| report(&fault);
    Ok(match database {
        Database::Sqlite { path } => check_sqlite(path, &mut report)?,
        Database::Postgres(settings) => check_postgres(settings, &mut report).await?,
    })
}

/// Checks the files of a backup, then the database in it. That of PostgreSQL can only be read after
/// it was restored.
fn check_backup(path: &Path, report: Report<'_>) -> Result<Option<Checked>, Error> {
    let manifest = Manifest::read(path)?;
    let faults = folder::check(path, &manifest)?;
    for fault in &faults {
        report(fault);
    }
    if manifest.database == Kind::Postgres || !faults.is_empty() {
        return Ok(None);
    }
    let checked = check_sqlite(&path.join(DATABASE), &mut |fault: Fault| report(&fault))?;
    let expected = manifest.contents();
    if checked.contents != expected {
        report(&format!(
            "the manifest names commit {}, schema {} and {} waiting messages, and the database has \
             {}, {} and {}; use another backup",
            expected.commit,
            expected.schema,
            expected.waiting,
            checked.contents.commit,
            checked.contents.schema,
            checked.contents.waiting,
        ));
    }
    Ok(Some(checked))
}
