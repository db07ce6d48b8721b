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
//! - [`attack`]: the names of the attacks, and their two extents
//! - [`target`]: the server as attackers see it, and their connections
//! - [`attacks`]: the behaviour of each attacker
//! - [`attacker`]: an attacker's process
//! - [`victim`]: the client that is attacked, and its measurements
//! - [`probe`]: short operations of other honest clients
//! - [`figures`]: the results of one attack, and the bounds that they must respect
//! - [`round`]: one attack in three phases: before, during and after it
//!
//! Rates and latencies depend on the machine's speed. The rest must hold on every machine: no
//! honest client gets an error, memory and logs are bounded, and the service has recovered 5
//! seconds after the attack.

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
