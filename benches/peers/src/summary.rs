//! Medians and ratios of many runs.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// The runs of a system, with one window.
#[derive(Default)]
struct Runs {
    rates: Vec<f64>,
    p50: Vec<f64>,
}

/// Prints a table of the runs in a file of JSON lines.
pub fn print(path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let mut systems: BTreeMap<String, BTreeMap<u64, Runs>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let run: Value = serde_json::from_str(line).with_context(|| format!("{line:?}"))?;
        let system = run["system"].as_str().context("a run without its system")?;
        let window = run["window"].as_u64().context("a run without its window")?;
        let runs = systems
            .entry(system.to_owned())
            .or_default()
            .entry(window)
            .or_default();
        runs.rates.push(
            run["messages_per_second"]
                .as_f64()
                .context("a run without its rate")?,
        );
        runs.p50.push(
            run["latency_ms"]["p50"]
                .as_f64()
                .context("a run without its latency")?,
        );
    }
    println!(
        "{:<18} {:>7} {:>5} {:>12} {:>25} {:>10}",
        "system", "window", "runs", "messages/s", "from ... to", "p50 ms"
    );
    for (system, windows) in &systems {
        for (window, runs) in windows {
            let (least, most) = ends(&runs.rates);
            println!(
                "{system:<18} {window:>7} {:>5} {:>12.0} {:>25} {:>10.3}",
                runs.rates.len(),
                median(&runs.rates),
                format!("{least:.0} ... {most:.0}"),
                median(&runs.p50),
            );
        }
    }
    let rate = |system: &str| {
        let windows = systems.get(system)?;
        let (_, runs) = windows.iter().max_by_key(|(window, _)| **window)?;
        Some(median(&runs.rates))
    };
    println!();
    for (ours, others) in [
        ("ciphermq-sqlite", ["nats", "nats-workqueue", "redis"]),
        (
            "ciphermq-postgres",
            ["rabbitmq-quorum", "rabbitmq-classic", "nats"],
        ),
    ] {
        for other in others {
            if let (Some(our_rate), Some(rate)) = (rate(ours), rate(other)) {
                println!(
                    "{ours} / {other}: {:.2} ({our_rate:.0} / {rate:.0})",
                    our_rate / rate
                );
            }
        }
    }
    Ok(())
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (
        sorted.get(sorted.len() / 2),
        sorted.get((sorted.len().max(1) - 1) / 2),
    ) {
        (Some(high), Some(low)) => (high + low) / 2.0,
        _ => f64::NAN,
    }
}

fn ends(values: &[f64]) -> (f64, f64) {
    let fold = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).unwrap_or(f64::NAN);
    (fold(f64::min), fold(f64::max))
}
