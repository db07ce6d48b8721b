//! What is known of a connection, for administrators.

use std::net::SocketAddr;

use parking_lot::Mutex;

use crate::model::Time;

/// The longest name of a client's program that is kept, in bytes.
const PROGRAM_BYTES: usize = 200;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The client's address.
    pub address: SocketAddr,
    /// The version of TLS, such as `1.3`.
    pub tls: Option<&'static str>,
}

/// What is known of a connection.
#[derive(Debug)]
pub(in crate::broker) struct Facts {
    pub(in crate::broker) origin: Origin,
    /// When its handshake was finished.
    pub(in crate::broker) since: Time,
    hello: Mutex<Hello>,
}

/// What a client has said of itself.
#[derive(Debug, Clone, Default)]
pub(in crate::broker) struct Hello {
    pub(in crate::broker) program: Option<String>,
    pub(in crate::broker) consumer: Option<String>,
    pub(in crate::broker) packed: bool,
}

impl Facts {
    pub(super) fn new(origin: Origin) -> Self {
        Self {
            origin,
            since: Time::now(),
            hello: Mutex::default(),
        }
    }

    pub(in crate::broker) fn hello(&self) -> Hello {
        self.hello.lock().clone()
    }

    /// Records a `hello`. What it leaves out stays as it was, except whether lines are packed.
    pub(in crate::broker) fn said_hello(&self, said: Hello) {
        let mut hello = self.hello.lock();
        if let Some(program) = said.program {
            // A copy: the text itself keeps the memory of however long it was.
            let end = program.floor_char_boundary(PROGRAM_BYTES);
            hello.program = program.get(..end).map(str::to_owned);
        }
        if said.consumer.is_some() {
            hello.consumer = said.consumer;
        }
        hello.packed = said.packed;
    }
}
