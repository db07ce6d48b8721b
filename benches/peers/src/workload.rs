//! The part of the workload that does not depend on the broker.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use hdrhistogram::Histogram;

use crate::cost::{Cost, cost};

/// Settings of a run.
#[derive(Debug)]
pub struct Settings {
    pub port: u16,
    pub certs: PathBuf,
    pub messages: u64,
    pub window: usize,
    pub server_pid: Option<u32>,
}

impl Settings {
    pub fn read(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        Ok(std::fs::read(self.certs.join(name))?)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.certs.join(name)
    }
}

/// Results of a run.
pub struct Measurement {
    pub seconds: f64,
    /// Cost of the broker during the run, if known.
    pub server: Option<Cost>,
    /// Cost of this process during the run, if known.
    pub client: Option<Cost>,
    /// Times from sealing a message to having opened it, in nanoseconds.
    pub latencies: Histogram<u64>,
}

/// Seals and opens messages with AES-256-GCM and one session key for the whole run. A sealed
/// message contains the nonce and the tag.
pub struct MessageCipher {
    cipher: Aes256Gcm,
    size: usize,
    start: Instant,
    next: AtomicU64,
}

const NONCE: usize = 12;

impl MessageCipher {
    pub fn new(size: usize) -> anyhow::Result<Self> {
        anyhow::ensure!(
            size >= 8,
            "a payload has at least 8 bytes, which hold the time of sending"
        );
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

    /// Creates and seals the next message.
    pub fn seal(&self) -> anyhow::Result<Vec<u8>> {
        let mut payload = vec![0x5a; self.size];
        payload[..8].copy_from_slice(&nanos(self.elapsed()).to_be_bytes());
        let mut message = [0; NONCE];
        message[4..].copy_from_slice(&self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let sealed = self.cipher.encrypt(&Nonce::from(message), &payload[..]);
        let sealed = sealed.map_err(|_| anyhow::anyhow!("cannot seal"))?;
        Ok([&message[..], &sealed].concat())
    }

    /// Opens a message, and returns its age in nanoseconds.
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

/// Runs a sender and a receiver in separate tasks, so that neither blocks the other one, and
/// measures until both have finished.
pub async fn measure(
    settings: &Settings,
    send: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    receive: impl Future<Output = anyhow::Result<Histogram<u64>>> + Send + 'static,
) -> anyhow::Result<Measurement> {
    let costs = || (settings.server_pid.and_then(cost), cost(std::process::id()));
    let before = costs();
    let began = Instant::now();
    let (send, receive) = (tokio::spawn(send), tokio::spawn(receive));
    let ((), latencies) = tokio::try_join!(async { send.await? }, async { receive.await? })?;
    let seconds = began.elapsed().as_secs_f64();
    let after = costs();
    anyhow::ensure!(
        latencies.len() == settings.messages,
        "{} of {} messages were received",
        latencies.len(),
        settings.messages
    );
    Ok(Measurement {
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
        let cipher = MessageCipher::new(256).unwrap();
        let mut message = cipher.seal().unwrap();
        assert_eq!(message.len(), NONCE + 256 + 16);
        assert_ne!(message, cipher.seal().unwrap());
        assert!(cipher.open(&message).unwrap() <= nanos(cipher.elapsed()));
        message[NONCE + 1] ^= 1;
        assert!(cipher.open(&message).is_err());
        assert!(MessageCipher::new(7).is_err());
    }
}
