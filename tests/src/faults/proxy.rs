//! A network that fails: a TCP proxy whose connections are cut, half-closed, delayed, split and
//! frozen on demand.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

/// How the network is just now, for all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkConditions {
    /// Every piece waits so long.
    pub delay: Duration,
    /// No piece is longer than this; 0 for no limit.
    pub piece: usize,
    /// Nothing gets through, and nobody is told.
    pub frozen: bool,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the clients to the server.
    Up,
    /// From the server to the clients.
    Down,
}

#[derive(Debug, Clone, Copy)]
enum Blow {
    Cut { reset: bool },
    Silence,
    HalfClose(Direction),
}

/// A proxy on a port of its own on 127.0.0.1. Dropping it cuts its connections.
pub struct Proxy {
    address: SocketAddr,
    conditions: watch::Sender<NetworkConditions>,
    blows: broadcast::Sender<Blow>,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Starts one in front of `target`, which need not listen yet.
    ///
    /// # Panics
    ///
    /// If there is no port.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (conditions, sky) = watch::channel(NetworkConditions::default());
        let (blows, _) = broadcast::channel(16);
        let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let listening = tokio::spawn({
            let (blows, accepted, open) = (blows.clone(), Arc::clone(&accepted), Arc::clone(&open));
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    let (sky, blows, open) = (sky.clone(), blows.subscribe(), Arc::clone(&open));
                    tokio::spawn(async move {
                        open.fetch_add(1, Ordering::Relaxed);
                        // Either end may be gone at any time: that is what it is for.
                        let _ = pass(client, target, sky, blows).await;
                        open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            }
        });
        Self {
            address,
            conditions,
            blows,
            accepted,
            open,
            listening,
        }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections have been taken since the start.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many connections there are now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Changes the weather.
    pub fn conditions(&self, conditions: NetworkConditions) {
        self.conditions.send_replace(conditions);
    }

    /// Ends all connections: with a reset, or with a proper end in both directions. What was under
    /// way is lost.
    pub fn cut(&self, reset: bool) {
        // Nobody may be connected.
        let _ = self.blows.send(Blow::Cut { reset });
    }

    /// The connections that there are carry nothing any more, and nobody is told; new ones do.
    pub fn silence(&self) {
        let _ = self.blows.send(Blow::Silence);
    }

    /// Ends one direction of all connections.
    pub fn half_close(&self, direction: Direction) {
        let _ = self.blows.send(Blow::HalfClose(direction));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut(true);
        self.listening.abort();
    }
}

async fn pass(
    mut client: TcpStream,
    target: SocketAddr,
    sky: watch::Receiver<NetworkConditions>,
    mut blows: broadcast::Receiver<Blow>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let is_reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let (closed, closing) = watch::channel(None);
        let up = pump(
            from_client,
            to_server,
            sky.clone(),
            (Direction::Up, closing.clone()),
        );
        let down = pump(from_server, to_client, sky, (Direction::Down, closing));
        // An end goes one way; an error ends both.
        let mut both = pin!(async { tokio::try_join!(up, down) });
        let mut is_silent = false;
        loop {
            tokio::select! {
                result = &mut both, if !is_silent => break result.is_err(),
                blow = blows.recv() => match blow {
                    Ok(Blow::HalfClose(direction)) => drop(closed.send(Some(direction))),
                    Ok(Blow::Silence) => is_silent = true,
                    Ok(Blow::Cut { reset }) => break reset,
                    Err(_) => break true,
                }
            }
        }
    };
    if is_reset {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    Ok(())
}

/// Carries one direction to its end.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut sky: watch::Receiver<NetworkConditions>,
    (direction, mut closing): (Direction, watch::Receiver<Option<Direction>>),
) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let count = tokio::select! {
            count = from.read(&mut buffer) => count,
            Ok(_) = closing.wait_for(|closed| *closed == Some(direction)) => Ok(0),
        };
        // An end is no more told than anything else. The proxy's end ends its connections.
        if sky.wait_for(|conditions| !conditions.frozen).await.is_err() {
            return Ok(());
        }
        let count = count?;
        let mut rest = buffer.get(..count).unwrap_or_default();
        if rest.is_empty() {
            return to.shutdown().await;
        }
        while !rest.is_empty() {
            let conditions = match sky.wait_for(|conditions| !conditions.frozen).await {
                Ok(conditions) => *conditions,
                Err(_) => return Ok(()),
            };
            if !conditions.delay.is_zero() {
                tokio::time::sleep(conditions.delay).await;
            }
            let length = if conditions.piece == 0 {
                rest.len()
            } else {
                conditions.piece.min(rest.len())
            };
            let (piece, later) = rest.split_at(length);
            to.write_all(piece).await?;
            rest = later;
        }
    }
}
