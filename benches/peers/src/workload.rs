//! What sender and receiver do, whatever is between them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use hdrhistogram::Histogram;

use crate::cost::{Cost, cost};

/// What is asked for.
#[derive(Debug)]
pub struct Plan {
    pub port: u16,
    pub certs: PathBuf,
    pub messages: u64,
    pub window: usize,
    pub server_pid: Option<u32>,
}

impl Plan {
    pub fn read(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        Ok(std::fs::read(self.certs.join(name))?)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.certs.join(name)
    }
}

/// What came of it.
pub struct Measured {
    pub seconds: f64,
    /// What broker and client have spent in that time, as far as it can be told.
    pub server: Option<Cost>,
    pub client: Option<Cost>,
    /// From handing a message over to having opened it, in nanoseconds.
    pub latencies: Histogram<u64>,
}

/// Seals and opens: AES-256-GCM under one session key for the whole run. The nonce and the tag
/// travel with the message.
pub struct Work {
    cipher: Aes256Gcm,
    size: usize,
    start: Instant,
    next: AtomicU64,
}

const NONCE: usize = 12;

impl Work {
    pub fn new(size: usize) -> anyhow::Result<Self> {
        anyhow::ensure!(size >= 8, "a payload holds its time of sending, 8 bytes");
        let cipher = Aes256Gcm::new(&[7; 32].into());
        Ok(Self {
            cipher,
            size,
            start: Instant::now(),
            next: AtomicU64::new(0),
        })
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The next message, sealed.
    pub fn seal(&self) -> anyhow::Result<Vec<u8>> {
        let mut payload = vec![0x5a; self.size];
        payload[..8].copy_from_slice(&nanos(self.elapsed()).to_be_bytes());
        let mut message = [0; NONCE];
        message[4..].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let sealed = self.cipher.encrypt(&Nonce::from(message), &payload[..]);
        let sealed = sealed.map_err(|_| anyhow::anyhow!("cannot seal"))?;
        Ok([&message[..], &sealed].concat())
    }

    /// Opens a message; how old it is, in nanoseconds.
    pub fn open(&self, message: &[u8]) -> anyhow::Result<u64> {
        let (nonce, sealed) = message
            .split_first_chunk::<NONCE>()
            .ok_or_else(|| anyhow::anyhow!("too short"))?;
        let payload = self.cipher.decrypt(&Nonce::from(*nonce), sealed);
        let payload = payload.map_err(|_| anyhow::anyhow!("cannot open"))?;
        let sent = payload
            .first_chunk()
            .ok_or_else(|| anyhow::anyhow!("too short"))?;
        Ok(nanos(self.elapsed()).saturating_sub(u64::from_be_bytes(*sent)))
    }
}

/// Runs a sender and a receiver, each in a task of its own, so that neither waits for the other's
/// work, and measures until both are done.
pub async fn measure(
    plan: &Plan,
    send: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    receive: impl Future<Output = anyhow::Result<Histogram<u64>>> + Send + 'static,
) -> anyhow::Result<Measured> {
    let costs = || (plan.server_pid.and_then(cost), cost(std::process::id()));
    let before = costs();
    let began = Instant::now();
    let (send, receive) = (tokio::spawn(send), tokio::spawn(receive));
    let ((), latencies) = tokio::try_join!(async { send.await? }, async { receive.await? })?;
    let seconds = began.elapsed().as_secs_f64();
    let after = costs();
    anyhow::ensure!(
        latencies.len() == plan.messages,
        "{} messages came of {}",
        latencies.len(),
        plan.messages
    );
    Ok(Measured {
        seconds,
        server: spent(before.0, after.0),
        client: spent(before.1, after.1),
        latencies,
    })
}

fn spent(before: Option<Cost>, after: Option<Cost>) -> Option<Cost> {
    let (before, after) = (before?, after?);
    Some(Cost {
        cpu: after.cpu.checked_sub(before.cpu)?,
        ..after
    })
}

pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_what_was_sealed_and_nothing_else() {
        let work = Work::new(256).unwrap();
        let mut message = work.seal().unwrap();
        assert_eq!(message.len(), NONCE + 256 + 16);
        assert_ne!(message, work.seal().unwrap());
        assert!(work.open(&message).unwrap() <= nanos(work.elapsed()));
        message[NONCE + 1] ^= 1;
        assert!(work.open(&message).is_err());
        assert!(Work::new(7).is_err());
    }
}
