//! A free port that stays free over a restart.

use std::net::{Ipv4Addr, TcpListener};

use rand::RngExt as _;

/// Below the range that Linux gives to outgoing connections and to port 0 (32768 and up), so that
/// nothing takes a server's port by chance while it is being restarted.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port on 127.0.0.1 that nobody listens on now. Another process may take it before its user does
/// (one chance in some thousands): who starts a program on it tries again with another.
pub fn free() -> u16 {
    let mut random = rand::rng();
    for _ in 0..1000 {
        let port = random.random_range(RANGE);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port among {RANGE:?} on 127.0.0.1");
}
