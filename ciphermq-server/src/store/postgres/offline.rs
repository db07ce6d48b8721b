//! Copies of the server's tables, and tables made from copies.

use std::io::Read as _;

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::connect::SessionFactory;
use super::endpoint::Endpoint;
use super::error::error;
use super::{MIGRATIONS, migration_error};
use crate::config;
use crate::store::offline::{
    Contents, Copied, Sequence, Table, TableSink, TableSource, WAITING, refuse_newer,
};
use crate::store::{Error, TABLES};

/// The number of bytes that are sent to a table at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// The settings of a session that reads for long: no time limits.
const PATIENT: &str = "SELECT COUNT(set_config(v.name, v.value, false)) FROM (VALUES \
     ('statement_timeout', '0'), ('lock_timeout', '0'), \
     ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'), \
     ('transaction_timeout', '0'), ('row_security', 'off'), ('tcp_keepalives_idle', '30'), \
     ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3')) AS v (name, value) \
     JOIN pg_settings s ON s.name = v.name";

/// Begins a transaction that sees one commit, whatever is written meanwhile.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

/// Returns the last version of the schema.
pub(in crate::store) fn last_schema() -> i64 {
    MIGRATIONS.iter().map(|one| one.version).max().unwrap_or(0)
}

/// A read transaction.
pub(super) struct Snapshot {
    pub(super) session: PgConnection,
    pub(super) schema: i64,
    pub(super) commit: i64,
}

impl Snapshot {
    /// Connects, and begins the transaction. It takes no lock that a server needs.
    pub(super) async fn open(settings: &config::Postgres) -> Result<Self, Error> {
        let endpoint = Endpoint::new(settings)?;
        let place = endpoint.place();
        let mut session = SessionFactory::new(endpoint).connect().await?;
        sqlx::query(PATIENT)
            .execute(&mut session)
            .await
            .map_err(error)?;
        sqlx::raw_sql(SNAPSHOT)
            .execute(&mut session)
            .await
            .map_err(error)?;
        let has_tables: bool = sqlx::query_scalar(
            "SELECT to_regclass('_sqlx_migrations') IS NOT NULL AND \
             to_regclass('server_state') IS NOT NULL",
        )
        .fetch_one(&mut session)
        .await
        .map_err(error)?;
        if !has_tables {
            return Err(Error::Unusable(format!(
                "{place} holds no tables of this server\nCheck [database], and the role's \
                 search_path."
            )));
        }
        let schema: i64 = sqlx::query_scalar(
            "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations WHERE success",
        )
        .fetch_one(&mut session)
        .await
        .map_err(error)?;
        refuse_newer(&place, schema, last_schema())?;
        let commit: Option<i64> = sqlx::query_scalar("SELECT commit_number FROM server_state")
            .fetch_optional(&mut session)
            .await
            .map_err(error)?;
        Ok(Self {
            session,
            schema,
            commit: commit.unwrap_or(-1),
        })
    }

    async fn contents(&mut self) -> Result<Contents, Error> {
        let waiting: i64 = sqlx::query_scalar(WAITING)
            .fetch_one(&mut self.session)
            .await
            .map_err(error)?;
        Ok(Contents {
            schema: self.schema,
            commit: self.commit,
            waiting,
        })
    }

    /// Returns the tables that this version of the schema has, with their columns.
    async fn tables(&mut self) -> Result<Vec<Table>, Error> {
        let rows = sqlx::query(
            "SELECT name, array_agg(a.attname::text ORDER BY a.attnum) \
             FROM unnest($1::text[]) WITH ORDINALITY AS t (name, at) \
             JOIN pg_attribute a ON a.attrelid = to_regclass(quote_ident(name)) \
             AND a.attnum > 0 AND NOT a.attisdropped GROUP BY name, at ORDER BY at",
        )
        .bind(TABLES)
        .fetch_all(&mut self.session)
        .await
        .map_err(error)?;
        rows.iter()
            .map(|row| {
                Ok(Table {
                    name: row.try_get(0).map_err(error)?,
                    columns: row.try_get(1).map_err(error)?,
                })
            })
            .collect()
    }

    /// Returns the sequences of identity columns. They may be further than the snapshot, never
    /// behind it: that leaves out numbers, and gives none twice.
    pub(super) async fn sequences(&mut self) -> Result<Vec<Sequence>, Error> {
        let columns: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT name, a.attname::text, pg_get_serial_sequence(quote_ident(name), a.attname) \
             FROM unnest($1::text[]) AS t (name) \
             JOIN pg_attribute a ON a.attrelid = to_regclass(quote_ident(name)) \
             WHERE a.attidentity <> '' ORDER BY name, a.attnum",
        )
        .bind(TABLES)
        .fetch_all(&mut self.session)
        .await
        .map_err(error)?;
        let mut sequences = Vec::new();
        for (table, column, sequence) in columns {
            // PostgreSQL has quoted the name.
            let text = format!("SELECT last_value, is_called FROM {sequence}");
            let (last, is_given) = sqlx::query_as(AssertSqlSafe(text))
                .fetch_one(&mut self.session)
                .await
                .map_err(error)?;
            sequences.push(Sequence {
                table,
                column,
                last,
                is_given,
            });
        }
        Ok(sequences)
    }

    pub(super) async fn close(self) {
        // It has changed nothing: however it ends, nothing is lost.
        let _ = self.session.close().await;
    }
}

