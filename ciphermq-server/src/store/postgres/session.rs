//! Sets sessions up, and takes the lock against a second server.

use std::fmt;
use std::io;
use std::time::Duration;

use sqlx::{PgConnection, Row as _};

use super::endpoint::Endpoint;
use super::error::{code, error};
use crate::store::{Error, TABLES};

/// The advisory lock's number: "CipherMQ". Its scope is the database.
const LOCK: i64 = 0x4369_7068_6572_4d51;

/// How long to wait for a lost session to end and release the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// The time limit of an answer from PostgreSQL. A connection that is silent for longer is given up:
/// the machine at its other end may have vanished.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 10 } else { 60 });

/// The oldest PostgreSQL that is supported, as in `server_version_num`.
const OLDEST: i32 = 130_000;

/// Waits for an answer, but no longer than [`ANSWER_TIMEOUT`].
pub(super) async fn answer<T>(
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(ANSWER_TIMEOUT, work).await {
        Ok(answered) => answered,
        Err(silent) => Err(sqlx::Error::Io(io::Error::new(
            io::ErrorKind::TimedOut,
            silent,
        ))),
    }
}

/// Sets what the server relies on, whatever the database's own configuration is. Settings that this
/// PostgreSQL does not know are left out.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // - A commit returns when it is on disk (with a synchronous standby: on its disk too).
    // - Every statement finds its rows by index. The planner would sometimes rather scan whole
    //   tables: its statistics of tables that fill and empty within minutes are always old.
    // - A session whose client has gone ends soon, and with it its locks.
    sqlx::query(
        "SELECT COUNT(set_config(v.name, v.value, false)) FROM (VALUES \
         ('synchronous_commit', 'on'), \
         ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), \
         ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off'), \
         ('statement_timeout', '0'), ('lock_timeout', '0'), \
         ('idle_in_transaction_session_timeout', '0'), \
         ('idle_session_timeout', '0'), ('transaction_timeout', '0'), \
         ('tcp_keepalives_idle', '30'), ('tcp_keepalives_interval', '10'), \
         ('tcp_keepalives_count', '3')) AS v (name, value) \
         JOIN pg_settings s ON s.name = v.name \
         WHERE NOT (v.name = 'synchronous_commit' AND s.setting = 'remote_apply')",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Refuses a PostgreSQL that cannot keep a commit's promise.
pub(super) async fn check(connection: &mut PgConnection, endpoint: &Endpoint) -> Result<(), Error> {
    let place = endpoint.place();
    let row = sqlx::query(
        "SELECT current_setting('server_version_num')::int4, current_setting('server_version'), \
         current_setting('fsync'), pg_is_in_recovery(), current_setting('server_encoding')",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(error)?;
    let number: i32 = row.try_get(0).map_err(error)?;
    let version: String = row.try_get(1).map_err(error)?;
    let fsync: String = row.try_get(2).map_err(error)?;
    let standby: bool = row.try_get(3).map_err(error)?;
    let encoding: String = row.try_get(4).map_err(error)?;
    if number < OLDEST {
        return Err(Error::Unusable(format!(
            "{place} is PostgreSQL {version}, which is too old; 13 or newer is needed"
        )));
    }
    if fsync != "on" {
        return Err(Error::Unusable(format!(
            "{place} runs with fsync = {fsync} and would lose acknowledged messages when the power \
             fails; set fsync = \
             on in its postgresql.conf and reload it"
        )));
    }
    if encoding != "UTF8" {
        return Err(Error::Unusable(format!(
            "{place} has the encoding {encoding} and cannot hold every name; make another one with \
             ENCODING 'UTF8' \
             TEMPLATE template0"
        )));
    }
    if standby {
        return Err(Error::Unusable(format!(
            "{place} is a standby and cannot be written to; name the primary in [database], or \
             promote this one"
        )));
    }
    usable(connection, endpoint).await
}

/// Refuses a role that cannot write, or that does not find the tables.
async fn usable(connection: &mut PgConnection, endpoint: &Endpoint) -> Result<(), Error> {
    let (place, user, database) = (endpoint.place(), endpoint.user(), endpoint.database());
    // Schemas that hold the server's tables, except the one where they would be created; and of
    // that one the tables that the role may not use.
    let row = sqlx::query(
        "SELECT current_setting('default_transaction_read_only') = 'on', current_schema()::text, \
         current_setting('search_path'), \
         to_regclass(quote_ident(current_schema()) || '.server_state') IS NOT NULL, \
         (SELECT min(n.nspname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = \
         c.relnamespace \
          WHERE c.relname = 'server_state' AND c.relkind = 'r' AND n.nspname::text IS DISTINCT \
         FROM current_schema()::text \
          AND EXISTS (SELECT 1 FROM pg_class b WHERE b.relnamespace = c.relnamespace AND b.relname \
         = 'batches')), \
         (SELECT source FROM pg_settings WHERE name = 'default_transaction_read_only'), \
         (SELECT source FROM pg_settings WHERE name = 'search_path'), \
         (SELECT string_agg(c.relname::text, ', ' ORDER BY c.relname) FROM pg_class c JOIN \
         pg_namespace n ON n.oid = c.relnamespace \
          WHERE n.nspname = current_schema() AND c.relname = ANY ($1) AND c.relkind = 'r' \
          AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') \
          AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')))",
    )
    .bind([TABLES, &["_sqlx_migrations"]].concat())
    .fetch_one(connection)
    .await
    .map_err(error)?;
    let read_only: bool = row.try_get(0).map_err(error)?;
    let schema: Option<String> = row.try_get(1).map_err(error)?;
    let search_path: String = row.try_get(2).map_err(error)?;
    let has_tables: bool = row
        .try_get::<Option<bool>, _>(3)
        .map_err(error)?
        .unwrap_or(false);
    let elsewhere: Option<String> = row.try_get(4).map_err(error)?;
    let read_only_source: Option<String> = row.try_get(5).map_err(error)?;
    let path_source: Option<String> = row.try_get(6).map_err(error)?;
    let closed: Option<String> = row.try_get(7).map_err(error)?;
    if read_only {
        let source = Source::parse(read_only_source.as_deref());
        let advice = source.advice("default_transaction_read_only", "off", user, database);
        return Err(Error::Unusable(format!(
            "{place} is read-only for user \"{user}\" (default_transaction_read_only = on, \
             {source}); {advice}"
        )));
    }
    // Nothing but a statement for this role in this database goes before all that may be said
    // elsewhere; but for what the client says.
    let set = |schema: &str| match Source::parse(path_source.as_deref()) {
        source @ (Source::Client | Source::Session) => {
            source.advice("search_path", schema, user, database)
        }
        _ => Source::UserInDatabase.advice("search_path", &format!("\"{schema}\""), user, database),
    };
    // In PostgreSQL's own schemas nobody makes tables.
    let schema =
        schema.filter(|schema| !schema.starts_with("pg_") && schema != "information_schema");
    let Some(schema) = schema else {
        let schema = elsewhere.as_deref().unwrap_or("public");
        return Err(Error::Unusable(format!(
            "user \"{user}\" has no schema in {place}: its search_path is '{search_path}', and \
             none of that is there, may be used, and may hold its tables; {}, and GRANT USAGE, \
             CREATE ON SCHEMA \"{schema}\" TO \"{user}\"",
            set(schema)
        )));
    };
    if let Some(elsewhere) = elsewhere.filter(|_| !has_tables) {
        return Err(Error::Unusable(format!(
            "the server's tables are in the schema \"{elsewhere}\" of {place}, and the \
             search_path of user \"{user}\", \
             '{search_path}', leads to \"{schema}\"; {}, or choose another database in [database]",
            set(&elsewhere)
        )));
    }
    if let Some(closed) = closed {
        return Err(Error::Unusable(format!(
            "user \"{user}\" may not use all tables in {place} ({closed}); GRANT SELECT, INSERT, \
             UPDATE, DELETE ON ALL TABLES IN SCHEMA \"{schema}\" TO \"{user}\", or make it their \
             owner"
        )));
    }
    Ok(())
}

/// The source of a session's setting, as in `pg_settings.source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The server's files, command line and environment, or its default.
    Server,
    /// `ALTER ROLE ALL`.
    AllRoles,
    /// `ALTER DATABASE`.
    Database,
    /// `ALTER ROLE`.
    User,
    /// `ALTER ROLE ... IN DATABASE`.
    UserInDatabase,
    /// A setting that this client, or a pooler, sent when it connected.
    Client,
    /// A statement of this session, which only a pooler sends.
    Session,
}

impl Source {
    fn parse(source: Option<&str>) -> Self {
        match source {
            Some("global") => Self::AllRoles,
            Some("database") => Self::Database,
            Some("user") => Self::User,
            Some("database user") => Self::UserInDatabase,
            Some("client") => Self::Client,
            Some("session" | "interactive") => Self::Session,
            _ => Self::Server,
        }
    }

    /// Returns what to do to set this value where the present one comes from.
    fn advice(self, setting: &str, value: &str, user: &str, database: &str) -> String {
        match self {
            Self::Database => format!("ALTER DATABASE \"{database}\" SET {setting} = {value}"),
            Self::User => format!("ALTER ROLE \"{user}\" SET {setting} = {value}"),
            Self::Server | Self::AllRoles | Self::UserInDatabase => {
                format!("ALTER ROLE \"{user}\" IN DATABASE \"{database}\" SET {setting} = {value}")
            }
            Self::Client => format!(
                "take {setting} out of `options` in [database] url, out of PGOPTIONS in the \
                 server's environment, and out of what a pooler between sends"
            ),
            Self::Session => format!("take {setting} out of the pooler's connect_query"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "by PostgreSQL's configuration",
            Self::AllRoles => "set for all roles",
            Self::Database => "set for the database",
            Self::User => "set for the role",
            Self::UserInDatabase => "set for the role in this database",
            Self::Client => "sent with the connection",
            Self::Session => "set in the session",
        })
    }
}

/// Takes the lock. Waits a while for a lost session to release it.
pub(super) async fn lock(connection: &mut PgConnection, endpoint: &Endpoint) -> Result<(), Error> {
    let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut *connection)
        .await
        .map_err(error)?;
    if taken {
        return Ok(());
    }
    if let Some(holder) = holder(connection).await?
        && holder.application == endpoint.instance()
    {
        // This process has given that session up. Whatever it was doing is committed or rolled back
        // when it has ended.
        sqlx::query("SELECT pg_terminate_backend($1)")
            .bind(holder.process)
            .execute(&mut *connection)
            .await
            .map_err(error)?;
    }
    lock_timeout(connection, LOCK_PATIENCE).await?;
    let waited = sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(&mut *connection)
        .await;
    match waited {
        Ok(_) => lock_timeout(connection, Duration::ZERO).await,
        // Lock not available.
        Err(failure) if code(&failure).as_deref() == Some("55P03") => {
            match holder(connection).await? {
                Some(holder) if holder.application != endpoint.instance() => {
                    Err(Error::Unusable(format!(
                        "another server uses the {}: \"{}\" from {}, backend process {}; stop it, \
                         or choose another database \
                 in [database]",
                        endpoint.place(),
                        holder.application,
                        holder.address.as_deref().unwrap_or("a local socket"),
                        holder.process,
                    )))
                }
                _ => Err(Error::Unavailable(
                    "the session that was lost has not ended yet".into(),
                )),
            }
        }
        Err(failure) => Err(error(failure)),
    }
}

async fn lock_timeout(connection: &mut PgConnection, timeout: Duration) -> Result<(), Error> {
    sqlx::query("SELECT set_config('lock_timeout', $1, false)")
        .bind(format!("{}ms", timeout.as_millis()))
        .execute(connection)
        .await
        .map_err(error)?;
    Ok(())
}

/// The session that holds the lock.
struct Holder {
    process: i32,
    application: String,
    address: Option<String>,
}

async fn holder(connection: &mut PgConnection) -> Result<Option<Holder>, Error> {
    let found: Option<(i32, Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT l.pid, a.application_name, host(a.client_addr) FROM pg_locks l \
         LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
         AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND l.classid::int8 = $1 >> 32 AND l.objid::int8 = $1 & 4294967295 LIMIT 1",
    )
    .bind(LOCK)
    .fetch_optional(connection)
    .await
    .map_err(error)?;
    Ok(found.map(|(process, application, address)| Holder {
        process,
        application: application.unwrap_or_default(),
        address,
    }))
}
