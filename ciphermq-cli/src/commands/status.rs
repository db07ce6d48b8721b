//! `status`: shows the server, the limits in force, when its certificates end, and this client's
//! connection.

use std::time::Duration;

use ciphermq_client::{
    CertificateEnd, CertificateRole, Connection, EndInfo, RequestErrorKind, RevocationList,
    Timestamp,
};
use serde_json::json;

use crate::connection::{ConnectionArgs, Identity};
use crate::console::table::Table;
use crate::exit::{Exit, Failure};
use crate::output::stdout;

/// Show the server, the limits in force, when its certificates end, and this client's connection
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The number of pings that are measured.
const PINGS: usize = 11;

pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let client = args.connection.connect(Identity::Sender).await?;
    let mut times = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        times.push(client.ping().await?);
    }
    let server = match client.ends().await {
        Ok(ends) => Some(ends),
        // An older server does not say.
        Err(error) if error.kind() == RequestErrorKind::Unsupported => None,
        Err(error) => return Err(error.into()),
    };
    let connection = client.connection();
    let ends = Ends {
        own: client
            .certificate_ends()
            .into_iter()
            .filter(|end| end.role != CertificateRole::RevocationList)
            .collect(),
        lists: client.lists_in_force(),
        server,
    };
    client.close().await;
    if args.json {
        stdout::print(json_of(&connection, &mut times, &ends))?;
    } else {
        let mut table = table_of(&connection, &mut times);
        for (name, value) in ends.rows(Timestamp::now()) {
            table.row(name, value);
        }
        table.print()?;
    }
    Ok(Exit::Done)
}

fn table_of(connection: &Connection, times: &mut [Duration]) -> Table {
    let server = &connection.server;
    let limits = &server.limits;
    let seconds = |milliseconds| Duration::from_millis(milliseconds).as_secs_f64();
    let (least, median) = least_and_median(times);
    let mut table = Table::new(14);
    table.row(
        "server",
        format_args!(
            "{} {}, protocol {}",
            server.server, server.version, server.protocol
        ),
    );
    table.row("address", &connection.address);
    table.row("client id", &server.client_id);
    table.row(
        "tls",
        format_args!(
            "{}, {}, key exchange {}",
            connection.tls_version, connection.cipher_suite, connection.key_exchange
        ),
    );
    table.row(
        "longest line",
        format_args!("{} bytes", limits.max_line_bytes),
    );
    table.row("prefetch", format_args!("{} at most", limits.max_prefetch));
    table.row(
        "redelivery",
        format_args!(
            "after {} s of silence",
            seconds(limits.redelivery_timeout_ms)
        ),
    );
    table.row(
        "storage wait",
        format_args!("{} s", seconds(limits.storage_wait_ms)),
    );
    table.row(
        "round trip",
        format_args!(
            "{:.3} ms at least, {:.3} ms median of {}",
            milliseconds(least),
            milliseconds(median),
            times.len()
        ),
    );
    table
}

/// What ends, and what is revoked.
struct Ends {
    /// The certificates of this client and its authorities.
    own: Vec<CertificateEnd>,
    /// The revocation lists in force here.
    lists: Vec<RevocationList>,
    /// What the server says of its own; `None` if it is too old to say.
    server: Option<Vec<EndInfo>>,
}

impl Ends {
    /// Returns the rows of the table: a name and a text each.
    fn rows(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        for end in &self.own {
            let (subject, at) = (&end.validity.subject, end.validity.not_after);
            let text = format!("{subject} {} at {at}", verb(at, now));
            rows.push((role_text(end.role), text));
        }
        for list in &self.lists {
            rows.push(("revoked", list_text(list)));
        }
        for end in self.server.iter().flatten() {
            rows.push(row_of_server(end, now));
        }
        rows
    }
}

fn role_text(role: CertificateRole) -> &'static str {
    match role {
        CertificateRole::Own => "certificate",
        CertificateRole::Intermediate => "intermediate",
        _ => "authority",
    }
}

