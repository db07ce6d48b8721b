//! A PostgreSQL server for one test: a new cluster with its own folder, port and password, removed
//! when the value is dropped.
//!
//! It syncs its commits, because the server under test refuses a PostgreSQL with `fsync = off`, and
//! because everything committed must be there after a kill.

mod orphans;
mod programs;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::RngExt as _;
use rand::distr::Alphanumeric;
use rustix::process::Signal;
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::process::Command;

use crate::PATIENCE;
use crate::files;
use crate::pki::Authority;
use crate::ports;
use crate::process::Process;
use crate::user::{self, User};

/// Name of the superuser of every cluster.
pub const USER: &str = "ciphermq";

/// A PostgreSQL server on 127.0.0.1, which can be stopped, killed and started again.
pub struct Postgres {
    process: Option<Process>,
    programs: PathBuf,
    user: Option<User>,
    port: u16,
    password: String,
    settings: Vec<String>,
    tls: bool,
    databases: AtomicUsize,
    /// Declared last, so that it is removed after the process has ended.
    folder: TempDir,
}

/// Options of a cluster.
#[derive(Debug, Default, Clone)]
pub struct Options {
    /// Requires TLS. The certificate is for `localhost` and 127.0.0.1, and is issued by the CA at
    /// [`Postgres::ca`].
    pub tls: bool,
    /// Additional settings in the format of `postgres -c`: `max_connections=5`.
    pub settings: Vec<String>,
}

/// Shutdown mode of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Waits for clients to disconnect.
    Smart,
    /// Terminates the sessions of clients, and shuts down cleanly.
    Fast,
    /// Aborts all processes, so that the next start recovers.
    Immediate,
}

impl Postgres {
    /// Creates and starts a cluster that is reached by plain TCP with a password.
    ///
    /// # Panics
    ///
    /// If PostgreSQL is not installed, or does not start.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// Creates and starts a cluster with these options.
    ///
    /// # Panics
    ///
    /// See [`start`](Self::start).
    pub async fn start_with(options: Options) -> Self {
        let user = User::unprivileged();
        let folder = user::folder(user.as_ref());
        let password = rand::rng()
            .sample_iter(Alphanumeric)
            .take(20)
            .map(char::from)
            .collect();
        let mut postgres = Self {
            process: None,
            programs: programs::folder(),
            user,
            port: 0,
            password,
            settings: options.settings,
            tls: options.tls,
            databases: AtomicUsize::new(0),
            folder,
        };
        postgres.initdb().await;
        if postgres.tls {
            postgres.certify();
        }
        let mut tries = 0;
        while let Err(log) = {
            postgres.port = ports::free();
            postgres.launch().await
        } {
            tries += 1;
            assert!(
                tries < 10 && log.contains("Address already in use"),
                "PostgreSQL does not start:\n{log}"
            );
        }
        postgres
    }

