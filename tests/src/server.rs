//! Runs `ciphermq-server`, the real program, in a temporary folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use crate::binaries::binary;
use crate::pki::Pki;
use crate::process::{Output, Process};
use crate::{Database, PATIENCE, files, ports};

/// Database of a server.
#[derive(Debug, Clone, Default)]
pub enum Store {
    /// A SQLite file in the server's own folder.
    #[default]
    Sqlite,
    /// The SQLite file at this path, for example of another server.
    SqliteFile(PathBuf),
    /// The PostgreSQL database with this URL; see [`Postgres::url`](crate::Postgres::url).
    Postgres(String),
}

/// Configuration of a server. The default is SQLite, a free port that stays the same over restarts,
/// a new CA, and the program's defaults for everything else.
#[derive(Default, Clone)]
pub struct Options {
    /// The database.
    pub store: Store,
    /// The certificates, or `None` for a new [`Pki`].
    pub pki: Option<Arc<Pki>>,
    /// Environment variables in addition to those of the test.
    pub environment: Vec<(String, String)>,
    settings: toml::Table,
    left_out: Vec<(String, String)>,
    ephemeral_port: bool,
    wrapper: Vec<String>,
    program: Option<PathBuf>,
}

impl Options {
    /// Creates options for SQLite in the server's own folder.
    pub fn sqlite() -> Self {
        Self::default()
    }

    /// Creates options for the PostgreSQL database with this URL.
    pub fn postgres(url: impl Into<String>) -> Self {
        Self {
            store: Store::Postgres(url.into()),
            ..Self::default()
        }
    }

    /// Sets a field of the configuration: `set("limits", "redelivery_timeout", "1s")`. It overrides
    /// earlier values and those that the harness writes itself.
    #[must_use]
    pub fn set(mut self, section: &str, field: &str, value: impl Into<toml::Value>) -> Self {
        table(&mut self.settings, section).insert(field.to_owned(), value.into());
        self
    }

    /// Omits a field that the harness would write: `without("database", "url")`.
    #[must_use]
    pub fn without(mut self, section: &str, field: &str) -> Self {
        self.left_out.push((section.to_owned(), field.to_owned()));
        self
    }

    /// Sets the certificates.
    #[must_use]
    pub fn pki(mut self, pki: Arc<Pki>) -> Self {
        self.pki = Some(pki);
        self
    }

    /// Prepends a wrapper command, such as `strace`, to the program's own command line.
    #[must_use]
    pub fn under(mut self, wrapper: Vec<String>) -> Self {
        self.wrapper = wrapper;
        self
    }

    /// Runs another program than the built one, for comparisons.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Lets the system choose the port (`127.0.0.1:0`), which may then change with a restart.
    #[must_use]
    pub fn ephemeral_port(mut self) -> Self {
        self.ephemeral_port = true;
        self
    }

    /// The text of the configuration file.
    fn config(&self, folder: &Path, pki: &Pki, port: u16) -> String {
        let mut config = toml::Table::new();
        let mut set = |section: &str, field: &str, value: String| {
            table(&mut config, section).insert(field.to_owned(), value.into());
        };
        set("server", "address", format!("127.0.0.1:{port}"));
        set("server", "connection_type", "tls".to_owned());
        let text = |path: PathBuf| path.display().to_string();
        set("tls", "cert_path", text(pki.folder().join("server.crt")));
        set("tls", "key_path", text(pki.folder().join("server.key")));
        set("tls", "ca_cert_path", text(pki.ca()));
        for level in ["info", "debug", "error"] {
            set(
                "logging",
                &format!("{level}_file_path"),
                text(folder.join(format!("logs/server_{level}.log"))),
            );
        }
        set("logging", "level", "info".to_owned());
        set("database", "url", self.database_url(folder));
        for (section, fields) in &self.settings {
            for (field, value) in fields.as_table().into_iter().flatten() {
                table(&mut config, section).insert(field.clone(), value.clone());
            }
        }
        for (section, field) in &self.left_out {
            table(&mut config, section).remove(field);
        }
        config.to_string()
    }

