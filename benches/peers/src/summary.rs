//! Medians and ratios of a series of runs, with a table for each case.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// The systems that the others are compared with, and their columns.
const OURS: [(&str, &str); 2] = [
    ("ciphermq-sqlite", "SQLite /"),
    ("ciphermq-postgres", "PostgreSQL /"),
];

/// What is measured: a shape, a size and a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    senders: u64,
    receivers: u64,
    size: u64,
    window: u64,
}

/// The runs of one system in one case.
#[derive(Default)]
struct Runs {
    rates: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    /// CPU time per message in microseconds, of the server, and of all programs together. Empty if
    /// it is not known.
    server: Vec<f64>,
    all: Vec<f64>,
    errors: Vec<String>,
}

/// Prints the tables of the runs in a file of JSON lines.
pub fn print(path: &Path) -> anyhow::Result<()> {
    print!("{}", tables(&std::fs::read_to_string(path)?)?);
    Ok(())
}

fn tables(text: &str) -> anyhow::Result<String> {
    let mut cases: BTreeMap<Case, (u64, BTreeMap<String, Runs>)> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let run: Value = serde_json::from_str(line).with_context(|| format!("{line:?}"))?;
        let system = run["system"].as_str().context("a run without its system")?;
        let messages = run["messages"]
            .as_u64()
            .context("a run without its messages")?;
        let (at_most, systems) = cases.entry(Case::of(&run)?).or_default();
        *at_most = messages.max(*at_most);
        systems.entry(system.to_owned()).or_default().add(&run)?;
    }
    let mut tables = String::new();
    for (case, (messages, systems)) in &cases {
        case.write(&mut tables, *messages, systems)?;
    }
    Ok(tables)
}

impl Case {
    fn of(run: &Value) -> anyhow::Result<Self> {
        let number = |name: &str| {
            let value = run[name].as_u64();
            value.with_context(|| format!("a run without its {name}"))
        };
        Ok(Self {
            // The first reports of other brokers had one of each, and did not say so.
            senders: run["senders"].as_u64().unwrap_or(1),
            receivers: run["receivers"].as_u64().unwrap_or(1),
            size: number("size")?,
            window: number("window")?,
        })
    }

    fn write(
        self,
        table: &mut String,
        messages: u64,
        systems: &BTreeMap<String, Runs>,
    ) -> std::fmt::Result {
        let Self {
            senders,
            receivers,
            size,
            window,
        } = self;
        writeln!(
            table,
            "{senders} → {receivers}, {size} bytes, a window of {window} for each sender, \
             {messages} messages:\n"
        )?;
        let header = [
            "system",
            "runs",
            "messages/s",
            "from ... to",
            "p50 ms",
            "p99 ms",
            "server's CPU, µs a message",
            "all programs' CPU",
        ];
        let ratios = OURS.map(|(_, column)| column);
        row(
            table,
            &header.map(str::to_owned),
            &ratios.map(str::to_owned),
        )?;
        writeln!(table, "|{}", "---|".repeat(header.len() + ratios.len()))?;
        for (system, runs) in systems {
            let ratios = OURS.map(|(ours, _)| match systems.get(ours) {
                Some(our_runs) if ours != system => digits(our_runs.rate() / runs.rate(), 2),
                _ => String::new(),
            });
            row(table, &runs.cells(system), &ratios)?;
        }
        for (system, runs) in systems {
            if let Some(error) = runs.errors.first() {
                let (failed, all) = (runs.errors.len(), runs.errors.len() + runs.rates.len());
                writeln!(
                    table,
                    "\n{system} FAILED in {failed} of {all} runs: {error}"
                )?;
            }
        }
        writeln!(table)
    }
}

impl Runs {
    fn add(&mut self, run: &Value) -> anyhow::Result<()> {
        if let Some(error) = run["error"].as_str() {
            self.errors.push(error.to_owned());
            return Ok(());
        }
        let number = |value: &Value, what: &str| {
            let number = value.as_f64();
            number.with_context(|| format!("a run without its {what}"))
        };
        self.rates
            .push(number(&run["messages_per_second"], "rate")?);
        self.p50.push(number(&run["latency_ms"]["p50"], "latency")?);
        self.p99.push(number(&run["latency_ms"]["p99"], "latency")?);
        let per_message = 1e6 / number(&run["messages"], "messages")?;
        let server = run["server_cpu_seconds"].as_f64();
        // SQLite is a part of the server, and so is what other brokers store in.
        let database = match run["database"].as_str() {
            Some("postgres") => run["database_cpu_seconds"].as_f64(),
            _ => Some(0.0),
        };
        let client = run["client_cpu_seconds"].as_f64();
        self.server.extend(server.map(|cpu| cpu * per_message));
        if let (Some(server), Some(database), Some(client)) = (server, database, client) {
            self.all.push((server + database + client) * per_message);
        }
        Ok(())
    }