fn verb(at: Timestamp, now: Timestamp) -> &'static str {
    if at < now { "ended" } else { "ends" }
}

/// Describes a revocation list and its age.
pub(super) fn list_text(list: &RevocationList) -> String {
    let validity = list.validity();
    format!(
        "by list {} of {}, made at {}, the next one by {}",
        list.number(),
        validity.subject,
        validity.not_before,
        validity.not_after
    )
}

/// Returns the row of a certificate or a revocation list of the server.
fn row_of_server(end: &EndInfo, now: Timestamp) -> (&'static str, String) {
    let name = match end.kind.as_str() {
        "certificate" => "server cert",
        "intermediate" => "server chain",
        "authority" => "server trusts",
        "revocation_list" => "server list",
        _ => "server other",
    };
    let EndInfo {
        subject, not_after, ..
    } = end;
    let at = not_after.parse().unwrap_or(Timestamp::MAX);
    (name, format!("{subject} {} at {not_after}", verb(at, now)))
}

/// The JSON object that docs/cli.md describes, on one line.
fn json_of(connection: &Connection, times: &mut [Duration], ends: &Ends) -> String {
    let server = &connection.server;
    let (least, median) = least_and_median(times);
    let object = json!({
        "server": { "name": server.server, "version": server.version, "protocol": server.protocol },
        "address": connection.address,
        "client_id": server.client_id,
        "tls": {
            "version": connection.tls_version,
            "cipher_suite": connection.cipher_suite,
            "key_exchange": connection.key_exchange,
        },
        "certificates": ends.own.iter().map(|end| json!({
            "role": role_text(end.role),
            "subject": end.validity.subject,
            "not_after": end.validity.not_after.to_string(),
        })).collect::<Vec<_>>(),
        "revocation_lists": ends.lists.iter().map(|list| json!({
            "issuer": list.validity().subject,
            "number": list.number().to_string(),
            "made_at": list.validity().not_before.to_string(),
            "next_by": list.validity().not_after.to_string(),
        })).collect::<Vec<_>>(),
        "limits": server.limits,
        "ends": ends.server,
        "round_trip_ms": { "min": milliseconds(least), "median": milliseconds(median), "pings": times.len() },
    });
    format!("{object}\n")
}

/// Converts to milliseconds, rounded to the microsecond, because smaller differences are noise.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn least_and_median(times: &mut [Duration]) -> (Duration, Duration) {
    times.sort_unstable();
    let least = times.first().copied().unwrap_or_default();
    (least, times.get(times.len() / 2).copied().unwrap_or(least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_written_to_the_microsecond() {
        let text = |nanoseconds| json!(milliseconds(Duration::from_nanos(nanoseconds))).to_string();
        assert_eq!(text(123_456), "0.123");
        assert_eq!(text(4_100_500), "4.101");
        assert_eq!(text(70_000_000), "70.0");
    }

    #[test]
    fn what_has_ended_is_said() {
        let end = EndInfo {
            kind: "authority".into(),
            subject: "CN=a".into(),
            not_before: "2025-01-01T00:00:00Z".into(),
            not_after: "2026-01-01T00:00:00Z".into(),
        };
        let text = |now: &str| row_of_server(&end, now.parse().unwrap()).1;
        assert_eq!(
            text("2026-01-01T00:00:00Z"),
            "CN=a ends at 2026-01-01T00:00:00Z"
        );
        assert_eq!(
            text("2026-01-01T00:00:01Z"),
            "CN=a ended at 2026-01-01T00:00:00Z"
        );
    }

    #[test]
    fn the_median_is_the_middle_one() {
        let mut times = [5, 1, 9].map(Duration::from_millis);
        assert_eq!(
            least_and_median(&mut times),
            (Duration::from_millis(1), Duration::from_millis(5))
        );
        assert_eq!(least_and_median(&mut []), (Duration::ZERO, Duration::ZERO));
    }
}
