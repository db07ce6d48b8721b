//! A TCP proxy that simulates network faults: its connections can be cut, half-closed, delayed,
//! split and frozen.

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

/// Conditions of the network for all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetworkConditions {
    /// Delay of every piece of data.
    pub delay: Duration,
    /// Maximum length of a piece in bytes, or 0 for no limit.
    pub piece: usize,
    /// Whether no data gets through, while connections stay open.
    pub frozen: bool,
}

/// Direction of data through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the clients to the server.
    ToServer,
    /// From the server to the clients.
    ToClient,
}

/// Something that happens to all open connections.
#[derive(Debug, Clone, Copy)]
enum Disruption {
    Cut { reset: bool },
    Silence,
    HalfClose(Direction),
}

/// A proxy on a free port of 127.0.0.1. Dropping it resets its connections.
pub struct Proxy {
    address: SocketAddr,
    conditions: watch::Sender<NetworkConditions>,
    disruptions: broadcast::Sender<Disruption>,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy in front of `target`, which need not listen yet.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let (conditions, current) = watch::channel(NetworkConditions::default());
        let (disruptions, _) = broadcast::channel(16);
        let (accepted, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let listening = tokio::spawn({
            let (disruptions, accepted, open) = (
                disruptions.clone(),
                Arc::clone(&accepted),
                Arc::clone(&open),
            );
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    let (conditions, disruptions, open) =
                        (current.clone(), disruptions.subscribe(), Arc::clone(&open));
                    tokio::spawn(async move {
                        open.fetch_add(1, Ordering::Relaxed);
                        // Either end may close its connection at any time.
                        let _ = pass(client, target, conditions, disruptions).await;
                        open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
            }
        });
        Self {
            address,
            conditions,
            disruptions,
            accepted,
            open,
            listening,
        }
    }

    /// The address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of connections accepted since the start.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Number of open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Sets the conditions for all connections, open and new.
    pub fn set_conditions(&self, conditions: NetworkConditions) {
        self.conditions.send_replace(conditions);
    }

    /// Closes all open connections, with a reset, or properly in both directions. Data in transit
    /// is lost.
    pub fn cut(&self, reset: bool) {
        // Sending fails if there is no connection.
        let _ = self.disruptions.send(Disruption::Cut { reset });
    }

    /// Stops all data on the open connections, which stay open. New connections are not affected.
    pub fn silence(&self) {
        let _ = self.disruptions.send(Disruption::Silence);
    }

    /// Closes one direction of all open connections.
    pub fn half_close(&self, direction: Direction) {
        let _ = self.disruptions.send(Disruption::HalfClose(direction));
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
    conditions: watch::Receiver<NetworkConditions>,
    mut disruptions: broadcast::Receiver<Disruption>,
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
            conditions.clone(),
            (Direction::ToServer, closing.clone()),
        );
        let down = pump(
            from_server,
            to_client,
            conditions,
            (Direction::ToClient, closing),
        );
        // The end of one direction leaves the other one open; an error closes both.
        let mut both = pin!(async { tokio::try_join!(up, down) });
        let mut is_silent = false;
        loop {
            tokio::select! {
                result = &mut both, if !is_silent => break result.is_err(),
                disruption = disruptions.recv() => match disruption {
                    Ok(Disruption::HalfClose(direction)) => drop(closed.send(Some(direction))),
                    Ok(Disruption::Silence) => is_silent = true,
                    Ok(Disruption::Cut { reset }) => break reset,
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

/// Forwards data in one direction, until it is closed.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut conditions: watch::Receiver<NetworkConditions>,
    (direction, mut closing): (Direction, watch::Receiver<Option<Direction>>),
) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let count = tokio::select! {
            count = from.read(&mut buffer) => count,
            Ok(_) = closing.wait_for(|closed| *closed == Some(direction)) => Ok(0),
        };
        // In a frozen network, an end is not forwarded either. If the proxy is dropped, so are its
        // connections.
        if conditions
            .wait_for(|conditions| !conditions.frozen)
            .await
            .is_err()
        {
            return Ok(());
        }
        let count = count?;
        let mut rest = buffer.get(..count).unwrap_or_default();
        if rest.is_empty() {
            return to.shutdown().await;
        }
        while !rest.is_empty() {
            let current = match conditions.wait_for(|conditions| !conditions.frozen).await {
                Ok(conditions) => *conditions,
                Err(_) => return Ok(()),
            };
            if !current.delay.is_zero() {
                tokio::time::sleep(current.delay).await;
            }
            let length = if current.piece == 0 {
                rest.len()
            } else {
                current.piece.min(rest.len())
            };
            let (piece, later) = rest.split_at(length);
            to.write_all(piece).await?;
            rest = later;
        }
    }
}