    /// Whether the log level hides the line that reports that the server listens.
    fn is_quiet(&self) -> bool {
        let level = self
            .settings
            .get("logging")
            .and_then(|logging| logging.get("level")?.as_str());
        matches!(level, Some("warn" | "error" | "off"))
    }

    fn database_url(&self, folder: &Path) -> String {
        match &self.store {
            Store::Sqlite => format!("sqlite://{}", folder.join("data/ciphermq.db").display()),
            Store::SqliteFile(path) => format!("sqlite://{}", path.display()),
            Store::Postgres(url) => url.clone(),
        }
    }
}

fn table<'a>(config: &'a mut toml::Table, section: &str) -> &'a mut toml::Table {
    config
        .entry(section)
        .or_insert_with(|| toml::Table::new().into())
        .as_table_mut()
        .expect("every section of the configuration is a table")
}

/// A server that listens, or that has been stopped and can be started again.
pub struct Server {
    process: Option<Process>,
    address: SocketAddr,
    options: Options,
    pki: Arc<Pki>,
    folder: TempDir,
}

/// Exit status and output of a server that has ended by itself.
#[derive(Debug)]
pub struct ServerExit {
    /// The exit status.
    pub status: ExitStatus,
    /// Everything written to stderr.
    pub stderr: String,
}

impl ServerExit {
    /// Checks that the server has reported an error that contains these texts, and returns it.
    ///
    /// # Panics
    ///
    /// If the exit code is not 1, or a text is missing.
    #[track_caller]
    pub fn expect_error(&self, texts: &[&str]) -> &str {
        assert_eq!(self.status.code(), Some(1), "{self:?}");
        let at = self.stderr.find("error: ");
        let at = at.unwrap_or_else(|| panic!("no error is reported:\n{}", self.stderr));
        let error = &self.stderr[at..];
        for text in texts {
            assert!(error.contains(text), "{text:?} is not in:\n{}", self.stderr);
        }
        error
    }
}

impl Server {
    /// Starts a server and waits until it listens.
    ///
    /// # Panics
    ///
    /// If the program has not been built, or the server ends instead of listening.
    pub async fn start(options: Options) -> Self {
        for _ in 0..10 {
            match Self::try_start(options.clone()).await {
                Ok(server) => return server,
                // Another process took the free port in the meantime.
                Err(refusal) if refusal.stderr.contains("in use") => {}
                Err(refusal) => panic!(
                    "the server ended with {}:\n{}",
                    refusal.status, refusal.stderr
                ),
            }
        }
        panic!("ten free ports in a row were taken by other processes before the server listened");
    }

    /// Starts a server that is expected to end instead of listening.
    ///
    /// # Panics
    ///
    /// If the program has not been built, or the server listens.
    pub async fn refused(options: Options) -> ServerExit {
        match Self::try_start(options).await {
            Ok(server) => panic!(
                "the server listens on {}, and should have refused to",
                server.address
            ),
            Err(refusal) => refusal,
        }
    }

    async fn try_start(options: Options) -> Result<Self, ServerExit> {
        let mut server = Self::prepare(options);
        server.launch().await?;
        Ok(server)
    }

    /// Creates a server without starting it.
    ///
    /// # Panics
    ///
    /// If its folder cannot be created.
    pub fn prepare(options: Options) -> Self {
        let folder = files::folder("server");
        let pki = options.pki.clone().unwrap_or_else(|| Arc::new(Pki::new()));
        let port = if options.ephemeral_port {
            0
        } else {
            ports::free()
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            process: None,
            address,
            options,
            pki,
            folder,
        }
    }

    /// Starts the server, for the first time or again, on the same port with the same data.
    ///
    /// # Errors
    ///
    /// If it ends instead of listening.
    ///
    /// # Panics
    ///
    /// If it neither listens nor ends.
    pub async fn launch(&mut self) -> Result<(), ServerExit> {
        let port = if self.options.ephemeral_port {
            0
        } else {
            self.address.port()
        };
        self.launch_on_port(port).await
    }

