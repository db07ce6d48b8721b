//! Who may connect: the pool of handshakes, and the connections that are established.

use std::sync::Arc;

use ciphermq_protocol::ClientId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::connections::{ConnectionLimits, Connections, Refusal};
use super::handshakes::Handshakes;
use super::source::Source;

/// The handshakes and connections of the server.
#[derive(Debug)]
pub(super) struct Admission {
    handshakes: Mutex<Handshakes<Arc<Notify>>>,
    connections: Mutex<Connections>,
}

impl Admission {
    pub(super) fn new(
        max_handshakes: usize,
        max_handshakes_per_source: usize,
        connections: ConnectionLimits,
    ) -> Arc<Self> {
        Arc::new(Self {
            handshakes: Mutex::new(Handshakes::new(max_handshakes, max_handshakes_per_source)),
            connections: Mutex::new(Connections::new(connections)),
        })
    }

    /// Begins a handshake. Another one may have to give way to it.
    pub(super) fn begin(self: &Arc<Self>, source: Source) -> Handshake {
        let give_way = Arc::new(Notify::new());
        let (number, gives_way) = self.handshakes.lock().begin(source, Arc::clone(&give_way));
        if let Some(other) = gives_way {
            other.notify_one();
        }
        Handshake {
            admission: Arc::clone(self),
            source,
            number,
            give_way,
        }
    }

    /// Ends the handshake that would give way next, to free its file descriptor.
    pub(super) fn free_one(&self) {
        if let Some(oldest) = self.handshakes.lock().give_way() {
            oldest.notify_one();
        }
    }
}

/// A handshake in progress, which is in the pool until this is dropped.
#[derive(Debug)]
pub(super) struct Handshake {
    admission: Arc<Admission>,
    source: Source,
    number: u64,
    give_way: Arc<Notify>,
}

impl Handshake {
    /// Returns once it has to give way to another one. It is cancel safe.
    pub(super) async fn must_give_way(&self) {
        self.give_way.notified().await;
    }

    /// Turns the finished handshake into a connection of a client that may have `limit` of them; 0
    /// means no limit.
    ///
    /// # Errors
    ///
    /// The limit that is reached.
    pub(super) fn establish(
        self,
        client_id: ClientId,
        is_administrator: bool,
        limit: usize,
    ) -> Result<Established, Refusal> {
        let (admission, source) = (Arc::clone(&self.admission), self.source);
        let mut connections = admission.connections.lock();
        connections.add(&client_id, source, is_administrator, limit)?;
        drop(connections);
        Ok(Established {
            admission,
            client_id,
            source,
        })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.admission
            .handshakes
            .lock()
            .end(self.source, self.number);
    }
}

/// An established connection, which counts until this is dropped.
#[derive(Debug)]
pub(super) struct Established {
    admission: Arc<Admission>,
    client_id: ClientId,
    source: Source,
}

impl Drop for Established {
    fn drop(&mut self) {
        self.admission
            .connections
            .lock()
            .remove(&self.client_id, self.source);
    }
}
