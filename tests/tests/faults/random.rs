//! Random faults. The seed is printed, and can be set: `CIPHERMQ_FAULT_SEED=7`.

use ciphermq_tests::Backend;
use ciphermq_tests::faults::Campaign;
use ciphermq_tests::faults::campaign::Settings;
use rand::RngExt as _;

/// Number of faults in a run of all tests. The program `faults` runs any number of them.
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
    let report = Campaign::start(backend, settings)
        .await
        .run()
        .await
        .expect_sound();
    eprintln!("{report}");
    // The faults must have had an effect on traffic.
    assert!(report.outcomes[0] > 1000, "{report}");
    assert!(report.connections > 10, "{report}");
}
