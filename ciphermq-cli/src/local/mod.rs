//! A server of one's own, throwaway: certificates, configuration and the program itself, in a
//! folder.
//!
//! For commands that show or measure the whole: `demo` and `bench`.

mod child;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciphermq_client::Timestamp;
use keygen::CertsArgs;
use tokio::process::Command;

pub(crate) use child::Child;

use crate::commands::keygen::failure as keygen_failure;
use crate::exit::Failure;

/// How long a program may take to be ready, on a busy machine.
pub(crate) const READY: Duration = Duration::from_secs(60);
/// How long a program may take to end when asked to.
pub(crate) const ENDING: Duration = Duration::from_secs(30);
/// The embedded database, in the server's folder.
pub(crate) const SQLITE: &str = "sqlite://data/ciphermq.db";

/// What the server logs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logging {
    /// A line for every message.
    pub(crate) messages: bool,
}

/// This program's file.
///
/// # Errors
///
/// [`Failure`] if the system does not tell.
pub(crate) fn own_program() -> Result<PathBuf, Failure> {
    std::env::current_exe()
        .map_err(|error| Failure::plain(format!("This program does not find itself: {error}.")))
}

/// The server's file, which lies beside this program's.
///
/// # Errors
///
/// [`Failure`] if it does not.
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

/// Makes an authority, the server's certificate for `localhost`, and those of the clients, in
/// `folder`/certs.
///
/// # Errors
///
/// [`Failure`] if they cannot be written.
pub(crate) fn certificates(folder: &Path, clients: &[impl AsRef<str>]) -> Result<(), Failure> {
    let args = CertsArgs {
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

/// Starts the server in `folder`, in which its certificates are, on a free port of this machine.
/// Returns it with the address by which clients reach it.
///
/// # Errors
///
/// [`Failure`] if it does not come up.
pub(crate) async fn start_server(
    folder: &Path,
    database: &str,
    logging: Logging,
) -> Result<(Child, String), Failure> {
    let config = folder.join("config.toml");
    std::fs::write(&config, configuration(database, logging)).map_err(|error| {
        Failure::new(
            format!("{} cannot be written: {error}.", config.display()),
            "Check that its folder is yours to write, and that there is room.",
        )
    })?;
    let mut command = Command::new(server_program()?);
    command.args(["--config", "config.toml"]);
    let mut server = Child::start("ciphermq-server", command, folder)?;
    let line = server.line_with("listening on ", READY).await?;
    let address: Option<SocketAddr> = line
        .split_whitespace()
        .next()
        .and_then(|address| address.parse().ok());
    let Some(port) = address.map(|address| address.port()) else {
        return Err(Failure::plain(format!(
            "The server listens on {line:?}, which is no address."
        )));
    };
    // The certificate is for this name.
    Ok((server, format!("localhost:{port}")))
}

/// The server's configuration; its relative paths lead into the folder in which it is started.
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
