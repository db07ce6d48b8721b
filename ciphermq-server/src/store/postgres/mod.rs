//! The store on a PostgreSQL server.
//!
//! - `endpoint`: the database to connect to, and its names in messages
//! - `connect`: connections to the server, and explanations of their failures
//! - `pem_files`: the certificates and the key for TLS to the server
//! - `session`: the setup of a session, and the lock against a second server
//! - `sql`: the statements that every message goes through
//! - `committer`: one transaction; `write` for its messages, `change` and `topology` for its rare
//!   parts
//! - `removal`: what remains to be done for deleted and purged queues
//! - `reader`: reads that bypass the committer; `list` for queues, exchanges and bindings; `pool`,
//!   the connections for it
//! - `offline`, `check`: copies, restored copies and checks, for commands beside the server
//! - `error`: the meaning of PostgreSQL's error codes
//!
//! The committer's session holds an advisory lock. If the session ends, so does its transaction,
//! and only then can the lock be taken by another session, of this server or of another one.

mod blocks;
mod change;
pub(super) mod check;
mod committer;
mod connect;
mod endpoint;
mod error;
mod list;
pub(super) mod offline;
mod pem_files;
mod pool;
mod reader;
mod removal;
mod session;
mod sql;
mod topology;
mod unresolved;
mod write;

use std::sync::Arc;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection as _, PgConnection};

use super::{Error, Store, TABLES, lacks_table};
use crate::config;
use committer::PostgresCommitter;
use connect::SessionFactory;
use endpoint::Endpoint;
use reader::PostgresReader;

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/postgres/migrations");

pub(super) async fn open(settings: &config::Postgres) -> Result<Store, Error> {
    let endpoint = Endpoint::new(settings)?;
    let connector = SessionFactory::new(endpoint.clone());
    let mut session = connector.writing().await?;
    if let Err(error) = migrate(&endpoint, &mut session).await {
        let _ = session.close().await;
        return Err(error);
    }
    let reader = PostgresReader::open(&connector);
    let committer = PostgresCommitter::new(connector, session).await?;
    Ok(Store {
        committer: Box::new(committer),
        reader: Arc::new(reader),
    })
}

async fn migrate(endpoint: &Endpoint, session: &mut PgConnection) -> Result<(), Error> {
    // The lock that keeps other servers out keeps their migrations out too.
    MIGRATIONS
        .run_direct(None, &mut *session, false)
        .await
        .map_err(|error| migration_error(endpoint, error))?;
    let missing: Option<String> = sqlx::query_scalar(
        "SELECT name FROM unnest($1::text[]) name WHERE to_regclass(quote_ident(name)) IS NULL \
         LIMIT 1",
    )
    .bind(TABLES)
    .fetch_optional(session)
    .await
    .map_err(error::error)?;
    missing.map_or(Ok(()), |table| Err(lacks_table(endpoint.place(), &table)))
}

/// Explains a failed migration.
fn migration_error(endpoint: &Endpoint, error: MigrateError) -> Error {
    let (place, user, database) = (endpoint.place(), endpoint.user(), endpoint.database());
    match error {
        MigrateError::VersionMissing(version) => Error::Unusable(format!(
            "{place} was made by a newer version of the server (schema {version}); run that \
             version, or choose another database in [database]"
        )),
        MigrateError::VersionMismatch(version) => Error::Unusable(format!(
            "{place} was made by an unreleased version of the server (schema {version} differs); \
             choose another database in [database]"
        )),
        MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
            match error::code(&source).as_deref() {
                // Insufficient privilege; and the names that a schema may already have.
                Some("42501") => Error::Unusable(format!(
                    "user \"{user}\" may not make tables in {place}: {}; make it the database's \
                     owner (ALTER DATABASE \"{database}\" OWNER TO \"{user}\"), or GRANT USAGE, \
                     CREATE on its schema to it; tables that are there already must be its own",
                    error::server_message(&source)
                )),
                Some("42P07" | "42710" | "42703" | "42804") => Error::Unusable(format!(
                    "{place} holds tables of another program: {}; give the server a database of \
                     its own, by [database]",
                    error::server_message(&source)
                )),
                _ => error::error(source),
            }
        }
        other => Error::Unavailable(other.into()),
    }
}
