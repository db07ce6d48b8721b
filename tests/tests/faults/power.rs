//! Power failures: what was not synced is forgotten. Where programs cannot be traced,
//! `scripts/test` leaves these tests out, so that they count as skipped. Without `scripts/test`,
//! they fail and report the reason.
//!
//! To try more images: `cargo run -p ciphermq-tests --bin faults -- power --help`.

use ciphermq_tests::faults::power::{self, Scenario, SyncKind};
use ciphermq_tests::faults::tracing;

/// Syncs without which no promise is broken, and why they are made nevertheless.
const NOT_NEEDED: [(&str, &str); 4] = [
    // Logs are for people; nothing depends on them.
    ("server", "logs/"),
    // Whether the quarantine could be created is tried with a draft that is removed again.
    ("receive", "out/deep/.new-*"),
    // Each of the two syncs this name, as either may have created it: see `NEEDED_TOGETHER`.
    ("receive", "pins/"),
    ("send", "pins/"),
];

/// Syncs of which one is enough.
const NEEDED_TOGETHER: [(&str, &str); 2] = [("receive", "pins/"), ("send", "pins/")];

fn kind((program, what): (&str, &str)) -> SyncKind {
    SyncKind {
        program: program.to_owned(),
        what: what.to_owned(),
    }
}

fn require_tracing() {
    if let Err(reason) = tracing::allowed() {
        panic!("programs cannot be traced on this machine, so the test cannot run: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traced_programs_keep_their_promises_when_the_power_fails() {
    require_tracing();
    let seed = super::random::seed();
    let mut scenario = Scenario::new();
    let record = scenario.record().await;
    let images = record.check_all(power::losses(seed, 4));
    eprintln!("{images} images of {:?}", record.disk().sync_kinds());

    // The same record without one kind of sync must break a promise: each is needed, and the check
    // would notice if it were left out.
    let not_needed = NOT_NEEDED.map(kind);
    for made in record.disk().sync_kinds().into_keys() {
        if made.program != "user" && !not_needed.contains(&made) {
            assert!(
                record.is_broken_without(std::slice::from_ref(&made)),
                "{made:?} is not missed"
            );
        }
    }
    assert!(record.is_broken_without(&NEEDED_TOGETHER.map(kind)));

    scenario
        .restart_on_images(&record, record.moments(), seed, 12)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traced_programs_that_were_killed_rely_on_nothing_that_was_not_synced() {
    require_tracing();
    let seed = super::random::seed();
    let mut scenario = Scenario::new();
    let (record, kills) = scenario.record_interrupted().await;
    eprintln!("killed while syncing {kills:#?}");
    for folder in ["pins/", "sent/", "keys/"] {
        let is_name = |sync: &&String| sync.starts_with(folder) && !sync.contains(".new-");
        assert!(
            kills.iter().any(|sync| is_name(&sync)),
            "no kill left a file in {folder} whose name was not synced"
        );
    }
    let images = record.check_all(power::losses(seed, 2));
    eprintln!("{images} images");
    let while_repairing = record.moments_of_repair();
    scenario
        .restart_on_images(&record, while_repairing, seed, 6)
        .await;
}