    fn rate(&self) -> f64 {
        median(&self.rates)
    }

    fn cells(&self, system: &str) -> [String; 8] {
        let (least, most) = ends(&self.rates);
        [
            system.to_owned(),
            self.rates.len().to_string(),
            digits(self.rate(), 0),
            match self.rates.is_empty() {
                true => String::new(),
                false => format!("{least:.0} ... {most:.0}"),
            },
            digits(median(&self.p50), 3),
            digits(median(&self.p99), 3),
            digits(median(&self.server), 1),
            digits(median(&self.all), 1),
        ]
    }
}

fn row(table: &mut String, cells: &[String], ratios: &[String]) -> std::fmt::Result {
    let cells: Vec<&str> = cells.iter().chain(ratios).map(String::as_str).collect();
    writeln!(table, "| {} |", cells.join(" | "))
}

/// A number with this many digits after its point; nothing if it is unknown.
fn digits(number: f64, digits: usize) -> String {
    match number.is_nan() {
        true => String::new(),
        false => format!("{number:.digits$}"),
    }
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

    fn line(system: &str, case: &str, rest: &str) -> String {
        format!(r#"{{"system":"{system}","messages":1000,"size":256,{case},{rest}}}"#)
    }

    fn run(system: &str, case: &str, rate: f64, cpu: &str) -> String {
        let latency = r#""latency_ms":{"p50":0.25,"p99":0.5}"#;
        let rest = format!(
            r#""messages_per_second":{rate},{latency},"server_cpu_seconds":{cpu},"client_cpu_seconds":0.001"#
        );
        line(system, case, &rest)
    }

    const ONE: &str = r#""window":1000"#;
    const MANY: &str = r#""window":1,"senders":64,"receivers":64"#;

    #[test]
    fn prints_medians_and_ratios_for_each_case() {
        let database = r#","database":"postgres","database_cpu_seconds":0.003}"#;
        let with_postgres = run("ciphermq-postgres", ONE, 50.0, "0.001");
        let with_postgres = format!("{}{database}", with_postgres.trim_end_matches('}'));
        let runs = [
            run("redis", ONE, 100.0, "null"),
            run("ciphermq-sqlite", ONE, 300.0, "0.002"),
            run("ciphermq-sqlite", ONE, 200.0, "0.004"),
            run("ciphermq-sqlite", ONE, 900.0, "0.001"),
            with_postgres,
            run("ciphermq-sqlite", MANY, 7.0, "0.001"),
            line("redis", MANY, r#""error":"too many""#),
        ];
        let tables = tables(&runs.join("\n")).unwrap();
        let has = |text: &str| assert!(tables.contains(text), "{text} is not in\n{tables}");
        has(
            "1 → 1, 256 bytes, a window of 1000 for each sender, 1000 messages:\n\n| system | runs",
        );
        has(
            "\n| ciphermq-sqlite | 3 | 300 | 200 ... 900 | 0.250 | 0.500 | 2.0 | 3.0 |  | 0.17 |\n",
        );
        has("\n| ciphermq-postgres | 1 | 50 | 50 ... 50 | 0.250 | 0.500 | 1.0 | 5.0 | 6.00 |  |\n");
        has("\n| redis | 1 | 100 | 100 ... 100 | 0.250 | 0.500 |  |  | 3.00 | 0.50 |\n");
        has("64 → 64, 256 bytes, a window of 1 for each sender");
        has("\n| redis | 0 |  |  |  |  |  |  |  |  |\n\nredis FAILED in 1 of 1 runs: too many\n");
    }

    #[test]
    fn a_run_without_its_figures_is_refused() {
        assert!(tables(r#"{"system":"redis","window":1}"#).is_err());
        assert!(tables(&line("redis", ONE, r#""x":1"#)).is_err());
        assert!(tables("no json").is_err());
    }

    #[test]
    fn the_median_of_an_even_number_of_values_is_between_two() {
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
