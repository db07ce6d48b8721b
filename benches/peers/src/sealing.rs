//! Sealing and opening with AES-256-GCM, with one session key for each pair of a sender and a
//! receiver. A sealed message contains the nonce, which begins with the sender's number, and the
//! tag. The payload begins with the time of sealing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use anyhow::Context as _;

use crate::plan::Plan;

const NONCE: usize = 12;

/// The clock of a run, shared by senders and receivers.
#[derive(Debug, Clone, Copy)]
pub struct RunClock(Instant);

impl RunClock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    fn nanos(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The session keys of all pairs, by sender, then by receiver.
pub struct SessionKeys(Vec<Vec<Arc<Aes256Gcm>>>);

impl SessionKeys {
    /// Creates keys that differ. Nobody else ever sees what they seal.
    pub fn new(plan: &Plan) -> Self {
        let key = |sender: u32, receiver: u32| {
            let mut bytes = [7; 32];
            bytes[..4].copy_from_slice(&sender.to_be_bytes());
            bytes[4..8].copy_from_slice(&receiver.to_be_bytes());
            Arc::new(Aes256Gcm::new(&bytes.into()))
        };
        let of = |sender| (0..plan.receivers).map(move |number| key(sender, number));
        Self(
            (0..plan.senders)
                .map(|sender| of(sender).collect())
                .collect(),
        )
    }

    /// What a sender seals with.
    pub fn sealer(&self, sender: u32, size: u32, clock: RunClock) -> Sealer {
        Sealer {
            keys: self.0.get(sender as usize).cloned().unwrap_or_default(),
            payload: vec![0x5a; size as usize],
            sender,
            next: 0,
            clock,
        }
    }

    /// What a receiver opens with.
    pub fn opener(&self, receiver: u32, clock: RunClock) -> Opener {
        let of = |keys: &Vec<Arc<Aes256Gcm>>| keys.get(receiver as usize).cloned();
        Opener {
            keys: self.0.iter().filter_map(of).collect(),
            clock,
        }
    }
}

/// Seals the messages of one sender.
pub struct Sealer {
    keys: Vec<Arc<Aes256Gcm>>,
    payload: Vec<u8>,
    sender: u32,
    next: u64,
    clock: RunClock,
}

impl Sealer {
    /// Creates and seals the next message, for a receiver.
    pub fn seal(&mut self, receiver: usize) -> anyhow::Result<Vec<u8>> {
        let key = self.keys.get(receiver).context("no such receiver")?;
        let time = self
            .payload
            .first_chunk_mut()
            .context("no room for a time")?;
        *time = self.clock.nanos().to_be_bytes();
        let mut nonce = [0; NONCE];
        nonce[..4].copy_from_slice(&self.sender.to_be_bytes());
        nonce[4..].copy_from_slice(&self.next.to_be_bytes());
        self.next += 1;
        let sealed = key.encrypt(&Nonce::from(nonce), &self.payload[..]);
        let sealed = sealed.map_err(|_| anyhow::anyhow!("cannot seal"))?;
        Ok([&nonce[..], &sealed].concat())
    }
}

/// Opens the messages of one receiver.
pub struct Opener {
    keys: Vec<Arc<Aes256Gcm>>,
    clock: RunClock,
}

impl Opener {
    /// Opens a message, and returns its age.
    pub fn open(&self, message: &[u8]) -> anyhow::Result<Duration> {
        let (nonce, sealed) = message.split_first_chunk::<NONCE>().context("too short")?;
        let sender = u32::from_be_bytes(*nonce.first_chunk().context("too short")?);
        let key = self.keys.get(sender as usize).context("no such sender")?;
        let payload = key.decrypt(&Nonce::from(*nonce), sealed);
        let payload = payload.map_err(|_| anyhow::anyhow!("cannot open"))?;
        let sent = u64::from_be_bytes(*payload.first_chunk().context("too short")?);
        Ok(Duration::from_nanos(
            self.clock.nanos().saturating_sub(sent),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_opens_what_was_sealed_for_it_and_nothing_else() {
        let plan = Plan {
            messages: 4,
            size: 256,
            window: 1,
            senders: 2,
            receivers: 2,
        };
        let (keys, clock) = (SessionKeys::new(&plan), RunClock::start());
        for sender in 0..2 {
            let mut sealer = keys.sealer(sender, plan.size, clock);
            let mut message = sealer.seal(1).unwrap();
            assert_eq!(message.len(), NONCE + 256 + 16);
            assert_ne!(message, sealer.seal(1).unwrap());
            let opener = keys.opener(1, clock);
            assert!(opener.open(&message).unwrap() <= clock.0.elapsed());
            assert!(keys.opener(0, clock).open(&message).is_err());
            message[NONCE + 1] ^= 1;
            assert!(opener.open(&message).is_err());
            assert!(opener.open(&message[..3]).is_err());
            assert!(sealer.seal(2).is_err());
        }
    }
}
