//! Everything fails, and nothing is lost: kills, cuts, outages, full disks, long queues. The same by hand, and for as
//! long as one likes: `cargo run -p ciphermq-tests --bin faults -- --help`.

mod misbehaviour;
mod points;
mod random;

use ciphermq_tests::on_both_databases;

use random::random_faults_heavy;

on_both_databases!(random_faults_heavy);
