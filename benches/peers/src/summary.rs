//! Medians and ratios of a series of runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// The runs of one system with one window.
#[derive(Default)]
struct Runs {
    rates: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// CPU time of the server per message, in microseconds. Empty if it is not known.
    server: Vec<f64>,
}

/// Prints a table of the runs in a file of JSON lines.
pub fn print(path: &Path) -> anyhow::Result<()> {
    print!("{}", table(&std::fs::read_to_string(path)?)?);
    Ok(())
}

fn table(text: &str) -> anyhow::Result<String> {
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
        runs.p99.push(
            run["latency_ms"]["p99"]
                .as_f64()
                .context("a run without its latency")?,
        );
        let messages = run["messages"]
            .as_f64()
            .context("a run without its messages")?;
        let cpu = run["server_cpu_seconds"].as_f64();
        runs.server
            .extend(cpu.map(|seconds| seconds * 1e6 / messages));
    }
    let mut table = String::new();
    writeln!(
        table,
        "{:<21} {:>7} {:>5} {:>12} {:>20} {:>9} {:>9} {:>14}",
        "system",
        "window",
        "runs",
        "messages/s",
        "from ... to",
        "p50 ms",
        "p99 ms",
        "server CPU µs"
    )?;
    for (system, windows) in &systems {
        for (window, runs) in windows {
            let (least, most) = ends(&runs.rates);
            let server = match runs.server.is_empty() {
                true => "unknown".to_owned(),
                false => format!("{:.1}", median(&runs.server)),
            };
            writeln!(
                table,
                "{system:<21} {window:>7} {:>5} {:>12.0} {:>20} {:>9.3} {:>9.3} {server:>14}",
                runs.rates.len(),
                median(&runs.rates),
                format!("{least:.0} ... {most:.0}"),
                median(&runs.p50),
                median(&runs.p99),
            )?;
        }
    }
    let rate = |system: &str| {
        let windows = systems.get(system)?;
        let (_, runs) = windows.iter().max_by_key(|(window, _)| **window)?;
        Some(median(&runs.rates))
    };
    writeln!(table)?;
    let comparisons: [(&str, &[&str]); 2] = [
        (
            "ciphermq-sqlite",
            &["nats", "nats-workqueue", "nats-workqueue-synced", "redis"],
        ),
        (
            "ciphermq-postgres",
            &["rabbitmq-quorum", "rabbitmq-classic", "nats"],
        ),
    ];
    for (ours, others) in comparisons {
        for other in others {
            if let (Some(our_rate), Some(rate)) = (rate(ours), rate(other)) {
                writeln!(
                    table,
                    "{ours} / {other}: {:.2} ({our_rate:.0} / {rate:.0})",
                    our_rate / rate
                )?;
            }
        }
    }
    Ok(table)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(system: &str, window: u32, rate: f64, cpu: &str) -> String {
        format!(
            r#"{{"system":"{system}","window":{window},"messages":1000,"messages_per_second":{rate},"latency_ms":{{"p50":0.25,"p99":0.5}},"server_cpu_seconds":{cpu}}}"#
        )
    }

    #[test]
    fn prints_medians_and_ratios() {
        let runs = [
            line("redis", 1000, 100.0, "null"),
            line("ciphermq-sqlite", 1000, 300.0, "0.002"),
            line("ciphermq-sqlite", 1000, 200.0, "0.004"),
            line("ciphermq-sqlite", 1000, 900.0, "0.001"),
            line("redis", 1, 7.0, "null"),
        ];
        let table = table(&runs.join("\n")).unwrap();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .skip(1)
            .map(|row| row.split_whitespace().collect())
            .collect();
        assert_eq!(
            rows,
            [
                &[
                    "ciphermq-sqlite",
                    "1000",
                    "3",
                    "300",
                    "200",
                    "...",
                    "900",
                    "0.250",
                    "0.500",
                    "2.0"
                ][..],
                &[
                    "redis", "1", "1", "7", "7", "...", "7", "0.250", "0.500", "unknown"
                ],
                &[
                    "redis", "1000", "1", "100", "100", "...", "100", "0.250", "0.500", "unknown"
                ],
                &[],
                &[
                    "ciphermq-sqlite",
                    "/",
                    "redis:",
                    "3.00",
                    "(300",
                    "/",
                    "100)"
                ],
            ]
        );
    }

    #[test]
    fn a_run_without_its_figures_is_refused() {
        assert!(table(r#"{"system":"redis","window":1}"#).is_err());
        assert!(table("no json").is_err());
    }

    #[test]
    fn the_median_of_an_even_number_of_values_is_between_two() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
