//! The five older generations of clients that are in use, each emulated line by line.
//!
//! Their certificates are like the real ones: made with `openssl`, without extended key usage, and
//! those of clients without alternative names. Each receiver gets every message that its sender
//! publishes, once and byte for byte, and can read what `ciphermq-cli send` writes for it.

mod deployment;
mod from_cli;
mod generation_0;
mod generation_a;
mod generation_b;
mod generation_c;
mod generation_d;

use ciphermq_tests::{Backend, on_both_databases};
use deployment::Deployment;

macro_rules! generations {
    ($($test:ident: $part:path;)+) => {
        $(async fn $test(backend: Backend) {
            let deployment = Deployment::open(backend.options().await).await;
            $part(&deployment).await;
            deployment.close().await;
        })+
        on_both_databases!($($test),+);
    };
}

generations! {
    generation_0_publishes_batches: generation_0::exchange;
    generation_a_waits_for_each_ack: generation_a::exchange;
    generation_b_acks_from_a_task: generation_b::exchange;
    generation_b_ignores_duplicates: generation_b::duplicates;
    generation_c_pipelines: generation_c::exchange;
    generation_d_sends_heartbeats: generation_d::exchange;
    what_the_command_line_sends: from_cli::sent_in_each_form;
}
