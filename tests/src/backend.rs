//! The two databases: a test's body is written once and runs on both.

use std::path::Path;

use crate::server::Options;
use crate::{Postgres, Server};

/// What a test's servers store in.
pub enum Backend {
    /// A SQLite file in each server's own folder.
    Sqlite,
    /// A PostgreSQL of the test's own, with a new database for each server.
    Postgres(Box<Postgres>),
}

impl Backend {
    /// PostgreSQL, started.
    ///
    /// # Panics
    ///
    /// As [`Postgres::start`].
    pub async fn postgres() -> Self {
        Self::Postgres(Box::new(Postgres::start().await))
    }

    /// Options for a server with a new, empty database.
    ///
    /// # Panics
    ///
    /// If the database cannot be made.
    pub async fn options(&self) -> Options {
        match self {
            Self::Sqlite => Options::sqlite(),
            Self::Postgres(postgres) => {
                Options::postgres(postgres.url(&postgres.create_database().await))
            }
        }
    }

    /// A server with a new, empty database, and the program's defaults for all else.
    ///
    /// # Panics
    ///
    /// As [`Server::start`].
    pub async fn server(&self) -> Server {
        Server::start(self.options().await).await
    }

    /// PostgreSQL's own folder, if it is PostgreSQL; SQLite's file lies in the server's.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(postgres) => Some(postgres.folder()),
        }
    }

    /// Whether it is PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}

/// Makes two tests of each function `async fn(Backend)`: `sqlite::<name>` and `postgres::<name>`.
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
