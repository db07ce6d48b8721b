//! Acks of messages that do not exist, each of which has to be looked up.

use std::fmt::Write as _;

use rand::RngExt as _;

use crate::battery::target::Target;

pub(super) async fn run(target: &'static Target) {
    let line = |_| {
        let mut line = "ack".to_owned();
        for _ in 0..4096 {
            let id: u128 = rand::rng().random();
            // Writing to a string cannot fail.
            let _ = write!(line, " {id:032x}");
        }
        line + "\n"
    };
    target.ask_endlessly(4, line).await;
}