    async fn launch_on_port(&mut self, port: u16) -> Result<(), ServerExit> {
        let config = self.folder.path().join("config.toml");
        std::fs::write(
            &config,
            self.options.config(self.folder.path(), &self.pki, port),
        )
        .unwrap_or_else(|error| panic!("{}: {error}", config.display()));
        let other = self.options.program.clone();
        let program = other.unwrap_or_else(|| binary("ciphermq-server"));
        let mut command = match self.options.wrapper.split_first() {
            None => Command::new(program),
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(program);
                command
            }
        };
        command
            .arg("--config")
            .arg(&config)
            .current_dir(self.folder.path());
        command.envs(
            self.options
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        );
        let mut process = Process::spawn("ciphermq-server", command);
        let listening = async {
            if self.options.is_quiet() {
                accepts(SocketAddr::new(self.address.ip(), port), &process.stderr).await
            } else {
                process.stderr.find(0, PATIENCE, listening_address).await
            }
        };
        match listening.await {
            Some(address) => {
                self.address = address;
                self.process = Some(process);
                Ok(())
            }
            // If its output has ended, so will the process; otherwise it hangs.
            None if process.stderr.is_complete() => {
                let status = process.ended(PATIENCE).await;
                Err(ServerExit {
                    status,
                    stderr: process.stderr.text(),
                })
            }
            None => panic!(
                "the server neither listens nor ends:\n{}",
                process.stderr.text()
            ),
        }
    }

    /// The address that the server listens on, the same after a restart.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificates of the server and its clients.
    pub fn pki(&self) -> &Arc<Pki> {
        &self.pki
    }

    /// The server's working directory, which contains `config.toml`, `data/` and `logs/`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The console output since the last start.
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub fn console(&self) -> &Output {
        &self.process().stderr
    }

    /// The lines of the log file of a level (`info`, `debug` or `error`), parsed as JSON.
    ///
    /// # Panics
    ///
    /// If the file cannot be read, or a line is not JSON.
    pub fn log(&self, level: &str) -> Vec<serde_json::Value> {
        let path = self.folder.path().join(format!("logs/server_{level}.log"));
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in: {line}"))
        };
        text.lines().map(parse).collect()
    }

    /// The URL of the server's database.
    pub fn database_url(&self) -> String {
        self.options.database_url(self.folder.path())
    }

    /// Opens a separate connection to the server's database.
    pub async fn database(&self) -> Database {
        Database::connect(&self.database_url()).await
    }

    /// The process of the running server.
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the server runs")
    }

    /// Resident memory, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.process().rss_bytes()
    }

    /// Sends SIGKILL, and waits for the server to end.
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub async fn kill9(&mut self) {
        self.process.take().expect("the server runs").kill().await;
    }

    /// Sends SIGTERM, and waits for the server to end with exit code 0. Returns its console output.
    ///
    /// # Panics
    ///
    /// If the server is not running, ends with another status, or does not end.
    pub async fn terminate(&mut self) -> String {
        self.signal_and_end(Signal::TERM).await
    }

    /// Sends SIGINT, as Ctrl-C does, and waits for the server to end with exit code 0. Returns its
    /// console output.
    ///
    /// # Panics
    ///
    /// See [`terminate`](Self::terminate).
    pub async fn interrupt(&mut self) -> String {
        self.signal_and_end(Signal::INT).await
    }

    async fn signal_and_end(&mut self, signal: Signal) -> String {
        let mut process = self.process.take().expect("the server runs");
        process.signal(signal);
        let status = process.ended(PATIENCE).await;
        assert_eq!(
            status.code(),
            Some(0),
            "after {signal:?} the server ended with {status}:\n{}",
            process.stderr.text()
        );
        process.stderr.text()
    }

    /// Starts the server again, on the same port with the same data. Terminates it first if it
    /// runs.
    ///
    /// # Panics
    ///
    /// If it ends instead of listening.
    pub async fn restart(&mut self) {
        if self.process.is_some() {
            self.terminate().await;
        }
        if let Err(refusal) = self.launch().await {
            panic!(
                "the server ended with {} when started again:\n{}",
                refusal.status, refusal.stderr
            );
        }
    }

    /// Sets a field of the configuration for the next start.
    pub fn configure(&mut self, section: &str, field: &str, value: impl Into<toml::Value>) {
        self.options = std::mem::take(&mut self.options).set(section, field, value);
    }

    /// Writes the configuration with what was set since the start, has the running server read it
    /// again, and returns the line by which it reports the result.
    ///
    /// # Panics
    ///
    /// If the server does not run, or reports nothing.
    pub async fn reload(&self) -> String {
        self.write_config();
        self.hang_up().await
    }

    /// Writes the configuration with what was set since the start.
    ///
    /// # Panics
    ///
    /// If it cannot be written.
    pub fn write_config(&self) {
        let path = self.folder.path().join("config.toml");
        let config = self
            .options
            .config(self.folder.path(), &self.pki, self.address.port());
        std::fs::write(&path, config).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Sends SIGHUP, and returns the line by which the server reports whether it could read its
    /// configuration again.
    ///
    /// # Panics
    ///
    /// If the server does not run, or reports nothing.
    pub async fn hang_up(&self) -> String {
        let process = self.process();
        let mark = process.stderr.mark();
        process.signal(Signal::HUP);
        let reported = |line: &str| {
            let is_report = ["is read again", "cannot be read again"]
                .iter()
                .any(|text| line.contains(text));
            is_report.then(|| line.to_owned())
        };
        let found = process.stderr.find(mark, PATIENCE, reported).await;
        found.unwrap_or_else(|| panic!("nothing is reported:\n{}", process.stderr.text()))
    }

    /// Sets the wrapper command for the next start; see [`Options::under`].
    pub fn run_under(&mut self, wrapper: Vec<String>) {
        self.options = std::mem::take(&mut self.options).under(wrapper);
    }

    /// The exit status, or `None` while the server runs or after it was stopped.
    pub fn try_ended(&mut self) -> Option<ExitStatus> {
        let status = self.process.as_mut()?.try_ended()?;
        self.process = None;
        Some(status)
    }

    /// Waits for the server to end by itself.
    ///
    /// # Panics
    ///
    /// If it still runs after `limit`.
    pub async fn ended(&mut self, limit: Duration) -> ServerExit {
        let mut process = self.process.take().expect("the server runs");
        let status = process.ended(limit).await;
        ServerExit {
            status,
            stderr: process.stderr.text(),
        }
    }
}

