//! Plots of the measurements of `scripts/measure`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use plotters::prelude::*;
use serde_json::Value;

use crate::summary::median;

/// Measured values by database, then by x.
type Lines = BTreeMap<String, BTreeMap<u64, Vec<f64>>>;

struct Series {
    name: &'static str,
    title: &'static str,
    x: &'static str,
}

const SERIES: [Series; 6] = [
    Series {
        name: "backlog",
        title: "Messages that wait in another queue",
        x: "messages waiting",
    },
    Series {
        name: "queues",
        title: "Queues",
        x: "idle queues",
    },
    Series {
        name: "connections",
        title: "Connections",
        x: "idle connections",
    },
    Series {
        name: "size",
        title: "Size of payloads",
        x: "bytes",
    },
    Series {
        name: "window",
        title: "Messages under way",
        x: "window",
    },
    Series {
        name: "pairs",
        title: "Pairs of a sender and a receiver",
        x: "pairs: senders times receivers, as many of one as of the other",
    },
];

/// CPU time per message in microseconds.
fn cost(run: &Value, seconds: &Value) -> Option<f64> {
    Some(seconds.as_f64()? * 1e6 / run["messages"].as_f64()?)
}

/// Draws one plot per series of which there are runs into a folder, from a file of JSON lines.
pub fn draw(measurements: &Path, folder: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(measurements)?;
    let runs: Vec<Value> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    for series in SERIES {
        let of_series = || runs.iter().filter(|run| run["series"] == series.name);
        if of_series().next().is_none() {
            continue;
        }
        let lines = |value: fn(&Value) -> Option<f64>| -> anyhow::Result<Lines> {
            let mut lines = Lines::new();
            for run in of_series() {
                let on = run["on"].as_str().context("a run without its database")?;
                let x = run["x"].as_u64().context("a run without its x")?;
                let y = value(run).with_context(|| format!("a run without a value: {run}"))?;
                lines
                    .entry(on.to_owned())
                    .or_default()
                    .entry(x)
                    .or_default()
                    .push(y);
            }
            Ok(lines)
        };
        let (y, value): (&str, fn(&Value) -> Option<f64>) = match series.name {
            "size" => ("MB of payloads a second", |run| {
                Some(run["payload_bytes_per_second"].as_f64()? / 1e6)
            }),
            "pairs" => ("CPU of the server, µs a message", |run| {
                cost(run, &run["server_cpu_seconds"])
            }),
            _ => ("messages a second", |run| {
                run["messages_per_second"].as_f64()
            }),
        };
        let mut drawn = lines(value)?;
        if series.name == "pairs" {
            // SQLite is a part of the server, PostgreSQL is not.
            let database = lines(|run| {
                let database = run["database_cpu_seconds"].as_f64().unwrap_or_default();
                let seconds = run["server_cpu_seconds"].as_f64()? + database;
                cost(run, &seconds.into())
            })?;
            let postgres = database.into_iter().filter(|(on, _)| on == "postgres");
            drawn.extend(postgres.map(|(on, line)| (format!("{on}, and the database's"), line)));
        }
        chart(
            &folder.join(format!("{}.svg", series.name)),
            &series,
            y,
            &drawn,
        )?;
        if series.name == "window" {
            let p50 = lines(|run| run["latency_ms"]["p50"].as_f64())?;
            chart(
                &folder.join("latency.svg"),
                &series,
                "p50 from publish to delivery, ms",
                &p50,
            )?;
        }
    }
    Ok(())
}

fn chart(path: &Path, series: &Series, y: &str, lines: &Lines) -> anyhow::Result<()> {
    let points = |line: &BTreeMap<u64, Vec<f64>>| -> Vec<(f64, f64)> {
        // A logarithmic axis has no 0, which is drawn at 1.
        line.iter()
            .map(|(&x, values)| (x.max(1) as f64, median(values)))
            .collect()
    };
    let all: Vec<(f64, f64)> = lines.values().flat_map(points).collect();
    let most =
        |pick: fn(&(f64, f64)) -> f64| all.iter().map(pick).fold(f64::MIN_POSITIVE, f64::max);
    let least = all
        .iter()
        .map(|point| point.0)
        .fold(f64::INFINITY, f64::min);
    let area = SVGBackend::new(path, (760, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(series.title, ("sans-serif", 22))
        .margin(14)
        .x_label_area_size(42)
        .y_label_area_size(76)
        .build_cartesian_2d(
            (least..most(|p| p.0) * 1.2).log_scale(),
            0.0..most(|p| p.1) * 1.15,
        )?;
    chart
        .configure_mesh()
        .x_desc(series.x)
        .y_desc(y)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| {
            if *y >= 10.0 {
                format!("{y:.0}")
            } else {
                format!("{y:.1}")
            }
        })
        .light_line_style(WHITE)
        .draw()?;
    for ((on, line), colour) in lines.iter().zip([BLUE, RED, GREEN]) {
        let points = points(line);
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)).point_size(3))?
            .label(on.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(BLACK)
        .position(SeriesLabelPosition::LowerLeft)
        .draw()?;
    area.present()?;
    Ok(())
}
