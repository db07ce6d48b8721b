//! A proxy that terminates TLS on both sides, and passes every line through a script.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use ciphermq_protocol::LineDecoder;
use ciphermq_protocol::hello::Packing;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
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
    /// The line, without its ending. Bytes after it that are not UTF-8 are replaced.
    pub text: &'a str,
    /// The line, without its ending, and with the bytes after it.
    pub bytes: &'a [u8],
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

    /// The unchanged line with the bytes after it.
    pub fn honest_bytes(&self) -> Vec<Vec<u8>> {
        vec![self.bytes.to_owned()]
    }
}

/// A line as it was received, before the script changed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Client id of the connection.
    pub client: String,
    /// Direction of the line.
    pub direction: Direction,
    /// The line, without its ending. Bytes after it that are not UTF-8 are replaced.
    pub text: String,
    /// The line, without its ending, and with the bytes after it.
    pub bytes: Vec<u8>,
}

type Script = Arc<dyn Fn(Line<'_>) -> Vec<Vec<u8>> + Send + Sync>;

struct State {
    pki: Arc<Pki>,
    target: SocketAddr,
    /// The form of lines that connections may negotiate.
    packing: Mutex<Packing>,
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
            packing: Mutex::new(Packing::None),
            script: Mutex::new(Arc::new(|line| line.honest_bytes())),
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

    /// Lets connections negotiate packed lines of this form. Without it they do not, so that a
    /// script finds every envelope complete and every reply on its own line.
    pub fn keep_packed(&self, packing: Packing) {
        *self.state.packing.lock() = packing;
    }

    /// Forwards every subsequent line unchanged, as an honest broker.
    pub fn stop_intercepting(&self) {
        self.intercept(|line| line.honest_bytes());
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
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    client: &str,
    direction: Direction,
    state: &State,
) -> io::Result<()> {
    let mut decoder = LineDecoder::new(usize::MAX / 2);
    let mut buffer = BytesMut::new();
    loop {
        let Ok(line) = decoder.decode(&mut buffer) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let Some(line) = line else {
            if from.read_buf(&mut buffer).await? == 0 {
                return to.shutdown().await;
            }
            continue;
        };
        let text = String::from_utf8_lossy(&line);
        state.recorded.lock().push(Recorded {
            client: client.to_owned(),
            direction,
            text: text.clone().into_owned(),
            bytes: line.to_vec(),
        });
        // Hides from each side which forms of packed lines the other one supports.
        let (packing, packed, binary) = (
            *state.packing.lock(),
            ",\"packed\":true",
            ",\"binary\":true",
        );
        let hidden = match packing {
            Packing::None => Some(text.replace(&format!("{packed}{binary}}}"), "}")),
            Packing::Text => Some(text.replace(&format!("{binary}}}"), "}")),
            Packing::Binary => None,
        };
        let bytes = hidden.as_deref().map_or(&line[..], str::as_bytes);
        let line = Line {
            client,
            direction,
            text: hidden.as_deref().unwrap_or(&text),
            bytes,
        };
        let script = Arc::clone(&state.script.lock());
        for mut passed in script(line) {
            // What has an ending already is whole lines, perhaps with bytes after them.
            if !passed.contains(&b'\n') {
                passed.push(b'\n');
            }
            to.write_all(&passed).await?;
        }
        to.flush().await?;
    }
}
