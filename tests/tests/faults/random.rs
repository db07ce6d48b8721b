//! Random faults, by a seed that is printed and can be given: `CIPHERMQ_FAULT_SEED=7`.

use ciphermq_tests::Backend;
use ciphermq_tests::faults::Campaign;
use ciphermq_tests::faults::campaign::Settings;
use rand::RngExt as _;

/// How many faults there are in a run of all tests; by hand there may be any number.
const CYCLES: u32 = 16;

pub(super) fn seed() -> u64 {
    let seed = match std::env::var("CIPHERMQ_FAULT_SEED") {
        Ok(seed) => seed.parse().expect("CIPHERMQ_FAULT_SEED is a number"),
        Err(_) => rand::rng().random(),
    };
    eprintln!("CIPHERMQ_FAULT_SEED={seed}");
    seed
}

pub(super) async fn random_faults_heavy(backend: Backend) {
    let settings = Settings {
        is_verbose: true,
        ..Settings::new(seed(), CYCLES)
    };
    let report = Campaign::start(backend, settings).await.run().await.sound();
    eprintln!("{report}");
    // Nothing is shown by faults that befall nobody.
    assert!(report.outcomes[0] > 1000, "{report}");
    assert!(report.connections > 10, "{report}");
}
