//! The battery: what one client, or one address without a certificate, can do to the others.
//!
//! ```text
//!                    ┌── attackers, a process each ──┐
//!   battery ─────────┤                               ├──▶ ciphermq-server ── SQLite, PostgreSQL
//!                    └── victim: ciphermq-cli bench ─┘
//!            undisturbed, then under attack, then 5 s after the attack
//! ```
//!
//! In reading order:
//!
//! - [`attack`]: the attacks
//! - [`target`]: what an attacker knows of the server
//! - [`attacks`]: what each attacker does
//! - [`attacker`]: an attacker's process
//! - [`victim`]: the client that is attacked
//! - [`probe`]: what other honest clients notice
//! - [`figures`]: the results of one attack, and what must hold
//! - [`round`]: the course of one attack
//!
//! Some of it depends on the machine's speed: rates and latencies. The rest must hold on every
//! machine: no honest client gets an error, memory and logs are bounded, and 5 seconds after the
//! attack all is as before.

pub mod attack;
pub mod attacker;
pub mod attacks;
pub mod figures;
pub mod probe;
pub mod round;
pub mod target;
pub mod victim;

pub use attack::Attack;
pub use figures::Figures;
pub use round::Settings;
