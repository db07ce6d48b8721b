//! Every command of docs/protocol.md over a raw TLS socket, with its exact reply, on both
//! databases.

mod certificates;
mod commands;
mod consuming;
mod fetching;
mod keys;
mod leases;
mod lines;
mod publishing;
mod settling;

use ciphermq_tests::{Backend, on_both_databases, run_cases};

async fn every_command(backend: Backend) {
    let server = backend.server().await;
    run_cases!(
        server,
        [
            commands::every_command_over_tls_1_3,
            commands::every_command_over_tls_1_2,
            commands::missing_arguments,
            commands::names,
            commands::hello,
            commands::hello_again,
            commands::large_numbers,
            lines::pipelined_commands_are_answered_in_order,
            lines::lines_may_come_in_pieces,
            lines::both_line_endings,
            lines::deliveries_stand_between_replies,
            lines::nothing_is_sent_unasked,
        ]
    );
}

async fn publishing(backend: Backend) {
    let server = backend.server().await;
    run_cases!(
        server,
        [
            publishing::the_same_id_again,
            publishing::the_same_id_of_another_client,
            publishing::the_same_id_with_a_suite,
            publishing::the_same_id_by_another_route,
            publishing::the_same_id_inside_one_batch,
            publishing::the_same_id_in_pipelined_commands,
            publishing::the_same_id_after_its_ack,
            publishing::errors_of_single_messages,
            publishing::a_batch_is_answered_message_by_message,
            publishing::an_invalid_batch_stores_nothing,
            publishing::a_batch_by_an_invalid_route_is_answered_message_by_message,
            publishing::envelopes_arrive_byte_for_byte,
            publishing::a_message_goes_to_every_bound_queue,
        ]
    );
}

async fn consuming(backend: Backend) {
    let server = backend.server().await;
    run_cases!(
        server,
        [
            consuming::prefetch_bounds_what_is_delivered,
            consuming::without_prefetch_messages_come_one_at_a_time,
            consuming::a_prefetch_may_be_changed,
            consuming::the_confirmation_comes_before_what_it_made_room_for,
            consuming::competing_consumers_take_turns,
            consuming::a_late_consumer_gets_the_backlog_in_order,
            consuming::messages_go_to_their_receiver_only,
            consuming::a_lost_connection_returns_its_messages_in_order,
            consuming::a_consumer_that_reconnects_takes_over,
            consuming::several_queues_on_one_connection,
            fetching::fetch_leases_and_does_not_remove,
            fetching::fetch_is_refused_on_a_consuming_connection,
            fetching::fetch_takes_messages_in_order,
            settling::only_the_receiver_acks,
            settling::acks_of_several_messages,
            settling::one_ack_counts_for_every_queue,
            settling::an_ack_counts_on_another_connection,
            settling::rejected_messages_are_kept,
            settling::resend,
        ]
    );
}

async fn keys_and_certificates(backend: Backend) {
    let server = backend.server().await;
    run_cases!(
        server,
        [
            keys::public_keys_in_both_spellings,
            keys::a_key_is_registered_by_its_client_only,
            keys::invalid_keys_are_refused,
            keys::signed_keys,
            keys::a_signed_key_is_registered_by_its_client_only,
            keys::a_signed_key_without_an_x25519_key,
            keys::invalid_signed_keys_are_refused,
            certificates::the_last_or_a_chosen_chain,
            certificates::unknown_certificates,
        ]
    );
}

use leases::{
    a_message_that_is_never_acked_lets_others_go_first, silent_connections_lose_their_messages,
};

on_both_databases!(
    every_command,
    publishing,
    consuming,
    keys_and_certificates,
    silent_connections_lose_their_messages,
    a_message_that_is_never_acked_lets_others_go_first,
);
