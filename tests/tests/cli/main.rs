//! `ciphermq-cli` as a user meets it, with the real server: what it prints and where, how it ends,
//! what it says when something is wrong. What needs no server is tested in `ciphermq-cli/tests`.

mod announcing;
mod bench;
mod changing;
mod competing;
mod console;
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
mod several;
mod takeover;
mod workspace;

use ciphermq_tests::{Backend, fixtures, on_both_databases};

/// What depends on what is stored.
async fn messages_and_keys(backend: Backend) {
    let server = backend.server().await;
    fixtures!(
        server,
        [
            names::default_names_fit_together,
            names::chosen_names,
            payloads::every_payload_arrives_as_it_was,
            quarantine::older_envelopes_are_read_where_allowed,
            quarantine::older_envelopes_are_set_aside_where_not,
            quarantine::what_we_send_in_older_forms_is_read_where_allowed,
            quarantine::what_we_send_in_older_forms_is_set_aside_where_not,
            quarantine::a_message_for_another_key_is_set_aside,
            quarantine::older_private_keys_open_older_messages,
            receiving::a_count_leaves_the_rest,
            requests::fetch_and_ack,
            requests::resend,
            requests::register_key_and_get_key,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said_with_what_to_do() {
    let server = Backend::Sqlite.server().await;
    fixtures!(
        server,
        [
            names::an_unregistered_receiver,
            names::a_routing_key_without_queue,
            names::an_unknown_exchange,
            names::the_same_id_is_not_sent_for_two_messages,
            identity::a_server_of_another_authority,
            identity::a_client_of_another_authority,
            identity::a_certificate_and_a_key_that_do_not_match,
            identity::an_expired_certificate,
            identity::files_that_are_not_there,
            identity::private_keys_that_are_none,
            identity::a_second_client_has_a_private_key_of_its_own,
            identity::a_private_key_that_another_client_has_announced_is_not_taken,
            identity::nobody_listens,
            identity::pins_have_a_place_of_their_own,
            input::files_that_cannot_be_read,
            input::a_line_without_end,
            input::a_device_without_end,
            input::a_message_that_is_too_large_once_sealed,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_written_and_told() {
    let server = Backend::Sqlite.server().await;
    fixtures!(
        server,
        [
            input::lines_of_a_file,
            input::messages_of_the_command_line,
            input::lines_of_standard_input,
            input::batches_of_any_size,
            console::a_line_for_every_step_of_a_message,
            console::payloads_are_told_only_when_asked_for,
            console::nothing_about_messages_by_default,
            console::quiet_says_nothing,
            console::data_alone_on_standard_output,
            receiving::an_idle_end,
            receiving::signals_end_it_well,
            receiving::one_output_has_one_receiver,
            receiving::a_reader_that_has_had_enough,
            pipes::a_reader_takes_what_it_reads_however_often_it_begins_anew,
            pipes::a_reader_that_dies_takes_nothing_with_it,
            pipes::the_last_line_is_waited_for,
            pipes::the_end_of_the_reader_is_seen_without_a_further_message,
            pipes::lines_of_any_length_go_through,
            pipes::a_named_pipe_that_is_read_a_little,
            pipes::a_signal_ends_it_though_nobody_reads,
            pipes::fetch_acknowledges_what_was_read,
            receiving::what_the_output_holds_is_not_written_again,
            receiving::a_last_line_without_its_ending_stays,
            receiving::a_quarantine_without_its_last_line_ending,
            receiving::a_torn_last_line_is_cut_off,
            receiving::a_message_with_del_in_it_stays,
            receiving::an_output_that_is_moved_away,
            requests::status,
            requests::options_of_a_file,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminals_and_signals() {
    let server = Backend::Sqlite.server().await;
    fixtures!(
        server,
        [
            receiving::signals_that_do_not_end_it,
            receiving::a_closed_terminal_ends_a_sender_well,
            console::a_bar_leaves_nothing_behind,
            console::the_log_has_colours_on_a_terminal_only,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_the_ones_that_are_meant() {
    let server = Backend::Sqlite.server().await;
    fixtures!(
        server,
        [
            files::no_file_of_receive_is_another_one_in_use,
            files::no_checkpoint_of_send_is_another_file_in_use,
            files::strangers_files_stay_as_they_are,
            files::links_stay_and_lead_to_what_is_written,
            files::devices_are_written_and_never_replaced,
            files::names_that_are_too_long_are_shortened,
            files::what_is_made_is_its_owners_alone,
            files::drafts_of_killed_runs_are_in_nobodys_way,
            files::records_of_keys_replace_records_only,
            files::a_file_that_standard_output_leads_to_is_one_in_use,
            files::standard_output_by_another_name_has_nothing_beside_it,
            files::a_closed_standard_output_is_an_error_before_anything_is_acknowledged,
            files::what_holds_no_line_of_ours_is_not_appended_to,
            files::options_without_effect_are_refused,
            files::an_empty_checkpoint_is_none,
            files::a_link_and_its_file_are_sent_once,
            files::a_quarantine_that_cannot_be_written_is_told_at_the_start,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traced_names_of_clients_survive_power_cuts() {
    let server = Backend::Sqlite.server().await;
    fixtures!(
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
async fn traced_a_folder_of_the_database_that_cannot_be_synced_is_told() {
    durable::a_folder_of_the_database_that_cannot_be_synced().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_given_is_what_arrives() {
    let server = Backend::Sqlite.server().await;
    fixtures!(
        server,
        [
            changing::a_file_that_changes_while_it_is_sent,
            changing::without_a_checkpoint_a_change_is_noticed_as_well,
            changing::a_file_that_is_renamed_while_it_is_sent,
            changing::what_is_appended_to_a_file_that_is_sent_in_part,
            changing::a_folder_that_is_set_back_loses_nothing,
            changing::a_line_that_is_being_written_is_left_out_and_sent_whole,
            changing::a_line_that_was_not_sent_before_a_kill_is_sent_whole,
            changing::a_checkpoint_of_the_version_before,
            changing::what_cannot_be_read_twice_has_no_checkpoint,
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_run_for_several_receivers() {
    let server = Backend::Sqlite.server().await;
    fixtures!(
        server,
        [
            several::each_of_several_receivers_gets_everything,
            several::one_of_several_that_fails_leaves_the_others_alone,
            several::several_go_on_after_a_kill,
            several::what_is_sent_again_is_owed_to_each,
        ]
    );
}

use restarts::{
    a_server_that_does_not_come_back, a_server_that_is_killed_and_restarted_in_mid_stream,
    acks_that_nobody_confirms,
};

on_both_databases!(
    messages_and_keys,
    a_server_that_is_killed_and_restarted_in_mid_stream,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stayed_unacknowledged_is_listed() {
    a_server_that_does_not_come_back(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_and_not_confirmed_is_listed() {
    acks_that_nobody_confirms(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_benchmark_measures_a_server_of_its_own() {
    bench::a_server_of_its_own(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_benchmark_measures_a_running_server() {
    bench::a_running_server(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_the_benchmark_runs_again_on_the_same_database() {
    bench::a_server_of_its_own(Backend::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_takes_over_from_one_that_died_silently() {
    takeover::a_restarted_receiver_takes_over_at_once(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn competing_receivers_with_two_outputs() {
    competing::two_outputs_hold_everything_once(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_missing_are_told() {
    tokio::join!(
        gaps::messages_that_the_database_leaves_out_are_told(),
        gaps::a_missing_beginning_may_be_older_than_the_output(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_survive_another_database() {
    announcing::a_database_is_exchanged_and_comes_back(Backend::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keys_survive_another_database() {
    announcing::a_database_is_exchanged_and_comes_back(Backend::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_were_announced_elsewhere_or_at_another_time() {
    tokio::join!(
        announcing::another_machine_has_announced_later(),
        announcing::a_key_is_dated_in_the_future(),
        announcing::an_epoch_that_only_senders_know(),
        announcing::a_key_that_somebody_else_has_signed(),
        announcing::a_record_that_cannot_be_kept(),
        announcing::a_folder_that_others_have_locked(),
    );
}