/// Waits until the server accepts connections at `address`, for servers that do not log it. Returns
/// `None` if the server ends instead.
async fn accepts(address: SocketAddr, console: &Output) -> Option<SocketAddr> {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !console.is_complete() && tokio::time::Instant::now() < end {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Some(address);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

/// Parses the address from the console line that reports that the server listens:
/// `listening on 127.0.0.1:5672`, or the log line `Listening address=127.0.0.1:5672`.
fn listening_address(line: &str) -> Option<SocketAddr> {
    let at = line.to_ascii_lowercase().find("listening")?;
    line.get(at..)?.split_whitespace().find_map(|word| {
        word.trim_start_matches("address=")
            .trim_matches(['"', '.', ','])
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_either_form_of_the_line() {
        let address = Some(SocketAddr::from(([127, 0, 0, 1], 5672)));
        assert_eq!(listening_address("listening on 127.0.0.1:5672"), address);
        assert_eq!(
            listening_address("2025-09-08T07:03:00Z  INFO Listening address=127.0.0.1:5672"),
            address
        );
        assert_eq!(
            listening_address("127.0.0.1:5672 is in use: not listening"),
            None
        );
        assert_eq!(listening_address("client 127.0.0.1:5672 connected"), None);
    }

    #[test]
    fn settings_override_what_the_harness_writes() {
        let pki = Pki::new();
        let options = Options::sqlite()
            .set("limits", "redelivery_timeout", "1s")
            .set("limits", "max_connections", 7)
            .set("logging", "level", "debug");
        let config: toml::Table = options
            .config(Path::new("/somewhere"), &pki, 1234)
            .parse()
            .unwrap();
        assert_eq!(config["server"]["address"].as_str(), Some("127.0.0.1:1234"));
        assert_eq!(config["limits"]["redelivery_timeout"].as_str(), Some("1s"));
        assert_eq!(config["limits"]["max_connections"].as_integer(), Some(7));
        assert_eq!(config["logging"]["level"].as_str(), Some("debug"));
        assert_eq!(
            config["database"]["url"].as_str(),
            Some("sqlite:///somewhere/data/ciphermq.db")
        );
    }
}
