//! The client that is attacked: `ciphermq-cli bench`, in a separate process.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::round::Settings;
use crate::binaries::binary;
use crate::{Cli, Server, files};

/// The client id of the victim.
const CLIENT: &str = "victim";

/// The number of messages whose acknowledgements are timed, and the number of them per second.
const TIMED: (usize, u64) = (1500, 500);
const TIMED_SHORTLY: usize = 300;

/// The victim: its program, certificate and private key.
pub struct Victim {
    program: PathBuf,
    keys: TempDir,
    messages: u64,
    /// The number of messages whose acknowledgements are timed.
    timed: u64,
    limit: Duration,
}

/// The victim's measurements.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Messages per second, from the first one sent to the last one acknowledged by its receiver.
    pub rate: f64,
    /// The time until a publish is acknowledged, in milliseconds: the median and the 99th
    /// percentile.
    pub publish: [f64; 2],
    /// The errors of the measurements.
    pub errors: Vec<String>,
}

impl Victim {
    /// Makes the victim's key pair.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub fn new(settings: &Settings) -> Self {
        let keys = files::folder("victim");
        keygen::keys::run(&keygen::KeysArgs {
            out: keys.path().to_owned(),
            force: true,
            post_quantum: false,
        })
        .expect("a key pair can be made");
        Self {
            program: settings
                .cli
                .clone()
                .unwrap_or_else(|| binary("ciphermq-cli")),
            keys,
            messages: settings.messages,
            timed: settings.extent.of(TIMED.0, TIMED_SHORTLY) as u64,
            limit: settings.limit,
        }
    }

    /// Measures the rate, and then the latency of publishes.
    pub async fn measure(&self, server: &Server) -> Measured {
        let mut measured = Measured::default();
        match self.bench(server, self.messages, &[]).await {
            Ok(report) => measured.rate = number(&report["messages_per_second"]),
            Err((error, most)) => {
                measured.errors.push(error);
                measured.rate = most;
            }
        }
        let rate = format!("--rate={}", TIMED.1);
        match self
            .bench(server, self.timed, &["--mode=publish", &rate])
            .await
        {
            Ok(report) => {
                let latency = &report["latency_ms"];
                measured.publish = [number(&latency["p50"]), number(&latency["p99"])];
            }
            Err((error, _)) => {
                measured.errors.push(error);
                measured.publish = [f64::INFINITY; 2];
            }
        }
        measured
    }

    /// Runs the benchmark.
    ///
    /// # Errors
    ///
    /// The error, and the rate that was not reached: 0 if it is not known.
    async fn bench(
        &self,
        server: &Server,
        messages: u64,
        options: &[&str],
    ) -> Result<Value, (String, f64)> {
        let started = Instant::now();
        let mut process = Cli::program(&self.program)
            .arg("bench")
            .connecting(server, CLIENT)
            .arg("--private-key")
            .arg(self.keys.path().join("receiver_private.key"))
            .args(["--json", "--quiet", &format!("--messages={messages}")])
            .args(options)
            .spawn();
        let status = loop {
            if let Some(status) = process.try_ended() {
                break status;
            }
            if started.elapsed() > self.limit {
                process.kill().await;
                #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
                let most = messages as f64 / self.limit.as_secs_f64();
                return Err((format!("not done after {:?}", self.limit), most));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        // The output is complete after this.
        process.ended(self.limit).await;
        let error = || {
            let stderr = process.stderr.text();
            let error = stderr.rsplit("error: ").next().unwrap_or_default();
            (error.lines().next().unwrap_or_default().to_owned(), 0.0)
        };
        if !status.success() {
            return Err(error());
        }
        serde_json::from_str(&process.stdout.text()).map_err(|_| error())
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}
