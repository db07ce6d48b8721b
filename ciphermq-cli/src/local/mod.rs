//! A temporary server, with its own certificates and configuration in a folder, for `demo` and
//! `bench`.

mod child;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciphermq_client::Timestamp;
use ciphermq_files::advice;
use keygen::CertsArgs;
use keygen::client_name::FieldArg;
use tokio::process::Command;

pub(crate) use child::Child;

use crate::commands::keygen::failure as keygen_failure;
use crate::exit::Failure;

/// The time limit for a program to start, on a busy machine.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The time limit for a program to end after SIGTERM.
pub(crate) const END_TIMEOUT: Duration = Duration::from_secs(30);
/// The embedded database, in the server's folder.
pub(crate) const SQLITE: &str = "sqlite://data/ciphermq.db";

/// The server's logging options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logging {
    /// Whether it logs lines for single messages.
    pub(crate) messages: bool,
}

/// Returns the path of this program.
///
/// # Errors
///
/// [`Failure`] if the system does not know it.
pub(crate) fn own_program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::plain(format!("The path of this program is unknown: {error}.")))
}

/// Returns the path of the server's program, which is in the same folder as this one.
///
/// # Errors
///
/// [`Failure`] if it is not there.
pub(crate) fn server_program() -> Result<PathBuf, Failure> {
    let program = own_program()?.with_file_name("ciphermq-server");
    if program.is_file() {
        return Ok(program);
    }
    Err(Failure::new(
        format!("The server, {}, is not there.", program.display()),
        "Build it: cargo build --release -p ciphermq-server (scripts/demo builds everything).",
    ))
}

/// Makes an authority, a server certificate for `localhost` and client certificates, in
/// `folder`/certs.
///
/// # Errors
///
/// [`Failure`] if they cannot be written.
pub(crate) fn certificates(folder: &Path, clients: &[impl AsRef<str>]) -> Result<(), Failure> {
    let args = CertsArgs {
        field: FieldArg::default(),
        out: folder.join("certs"),
        server_names: vec!["localhost".to_owned()],
        clients: clients
            .iter()
            .map(|name| name.as_ref().to_owned())
            .collect(),
        days: 30,
        force: false,
        new_ca: false,
    };
    keygen::certs::run(&args, Timestamp::now()).map_err(keygen_failure)?;
    Ok(())
}

/// Starts the server in `folder`, which must have its certificates, on a free port of this machine.
/// Returns it with its address for clients.
///
/// # Errors
///
/// [`Failure`] if it does not start.
pub(crate) async fn start_server(
    folder: &Path,
    database: &str,
    logging: Logging,
) -> Result<(Child, String), Failure> {
    let config = folder.join("config.toml");
    std::fs::write(&config, configuration(database, logging)).map_err(|error| {
        Failure::new(
            format!("{} cannot be written: {error}.", config.display()),
            advice(&error).unwrap_or("Check that you may write to its folder."),
        )
    })?;
    let mut command = Command::new(server_program()?);
    command.args(["--config", "config.toml"]);
    let mut server = Child::start("ciphermq-server", command, folder)?;
    let line = server.wait_for_line("listening on ", START_TIMEOUT).await?;
    let address: Option<SocketAddr> = line
        .split_whitespace()
        .next()
        .and_then(|address| address.parse().ok());
    let Some(port) = address.map(|address| address.port()) else {
        return Err(Failure::plain(format!(
            "The server listens on {line:?}, which is not an address."
        )));
    };
    // The server's certificate is for this name.
    Ok((server, format!("localhost:{port}")))
}

/// Returns a configuration for the server. Its paths are relative to the server's working
/// directory.
fn configuration(database: &str, Logging { messages }: Logging) -> String {
    let database = toml::Value::from(database);
    format!(
        r#"# Made by `ciphermq-cli`.
[server]
address = "127.0.0.1:0"
connection_type = "tls"

[tls]
cert_path = "certs/server.crt"
key_path = "certs/server.key"
ca_cert_path = "certs/ca.crt"

[logging]
level = "info"
messages = {messages}
info_file_path = "logs/server_info.log"
debug_file_path = "logs/server_debug.log"
error_file_path = "logs/server_error.log"
rotation = "daily"
max_size_mb = 100

[database]
url = {database}

[encryption]
algorithm = "aes-256-gcm"
"#
    )
}