    /// The folder of the cluster, with everything that it has stored.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The port that the server listens on, the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The password of [`USER`], which consists of letters and digits.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The URL of a database of this cluster.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://{USER}:{}@127.0.0.1:{}/{database}",
            self.password, self.port
        )
    }

    /// Path of the certificate of the CA, if the cluster uses TLS.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Creates an empty database, and returns its name.
    ///
    /// # Panics
    ///
    /// If it cannot be created.
    pub async fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut connection = sqlx::PgConnection::connect(&self.url("postgres"))
            .await
            .expect("a running PostgreSQL accepts connections");
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .unwrap_or_else(|error| panic!("database {name} cannot be created: {error}"));
        connection.close().await.expect("the connection closes");
        name
    }

    /// Stops the server, and waits for it to end. It keeps its data and its port.
    ///
    /// # Panics
    ///
    /// If it is not running, or does not stop.
    pub async fn stop(&mut self, how: Stop) -> ExitStatus {
        let mut process = self.process.take().expect("PostgreSQL runs");
        process.signal(how.signal());
        process.ended(PATIENCE).await
    }

    /// Sends SIGKILL to all processes of the server, as if the machine failed, and waits for them
    /// to end.
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub async fn kill(&mut self) {
        let mut process = self.process.take().expect("PostgreSQL runs");
        // Left alone, the children would end a little later, and PostgreSQL refuses to start until
        // then.
        let children = orphans::children(process.pid().expect("PostgreSQL runs"));
        process.kill().await;
        for child in children {
            child.kill();
        }
    }

    /// Sends a signal, such as SIGSTOP or SIGCONT, to all processes of the server.
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub fn signal_all(&self, signal: Signal) {
        let process = self.process();
        process.signal(signal);
        for child in orphans::children(process.pid().expect("PostgreSQL runs")) {
            child.signal(signal);
        }
    }

    /// Starts the server again, on the same port with the same data, after a [`stop`](Self::stop)
    /// or a [`kill`](Self::kill). Stops it first if it runs.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub async fn restart(&mut self) {
        if self.process.is_some() {
            self.stop(Stop::Fast).await;
        }
        if let Err(log) = self.launch().await {
            panic!("PostgreSQL does not start again:\n{log}");
        }
    }

    /// The main process of the running server.
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("PostgreSQL runs")
    }

    async fn initdb(&self) {
        let password_file = self.write("password", &self.password);
        let mut command = self.command("initdb");
        command
            .args([
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
                "--auth=scram-sha-256",
                "--username",
                USER,
            ])
            .arg("--pwfile")
            .arg(&password_file)
            .arg("--pgdata")
            .arg(self.data());
        let mut initdb = Process::spawn("initdb", command);
        let status = initdb.ended(PATIENCE).await;
        assert!(
            status.success(),
            "initdb failed ({status}):\n{}{}",
            initdb.stdout.text(),
            initdb.stderr.text()
        );
    }

    fn certify(&self) {
        let authority = Authority::new("PostgreSQL test CA");
        let server = authority.server(&["localhost", "127.0.0.1"]);
        self.write("ca.crt", &authority.certificate_pem());
        self.write("server.crt", &server.certificate_pem());
        self.write("server.key", &server.key_pem());
        let hba = format!("hostssl all {USER} 127.0.0.1/32 scram-sha-256\n");
        std::fs::write(self.data().join("pg_hba.conf"), hba)
            .expect("the cluster's pg_hba.conf can be written");
    }

    /// Starts the server, and waits until it accepts connections. The error is its log.
    async fn launch(&mut self) -> Result<(), String> {
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(self.data())
            .arg("-p")
            .arg(self.port.to_string());
        let mut settings: Vec<String> = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "log_min_messages=warning",
            "shared_buffers=16MB",
            "max_wal_size=256MB",
            // In the data folder, so that a killed server leaves no shared memory behind.
            "dynamic_shared_memory_type=mmap",
        ]
        .map(str::to_owned)
        .into();
        if self.tls {
            let file = |name: &str| self.folder.path().join(name).display().to_string();
            settings.extend([
                "ssl=on".to_owned(),
                format!("ssl_cert_file={}", file("server.crt")),
                format!("ssl_key_file={}", file("server.key")),
            ]);
        }
        settings.extend(self.settings.iter().cloned());
        for setting in settings {
            command.arg("-c").arg(setting);
        }
        let mut process = Process::spawn("postgres", command);
        let ready = |line: &str| {
            line.contains("database system is ready to accept connections")
                .then_some(())
        };
        if process.stderr.find(0, PATIENCE, ready).await.is_some() {
            self.process = Some(process);
            return Ok(());
        }
        process.kill().await;
        Err(process.stderr.text())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        // Not in the checkout, which the other user may be unable to access. In English, because
        // the tests parse the messages.
        command
            .current_dir(self.folder.path())
            .env("LC_ALL", "C")
            .env("TZ", "UTC");
        if let Some(user) = &self.user {
            user.run(&mut command);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Writes a file that only the server's user can read.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        files::create(&path, text, 0o600);
        if let Some(user) = &self.user {
            user.make_owner_of(&path);
        }
        path
    }
}

impl Stop {
    fn signal(self) -> Signal {
        match self {
            Self::Smart => Signal::TERM,
            Self::Fast => Signal::INT,
            Self::Immediate => Signal::QUIT,
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        match self.process.take() {
            // SIGKILL would leave its children and its shared memory behind.
            Some(process) if process.pid().is_some() => {
                process.signal(Signal::QUIT);
                process.ended_blocking(std::time::Duration::from_secs(10));
            }
            _ => orphans::remove_shared_memory(&self.data()),
        }
    }
}
