//! Fault injection: nothing is lost in kills, lost connections, outages, with full disks and long
//! queues. To run faults for any length of time:
//! `cargo run -p ciphermq-tests --bin faults -- --help`.
//!
//! Tests named `traced_*` trace programs, and those named `mounted_*` mount a file system. Where
//! this is forbidden, `scripts/test` leaves them out, so that they count as skipped. Without
//! `scripts/test`, they fail and report the reason.

mod disk;
mod leases;
mod memory;
mod misbehaviour;
mod outages;
mod points;
mod power;
mod random;

use ciphermq_tests::on_both_databases;

use leases::{
    a_connection_that_died_silently_loses_its_messages_after_the_timeout,
    a_lost_connection_returns_its_messages_at_the_head_in_order,
    an_unacked_message_does_not_block_its_queue,
    hello_takes_over_from_a_connection_that_died_silently,
    only_the_receiver_settles_also_after_a_restart, resend_and_fetch_lease_over_a_restart,
};
use memory::{
    a_long_queue_uses_little_memory_heavy, a_receiver_that_stops_reading_uses_little_memory_heavy,
    the_server_stops_reading_from_a_client_that_reads_no_replies,
};
use random::random_faults_heavy;

on_both_databases!(
    random_faults_heavy,
    a_lost_connection_returns_its_messages_at_the_head_in_order,
    hello_takes_over_from_a_connection_that_died_silently,
    a_connection_that_died_silently_loses_its_messages_after_the_timeout,
    only_the_receiver_settles_also_after_a_restart,
    resend_and_fetch_lease_over_a_restart,
    an_unacked_message_does_not_block_its_queue,
    a_long_queue_uses_little_memory_heavy,
    a_receiver_that_stops_reading_uses_little_memory_heavy,
    the_server_stops_reading_from_a_client_that_reads_no_replies,
);