/// Copies all tables from one snapshot.
pub(in crate::store) async fn copy<S: TableSink>(
    settings: &config::Postgres,
    sink: &mut S,
) -> Result<Copied, S::Error> {
    let mut snapshot = Snapshot::open(settings).await?;
    let contents = snapshot.contents().await?;
    let tables = snapshot.tables().await?;
    for table in &tables {
        let text = format!("COPY {} TO STDOUT (FORMAT binary)", target(table));
        sink.begin(&table.name)?;
        let mut pieces = snapshot.session.copy_out_raw(&text).await.map_err(error)?;
        while let Some(piece) = pieces.try_next().await.map_err(error)? {
            sink.write(&piece)?;
        }
        sink.end()?;
    }
    let sequences = snapshot.sequences().await?;
    snapshot.close().await;
    Ok(Copied {
        contents,
        tables,
        sequences,
    })
}

/// Makes and fills the tables in one transaction. A server finds all of them or none.
pub(in crate::store) async fn restore<S: TableSource>(
    settings: &config::Postgres,
    copied: &Copied,
    source: &mut S,
) -> Result<(), S::Error> {
    let endpoint = Endpoint::new(settings)?;
    // Checked as for a server, and with the lock that keeps servers out.
    let mut session = SessionFactory::new(endpoint.clone()).writing().await?;
    let mut transaction = session.begin().await.map_err(error)?;
    refuse_tables(&mut transaction, &endpoint).await?;
    MIGRATIONS
        .run_direct(Some(copied.contents.schema), &mut *transaction, false)
        .await
        .map_err(|failure| migration_error(&endpoint, failure))?;
    for table in &copied.tables {
        let empty = format!("DELETE FROM {}", quoted(&table.name));
        sqlx::raw_sql(AssertSqlSafe(empty))
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
        fill(&mut transaction, table, source).await?;
    }
    for sequence in &copied.sequences {
        sqlx::query("SELECT setval(pg_get_serial_sequence(quote_ident($1), $2), $3, $4)")
            .bind(&sequence.table)
            .bind(&sequence.column)
            .bind(sequence.last)
            .bind(sequence.is_given)
            .execute(&mut *transaction)
            .await
            .map_err(error)?;
    }
    let commit: i64 = sqlx::query_scalar("SELECT commit_number FROM server_state")
        .fetch_one(&mut *transaction)
        .await
        .map_err(error)?;
    if commit != copied.contents.commit {
        return Err(Error::Corrupt(format!(
            "the backup's tables are of commit {commit}, and its manifest names {}",
            copied.contents.commit
        ))
        .into());
    }
    transaction.commit().await.map_err(error)?;
    let _ = session.close().await;
    Ok(())
}

/// Refuses a database in which a server has made tables.
async fn refuse_tables(session: &mut PgConnection, endpoint: &Endpoint) -> Result<(), Error> {
    let names = [TABLES, &["_sqlx_migrations", "message_metadata"]].concat();
    let found: Option<String> = sqlx::query_scalar(
        "SELECT name FROM unnest($1::text[]) name WHERE \
         to_regclass(quote_ident(current_schema()) || '.' || quote_ident(name)) IS NOT NULL LIMIT 1",
    )
    .bind(names)
    .fetch_optional(session)
    .await
    .map_err(error)?;
    found.map_or(Ok(()), |table| {
        Err(Error::Unusable(format!(
            "{} holds the table {table} of a server already, and a backup is not restored over \
             it\nMake an empty database (createdb -O {} NAME) and name it in [database]. The old \
             one can be dropped when nobody needs it any more.",
            endpoint.place(),
            endpoint.user(),
        )))
    })
}

async fn fill<S: TableSource>(
    session: &mut PgConnection,
    table: &Table,
    source: &mut S,
) -> Result<(), S::Error> {
    let mut file = source.open(&table.name)?;
    let text = format!("COPY {} FROM STDIN (FORMAT binary)", target(table));
    let mut copy = session.copy_in_raw(&text).await.map_err(error)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => {
                let read = piece.get(..length).unwrap_or_default();
                copy.send(read).await.map_err(error)?;
            }
            Err(failure) => {
                // The transaction is given up in any case.
                let _ = copy.abort("the backup cannot be read").await;
                return Err(failure.into());
            }
        }
    }
    copy.finish().await.map_err(error)?;
    Ok(())
}

/// Returns a table with its columns, for a statement.
fn target(table: &Table) -> String {
    let columns: Vec<String> = table.columns.iter().map(|name| quoted(name)).collect();
    format!("{} ({})", quoted(&table.name), columns.join(", "))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
