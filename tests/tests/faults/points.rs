//! Kills at exact system calls. Where programs cannot be traced, `scripts/test` leaves these tests
//! out, so that they count as skipped. Without `scripts/test`, they fail and report the reason.

use std::time::Duration;

use ciphermq_tests::faults::points::{self, Points};
use ciphermq_tests::faults::tracing;

/// Every `stride`-th call, starting with a random one, so that several runs together reach all.
fn some(stride: u32, seconds: u64) -> Points {
    let first = 1 + u32::try_from(super::random::seed() % u64::from(stride)).unwrap();
    Points {
        first,
        stride,
        time: Duration::from_secs(seconds),
    }
}

fn require_tracing() {
    if let Err(reason) = tracing::allowed() {
        panic!("programs cannot be traced on this machine, so the test cannot run: {reason}");
    }
}

async fn server(calls: &str, points: Points) {
    require_tracing();
    let report = points::server(calls, points).await;
    eprintln!("{report}");
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.last > 0, "nothing was killed: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn traced_server_killed_at_its_syncs() {
    server(points::SERVER_CALLS[0], some(7, 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traced_server_killed_at_its_writes_to_the_database() {
    server(points::SERVER_CALLS[1], some(23, 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traced_receiver_killed_at_its_syncs_and_writes() {
    require_tracing();
    for (calls, stride) in points::RECEIVER_CALLS.into_iter().zip([1, 4]) {
        let report = points::receiver(calls, some(stride, 15)).await;
        eprintln!("{report}");
        assert!(report.violations.is_empty(), "{report}");
        assert!(report.last > 0, "nothing was killed: {report}");
    }
}
