//! What sender and receiver do, whatever is between them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use hdrhistogram::Histogram;

/// What is asked for.
#[derive(Debug)]
pub struct Plan {
    pub port: u16,
    pub certs: PathBuf,
    pub messages: u64,
    pub window: usize,
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
    /// From handing a message over to having opened it, in nanoseconds.
    pub latencies: Histogram<u64>,
}

/// Seals and opens: AES-256-GCM under one session key for the whole run. The nonce and the tag travel with the message.
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

pub fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new(3)?)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
