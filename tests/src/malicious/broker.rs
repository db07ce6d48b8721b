//! A proxy that terminates TLS on both sides, and passes every line through a script.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::tls;
use crate::faults::proxy::Direction;
use crate::{Pki, Server};

/// A line in transit.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Client id of the connection.
    pub client: &'a str,
    /// Direction of the line.
    pub direction: Direction,
    /// The line, without its ending.
    pub text: &'a str,
}

impl Line<'_> {
    /// The rest of the line after `prefix`, if it is a line to `client` that begins with `prefix`.
    pub fn reply_to(&self, client: &str, prefix: &str) -> Option<&str> {
        (self.direction == Direction::ToClient && self.client == client)
            .then(|| self.text.strip_prefix(prefix))
            .flatten()
    }

    /// The message id and the envelope, if the line is a delivery to `client`.
    pub fn delivery_to(&self, client: &str) -> Option<(&str, &str)> {
        self.reply_to(client, "Message: ")?.split_once(' ')
    }

    /// The unchanged line, as an honest broker would forward it.
    pub fn honest(&self) -> Vec<String> {
        vec![self.text.to_owned()]
    }
}

/// A line as it was received, before the script changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Client id of the connection.
    pub client: String,
    /// Direction of the line.
    pub direction: Direction,
    /// The line, without its ending.
    pub text: String,
}

type Script = Arc<dyn Fn(Line<'_>) -> Vec<Vec<u8>> + Send + Sync>;

struct State {
    pki: Arc<Pki>,
    target: SocketAddr,
    /// Whether connections may negotiate packed lines.
    keeps_packed: AtomicBool,
    script: Mutex<Script>,
    recorded: Mutex<Vec<Recorded>>,
}

/// A malicious broker, listening on a free port. Dropping it closes its connections.
pub struct MaliciousBroker {
    address: SocketAddr,
    state: Arc<State>,
    listening: JoinHandle<()>,
}

impl MaliciousBroker {
    /// Starts a broker in front of `server`. It is honest until [`intercept`](Self::intercept) is
    /// called.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub async fn start(server: &Server) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let state = Arc::new(State {
            pki: Arc::clone(server.pki()),
            target: server.address(),
            keeps_packed: AtomicBool::new(false),
            script: Mutex::new(Arc::new(|line| vec![line.text.into()])),
            recorded: Mutex::default(),
        });
        let acceptor = TlsAcceptor::from(Arc::new(tls::server(server.pki())));
        let listening = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                // Aborted together with this task.
                let mut connections = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
                    // Either side may end a connection at any time.
                    connections
                        .spawn(async move { connection(client, acceptor, &state).await.is_ok() });
                    while connections.try_join_next().is_some() {}
                }
            }
        });
        Self {
            address,
            state,
            listening,
        }
    }

    /// The address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces every subsequent line, of all connections, by the lines that `script` returns, on
    /// the same connection and in the same direction. Clients match replies to commands by their
    /// order, so a script that adds or removes replies breaks that; it may add and remove
    /// deliveries freely. Returned lines may be any bytes.
    pub fn intercept<L: Into<Vec<u8>>>(
        &self,
        script: impl Fn(Line<'_>) -> Vec<L> + Send + Sync + 'static,
    ) {
        *self.state.script.lock() =
            Arc::new(move |line| script(line).into_iter().map(Into::into).collect());
    }

    /// Lets connections negotiate packed lines. Without it they do not, so that a script finds
    /// every envelope complete and every reply on its own line.
    pub fn keep_packed(&self) {
        self.state.keeps_packed.store(true, Ordering::Relaxed);
    }

    /// Forwards every subsequent line unchanged, as an honest broker.
    pub fn stop_intercepting(&self) {
        self.intercept(|line| line.honest());
    }

    /// The lines received from both sides so far, before any change: all that TLS hides from
    /// others.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.state.recorded.lock().clone()
    }

    /// The publish commands that `client` has sent so far.
    pub fn published_by(&self, client: &str) -> Vec<String> {
        self.state
            .recorded
            .lock()
            .iter()
            .filter(|line| line.client == client && line.direction == Direction::ToServer)
            .filter(|line| line.text.starts_with("publish"))
            .map(|line| line.text.clone())
            .collect()
    }
}

impl Drop for MaliciousBroker {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn connection(client: TcpStream, acceptor: TlsAcceptor, state: &State) -> io::Result<()> {
    client.set_nodelay(true)?;
    let client = acceptor.accept(client).await?;
    let id = client
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| tls::client_of(&state.pki, chain.first()?))
        .ok_or_else(|| io::Error::other("a client of another test"))?;
    let connector = TlsConnector::from(Arc::new(tls::client(&state.pki, &state.pki.client(&id))));
    let server = TcpStream::connect(state.target).await?;
    server.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").expect("a DNS name");
    let server = connector.connect(name, server).await?;
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    // The connection ends as soon as one direction does.
    tokio::select! {
        ended = pump(from_client, to_server, &id, Direction::ToServer, state) => ended,
        ended = pump(from_server, to_client, &id, Direction::ToClient, state) => ended,
    }
}

async fn pump(
    from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    client: &str,
    direction: Direction,
    state: &State,
) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut text = String::new();
    loop {
        text.clear();
        if from.read_line(&mut text).await? == 0 {
            return to.shutdown().await;
        }
        let text = text.trim_end_matches(['\r', '\n']);
        state.recorded.lock().push(Recorded {
            client: client.to_owned(),
            direction,
            text: text.to_owned(),
        });
        // Hides from each side that the other one supports packed lines.
        let unpacked = (!state.keeps_packed.load(Ordering::Relaxed))
            .then(|| text.replace(",\"packed\":true}", "}"));
        let line = Line {
            client,
            direction,
            text: unpacked.as_deref().unwrap_or(text),
        };
        let script = Arc::clone(&state.script.lock());
        for mut passed in script(line) {
            passed.push(b'\n');
            to.write_all(&passed).await?;
        }
        to.flush().await?;
    }
}
