//! The two databases: a test's body is written once and runs on both of them.

use std::path::Path;

use crate::server::Options;
use crate::{Postgres, Server};

/// Database of a test's servers.
pub enum Backend {
    /// A SQLite file in each server's own folder.
    Sqlite,
    /// A PostgreSQL server for this test, with a new database for each CipherMQ server.
    Postgres(Box<Postgres>),
}

impl Backend {
    /// Starts PostgreSQL.
    ///
    /// # Panics
    ///
    /// See [`Postgres::start`].
    pub async fn postgres() -> Self {
        Self::Postgres(Box::new(Postgres::start().await))
    }

    /// Options for a server with a new, empty database.
    ///
    /// # Panics
    ///
    /// If the database cannot be created.
    pub async fn options(&self) -> Options {
        match self {
            Self::Sqlite => Options::sqlite(),
            Self::Postgres(postgres) => {
                Options::postgres(postgres.url(&postgres.create_database().await))
            }
        }
    }

    /// Starts a server with a new, empty database, and the program's defaults for everything else.
    ///
    /// # Panics
    ///
    /// See [`Server::start`].
    pub async fn server(&self) -> Server {
        Server::start(self.options().await).await
    }

    /// PostgreSQL's folder. `None` for SQLite, whose file is in the server's folder.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(postgres) => Some(postgres.folder()),
        }
    }

    /// Whether the database is PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

/// Defines two tests for each function `async fn(Backend)`: `sqlite::<name>` and
/// `postgres::<name>`.
#[macro_export]
macro_rules! on_both_databases {
    ($($body:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $body() {
                super::$body($crate::Backend::Sqlite).await;
            })+
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $body() {
                super::$body($crate::Backend::postgres().await).await;
            })+
        }
    };
}
