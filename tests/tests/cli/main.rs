//! `ciphermq-cli` from the user's point of view, with the real server: its output, exit codes and
//! error messages. `ciphermq-cli/tests` covers what needs no server.

mod announcing;
mod bench;
mod changing;
mod competing;
mod console;
mod descriptors;
mod durable;
mod files;
mod gaps;
mod identity;
mod input;
mod names;
mod payloads;
mod pipes;
mod quarantine;
mod receiving;
mod requests;
mod restarts;
mod senders;
mod several;
mod takeover;

use ciphermq_tests::{Backend, on_both_databases, run_cases};

/// The tests whose results depend on the database.
async fn messages_and_keys(backend: Backend) {
    let server = backend.server().await;
    run_cases!(
        server,
        [
            names::default_names_fit_together,
            names::custom_names,
            payloads::every_payload_arrives_as_it_was,
            quarantine::older_envelopes_are_read_where_allowed,
            quarantine::older_envelopes_are_set_aside_where_not,
            quarantine::messages_in_older_forms_are_read_where_allowed,
            quarantine::messages_in_older_forms_are_set_aside_where_not,
            quarantine::a_message_for_another_key_is_set_aside,
            quarantine::older_private_keys_open_older_messages,
            receiving::a_count_leaves_the_other_messages,
            senders::others_are_set_aside_counted_and_reported_once,
            senders::unproven_senders_match_only_where_they_are_allowed,
            senders::messages_that_a_full_quarantine_does_not_take_are_kept_by_the_server,
            senders::patterns_of_uncertain_meaning_are_refused,
            requests::fetch_and_ack,
            requests::resend,
            requests::register_key_and_get_key,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_report_the_cause_and_the_fix() {
    let server = Backend::Sqlite.server().await;
    run_cases!(
        server,
        [
            names::an_unregistered_receiver,
            names::a_routing_key_without_queue,
            names::an_unknown_exchange,
            names::simultaneous_senders_use_different_streams,
            identity::a_server_of_another_authority,
            identity::a_client_of_another_authority,
            identity::a_certificate_and_a_key_that_do_not_match,
            identity::an_expired_certificate,
            identity::missing_files,
            identity::invalid_private_keys,
            identity::a_second_client_has_its_own_private_key,
            identity::a_private_key_that_another_client_has_announced_is_refused,
            identity::a_server_that_is_not_running,
            identity::pins_in_another_folder,
            input::files_that_cannot_be_read,
            input::an_endless_line,
            input::an_endless_device,
            input::a_message_that_is_too_large_once_sealed,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_output_and_console() {
    let server = Backend::Sqlite.server().await;
    run_cases!(
        server,
        [
            input::lines_of_a_file,
            input::messages_on_the_command_line,
            input::lines_on_standard_input,
            input::batches_of_any_size,
            input::a_closed_standard_input_is_an_error,
            input::a_descriptor_is_read_from_where_it_is,
            input::a_file_of_the_system_is_read_once,
            console::a_line_for_every_step_of_a_message,
            console::payloads_are_printed_only_on_request,
            console::no_messages_are_listed_by_default,
            console::quiet_prints_nothing,
            console::only_data_on_standard_output,
            console::unacknowledged_messages_are_counted_if_they_cannot_be_listed,
            receiving::an_idle_receiver_exits,
            receiving::signals_end_a_receiver_gracefully,
            receiving::one_output_has_one_receiver,
            receiving::a_reader_that_stops_reading,
            pipes::a_reader_takes_what_it_reads_after_any_number_of_restarts,
            pipes::a_killed_reader_loses_nothing,
            pipes::the_receiver_waits_until_the_last_line_is_read,
            pipes::the_end_of_the_reader_is_noticed_without_a_further_message,
            pipes::lines_of_any_length_pass,
            pipes::a_named_pipe_that_is_read_in_part,
            pipes::a_signal_ends_a_receiver_that_has_no_reader,
            pipes::a_signal_ends_a_receiver_that_waits_for_a_reader,
            pipes::fetch_acknowledges_what_was_read,
            receiving::messages_in_the_output_are_not_written_again,
            receiving::a_last_line_without_its_ending_is_kept,
            receiving::a_quarantine_without_its_last_line_ending,
            receiving::an_incomplete_last_line_is_cut_off,
            receiving::a_message_with_control_characters_is_kept,
            receiving::an_output_that_is_moved_away,
            requests::status,
            requests::options_in_a_file,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminals_and_signals() {
    let server = Backend::Sqlite.server().await;
    run_cases!(
        server,
        [
            receiving::ignored_signals,
            console::a_signal_ends_programs_whose_standard_error_nobody_reads,
            receiving::a_closed_terminal_ends_a_sender_gracefully,
            console::a_progress_bar_is_erased,
            console::the_log_is_coloured_on_a_terminal_only,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_the_intended_ones() {
    let server = Backend::Sqlite.server().await;
    run_cases!(
        server,
        [
            files::receive_refuses_files_that_are_in_use,
            files::send_refuses_checkpoints_that_are_in_use,
            files::unrelated_files_are_not_changed,
            files::links_are_kept_and_their_targets_are_written,
            files::devices_are_written_and_never_replaced,
            files::names_that_are_too_long_are_shortened,
            files::created_files_are_private,
            files::temporary_files_of_killed_runs_do_not_interfere,
            files::saved_keys_replace_saved_keys_only,
            files::unrelated_files_are_not_appended_to,
            files::options_without_effect_are_refused,
            files::an_empty_checkpoint_is_accepted,
            files::a_link_and_its_file_are_sent_once,
            files::an_unwritable_quarantine_is_reported_at_the_start,
            files::a_quarantine_that_is_a_pipe_has_a_reader,
            descriptors::a_file_that_standard_output_leads_to_is_in_use,
            descriptors::standard_output_under_any_name_has_no_checkpoint,
            descriptors::a_closed_standard_output_is_an_error_before_anything_is_acknowledged,
            descriptors::a_descriptor_is_shared_with_its_other_users,
            descriptors::outputs_that_others_would_overwrite_are_refused,
            descriptors::descriptors_for_the_other_direction_are_refused_at_the_start,
            descriptors::a_checkpoint_is_a_regular_file,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traced_names_of_clients_survive_power_cuts() {
    let server = Backend::Sqlite.server().await;
    run_cases!(
        server,
        [durable::a_senders_checkpoint, durable::a_receivers_files]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traced_names_of_keys_and_servers_survive_power_cuts() {
    durable::keys_and_certificates().await;
    durable::a_servers_files().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traced_a_database_folder_that_cannot_be_synced_is_reported() {
    durable::a_database_folder_that_cannot_be_synced().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_files_are_sent_correctly() {
    let server = Backend::Sqlite.server().await;
    run_cases!(
        server,
        [
            changing::a_file_that_changes_while_it_is_sent,
            changing::a_change_is_noticed_without_a_checkpoint,
            changing::a_file_that_is_renamed_while_it_is_sent,
            changing::a_rotated_file_takes_its_checkpoint_along,
            changing::a_checkpoint_that_is_removed_while_it_is_in_use,
            changing::lines_appended_to_a_partially_sent_file,
            changing::a_restored_folder_loses_nothing,
            changing::a_line_that_is_being_written_is_deferred,
            changing::a_line_completed_after_a_kill_is_sent_whole,
            changing::a_checkpoint_of_the_previous_version,
            changing::input_that_cannot_be_read_again_has_no_checkpoint,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_run_for_several_receivers() {
    let server = Backend::Sqlite.server().await;
    run_cases!(
        server,
        [
            several::each_of_several_receivers_gets_every_message,
            several::the_failure_of_one_receiver_does_not_affect_the_others,
            several::sending_to_several_receivers_resumes_after_a_kill,
            several::sending_again_is_tracked_per_receiver,
        ]
    );
}

use restarts::{
    a_server_that_does_not_come_back, a_server_that_is_killed_and_restarted_in_mid_stream,
    acks_that_are_never_confirmed,
};

on_both_databases!(
    messages_and_keys,
    a_server_that_is_killed_and_restarted_in_mid_stream,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unacknowledged_messages_are_listed() {
    a_server_that_does_not_come_back(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unconfirmed_acks_are_listed() {
    acks_that_are_never_confirmed(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_benchmark_measures_a_spawned_server() {
    bench::a_spawned_server(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_benchmark_measures_a_running_server() {
    bench::a_running_server(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_the_benchmark_runs_again_on_the_same_database() {
    bench::a_spawned_server(Backend::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_takes_over_from_one_that_died_silently() {
    takeover::a_restarted_receiver_takes_over_immediately(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn competing_receivers_with_two_outputs() {
    competing::two_outputs_contain_each_message_once(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_messages_are_reported() {
    tokio::join!(
        gaps::messages_missing_from_the_database_are_reported(),
        gaps::a_missing_beginning_may_be_older_than_the_output(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_survive_the_replacement_of_the_database() {
    announcing::a_database_is_replaced_and_restored(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keys_survive_the_replacement_of_the_database() {
    announcing::a_database_is_replaced_and_restored(Backend::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_were_announced_elsewhere_or_at_another_time() {
    tokio::join!(
        announcing::another_machine_has_announced_later(),
        announcing::a_key_is_dated_in_the_future(),
        announcing::an_epoch_that_only_senders_know(),
        announcing::a_key_with_a_forged_signature(),
        announcing::a_record_that_cannot_be_written(),
        announcing::a_folder_that_another_process_has_locked(),
    );
}
