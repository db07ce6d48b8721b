//! Everything fails, and nothing is lost: kills, cuts, outages, full disks, long queues. The same
//! by hand, and for as long as one likes: `cargo run -p ciphermq-tests --bin faults -- --help`.
//!
//! Tests named `traced_*` need to trace programs, those named `mounted_*` to mount a file system.
//! Where that is forbidden `scripts/test` leaves them out, so that they count as skipped; run past
//! it they fail and say why.

mod disk;
mod leases;
mod memory;
mod misbehaviour;
mod outages;
mod points;
mod random;

use ciphermq_tests::on_both_databases;

use leases::{
    a_connection_that_died_in_silence_loses_its_messages_by_time,
    a_lost_connection_returns_its_messages_at_the_head_in_order,
    a_message_that_nobody_acks_does_not_hold_up_its_lane,
    hello_takes_over_from_a_connection_that_died_in_silence,
    only_the_receiver_settles_also_after_a_restart, resend_and_fetch_lease_over_a_restart,
};
use memory::{
    a_client_that_reads_no_answers_is_not_read_from, a_long_queue_costs_little_memory_heavy,
    a_receiver_that_stops_reading_costs_little_memory_heavy,
};
use random::random_faults_heavy;

on_both_databases!(
    random_faults_heavy,
    a_lost_connection_returns_its_messages_at_the_head_in_order,
    hello_takes_over_from_a_connection_that_died_in_silence,
    a_connection_that_died_in_silence_loses_its_messages_by_time,
    only_the_receiver_settles_also_after_a_restart,
    resend_and_fetch_lease_over_a_restart,
    a_message_that_nobody_acks_does_not_hold_up_its_lane,
    a_long_queue_costs_little_memory_heavy,
    a_receiver_that_stops_reading_costs_little_memory_heavy,
    a_client_that_reads_no_answers_is_not_read_from,
);
