//! The proxy: TLS on both sides, lines in between, and a script that decides on every line.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::tls;
use crate::faults::proxy::Direction;
use crate::{Pki, Server};

/// A line on its way.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// The client whose connection it is on.
    pub client: &'a str,
    /// Which way it goes.
    pub direction: Direction,
    /// The line, without its end.
    pub text: &'a str,
}

impl Line<'_> {
    /// What follows `prefix`, if the line is a reply or delivery to this client and begins so.
    pub fn reply_to(&self, client: &str, prefix: &str) -> Option<&str> {
        (self.direction == Direction::Down && self.client == client)
            .then(|| self.text.strip_prefix(prefix))
            .flatten()
    }

    /// The id and the envelope, if the line is a delivery to this client.
    pub fn delivery_to(&self, client: &str) -> Option<(&str, &str)> {
        self.reply_to(client, "Message: ")?.split_once(' ')
    }

    /// The line itself: what an honest broker passes on.
    pub fn honest(&self) -> Vec<String> {
        vec![self.text.to_owned()]
    }
}

/// A line that has come, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The client whose connection it was on.
    pub client: String,
    /// Which way it went.
    pub direction: Direction,
    /// The line, without its end.
    pub text: String,
}

type Script = Arc<dyn Fn(Line<'_>) -> Vec<Vec<u8>> + Send + Sync>;

struct State {
    pki: Arc<Pki>,
    target: SocketAddr,
    /// Connections may pack.
    keeps_packed: AtomicBool,
    script: Mutex<Script>,
    recorded: Mutex<Vec<Recorded>>,
}

/// An evil broker on a port of its own. Dropping it ends its connections.
pub struct Evil {
    address: SocketAddr,
    state: Arc<State>,
    listening: JoinHandle<()>,
}

impl Evil {
    /// Starts one in front of `server`. It is honest until it is [told](Self::play) otherwise.
    ///
    /// # Panics
    ///
    /// If there is no port.
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
                // They end with this task.
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

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on every line, of all connections, becomes the lines that `script` returns, on the
    /// same connection in the same direction: itself, another, none, or several. A reply more or
    /// fewer than there were commands puts the client's count out; deliveries may come and stay
    /// away as they like. A line may be a text or any bytes.
    pub fn play<L: Into<Vec<u8>>>(
        &self,
        script: impl Fn(Line<'_>) -> Vec<L> + Send + Sync + 'static,
    ) {
        *lock(&self.state.script) =
            Arc::new(move |line| script(line).into_iter().map(Into::into).collect());
    }

    /// From now on connections may pack what they say. Until then it sees to it that they don't, so
    /// that a script finds every envelope in one piece and every reply for itself.
    pub fn keep_packed(&self) {
        self.state.keeps_packed.store(true, Ordering::Relaxed);
    }

    /// From now on it is honest.
    pub fn play_honest(&self) {
        self.play(|line| line.honest());
    }

    /// All that has come from either side so far, as it came: what can be read behind TLS.
    pub fn recorded(&self) -> Vec<Recorded> {
        lock(&self.state.recorded).clone()
    }

    /// The publish commands of this client so far.
    pub fn published_by(&self, client: &str) -> Vec<String> {
        lock(&self.state.recorded)
            .iter()
            .filter(|line| line.client == client && line.direction == Direction::Up)
            .filter(|line| line.text.starts_with("publish"))
            .map(|line| line.text.clone())
            .collect()
    }
}

impl Drop for Evil {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    // When one direction has ended, so has the connection.
    tokio::select! {
        ended = pump(from_client, to_server, &id, Direction::Up, state) => ended,
        ended = pump(from_server, to_client, &id, Direction::Down, state) => ended,
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
        lock(&state.recorded).push(Recorded {
            client: client.to_owned(),
            direction,
            text: text.to_owned(),
        });
        // Neither side learns that the other one packs.
        let unpacked = (!state.keeps_packed.load(Ordering::Relaxed))
            .then(|| text.replace(",\"packed\":true}", "}"));
        let line = Line {
            client,
            direction,
            text: unpacked.as_deref().unwrap_or(text),
        };
        let script = Arc::clone(&lock(&state.script));
        for mut passed in script(line) {
            passed.push(b'\n');
            to.write_all(&passed).await?;
        }
        to.flush().await?;
    }
}
