//! Sets sessions up, and takes the lock against a second server.

use std::io;
use std::time::Duration;

use sqlx::{PgConnection, Row as _};

use super::connect::SessionFactory;
use super::error::{code, error};
use crate::store::Error;

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
pub(super) async fn check(
    connection: &mut PgConnection,
    connector: &SessionFactory,
) -> Result<(), Error> {
    let place = connector.place();
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
    usable(connection, connector).await
}

/// Refuses a role that cannot write, or that does not find the tables.
async fn usable(connection: &mut PgConnection, connector: &SessionFactory) -> Result<(), Error> {
    let (place, user, database) = (connector.place(), connector.user(), connector.database());
    // Schemas that hold the server's tables, except the one where they would be created.
    let row = sqlx::query(
        "SELECT current_setting('default_transaction_read_only') = 'on', current_schema()::text, \
         current_setting('search_path'), \
         to_regclass(quote_ident(current_schema()) || '.server_state') IS NOT NULL, \
         (SELECT min(n.nspname::text) FROM pg_class c JOIN pg_namespace n ON n.oid = \
         c.relnamespace \
          WHERE c.relname = 'server_state' AND c.relkind = 'r' AND n.nspname::text IS DISTINCT \
         FROM current_schema()::text \
          AND EXISTS (SELECT 1 FROM pg_class b WHERE b.relnamespace = c.relnamespace AND b.relname \
         = 'batches'))",
    )
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
    if read_only {
        return Err(Error::Unusable(format!(
            "{place} is read-only for user \"{user}\" (default_transaction_read_only = on); ALTER \
             ROLE \"{user}\" SET \
             default_transaction_read_only = off, and look at the settings of the database and of \
             the server, too"
        )));
    }
    let set = |schema: &str| {
        format!("ALTER ROLE \"{user}\" IN DATABASE \"{database}\" SET search_path = \"{schema}\"")
    };
    let Some(schema) = schema else {
        return Err(Error::Unusable(format!(
            "user \"{user}\" has no schema in {place}: its search_path is '{search_path}', and \
             none of that is there or may be \
             used; {}, and GRANT USAGE, CREATE ON SCHEMA \"public\" TO \"{user}\"",
            set("public")
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
    Ok(())
}

/// Takes the lock. Waits a while for a lost session to release it.
pub(super) async fn lock(
    connection: &mut PgConnection,
    connector: &SessionFactory,
) -> Result<(), Error> {
    let taken: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut *connection)
        .await
        .map_err(error)?;
    if taken {
        return Ok(());
    }
    if let Some(holder) = holder(connection).await?
        && holder.application == connector.instance()
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
                Some(holder) if holder.application != connector.instance() => {
                    Err(Error::Unusable(format!(
                        "another server uses the {}: \"{}\" from {}, backend process {}; stop it, \
                         or choose another database \
                 in [database]",
                        connector.place(),
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
