//! Free ports that stay free during a restart.

use std::net::{Ipv4Addr, TcpListener};

use rand::RngExt as _;

/// Ports below Linux's default ephemeral range (from 32768), so that no outgoing connection takes a
/// server's port while the server restarts.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port on 127.0.0.1 on which nothing listens at the moment. Another process may take it before
/// the caller does, though that is unlikely: callers must retry with another port.
pub fn free() -> u16 {
    let mut random = rand::rng();
    for _ in 0..1000 {
        let port = random.random_range(RANGE);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {RANGE:?} on 127.0.0.1");
}
