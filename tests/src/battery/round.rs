//! One attack in three phases: the victim undisturbed, under attack, and afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ciphermq_server::config::ClientLimits;

use super::attack::{Attack, Extent};
use super::attacker::Attacker;
use super::figures::{Figures, Phase};
use super::probe::probe;
use super::target::TargetArgs;
use super::victim::Victim;
use crate::{Backend, Server};

/// The number of connections that a server admits when idle ones attack it.
pub const SMALL_LIMIT: usize = 500;

/// The bytes of rejected messages that an attacker may have in a short course. In a long one it is
/// the default.
const SMALL_REJECTED: u64 = 1 << 20;

/// The bytes of messages that an attacker has on their way, and may still reject, when it has
/// reached its quota.
const REJECTED_MARGIN: u64 = 16 << 20;

/// The time that the server has to recover after the attack. A short one leaves less behind.
const RECOVERY: Duration = Duration::from_secs(5);
const SHORT_RECOVERY: Duration = Duration::from_secs(1);

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server's program; `None` for the built one.
    pub server: Option<PathBuf>,
    /// The victim's program; `None` for the built one.
    pub cli: Option<PathBuf>,
    /// The number of messages with which the victim measures its rate.
    pub messages: u64,
    /// The time limit of each of the victim's measurements.
    pub limit: Duration,
    /// The extent of the attacks.
    pub extent: Extent,
}

impl Settings {
    /// Creates the settings of a test.
    pub fn short() -> Self {
        Self {
            server: None,
            cli: None,
            messages: 2000,
            limit: Duration::from_secs(60),
            extent: Extent::Short,
        }
    }
}

/// Makes these attacks simultaneously on a new server, with a process for each.
///
/// # Panics
///
/// If a program has not been built, or the server does not start.
pub async fn run(backend: &Backend, attacks: &[Attack], settings: &Settings) -> Figures {
    let mut options = backend.options().await;
    if let Some(program) = &settings.server {
        options = options.program(program);
    }
    if attacks.contains(&Attack::IdleConnections) {
        let limit = i64::try_from(SMALL_LIMIT).unwrap_or(i64::MAX);
        options = options.set("limits", "max_connections", limit);
    }
    let mut max_rejected = ClientLimits::default().rejected_bytes;
    if attacks.contains(&Attack::OwnRejections) && settings.extent == Extent::Short {
        max_rejected = SMALL_REJECTED;
        let mut entry = toml::Table::new();
        entry.insert("clients".to_owned(), vec!["attacker-*"].into());
        entry.insert(
            "rejected_bytes".to_owned(),
            format!("{SMALL_REJECTED}").into(),
        );
        options = options.set("limits", "clients", vec![entry]);
    }
    let server = Server::start(options).await;
    let victim = Victim::new(settings);
    let before = phase(&server, &victim).await;

    let mut late_attackers = Vec::new();
    let mut attackers = Vec::new();
    for attack in attacks {
        let client = format!("attacker-{}", attack.name());
        let target = TargetArgs::new(&server, &client, settings.extent);
        let attacker = Attacker::start(*attack, &target).await;
        if !attacker.is_under_way {
            late_attackers.push(format!("{} was not under way in time", attack.name()));
        }
        attackers.push(attacker);
    }
    let under_attack = phase(&server, &victim).await;
    for attacker in attackers {
        attacker.end().await;
    }
    tokio::time::sleep(match settings.extent {
        Extent::Full => RECOVERY,
        Extent::Short => SHORT_RECOVERY,
    })
    .await;
    let after = phase(&server, &victim).await;
    let rejected = "SELECT COALESCE(SUM(length(envelope)), 0) FROM rejected_messages";
    let database = server.database().await;
    let rejected = database.number(rejected).await;
    let accepted = "SELECT CAST(COALESCE(SUM(messages), 0) AS BIGINT) FROM batches \
                    WHERE client_id LIKE 'attacker-%'";
    let accepted = database.number(accepted).await;
    let names: Vec<String> = attacks.iter().map(|attack| attack.name()).collect();
    let kind = if backend.is_postgres() {
        "postgres"
    } else {
        "sqlite"
    };
    let name = match names.as_slice() {
        [] => "none".to_owned(),
        [name] => name.clone(),
        names => format!("{} at once", names.len()),
    };
    Figures {
        name: format!("{kind} {name}"),
        before,
        under_attack,
        after,
        memory: server.process().peak_rss_bytes(),
        late_attackers,
        accepted: u64::try_from(accepted).unwrap_or_default(),
        rejected: u64::try_from(rejected).unwrap_or_default(),
        max_rejected: attacks.len() as u64 * (max_rejected + REJECTED_MARGIN),
    }
}

async fn phase(server: &Server, victim: &Victim) -> Phase {
    let sizes = || ["logs", "data"].map(|folder| size(&server.folder().join(folder)));
    let [logs, data] = sizes();
    let measured = victim.measure(server).await;
    let probed = probe(server).await;
    let [logs_after, data_after] = sizes();
    Phase {
        victim: measured,
        probe: probed,
        logs: logs_after.saturating_sub(logs),
        data: data_after.saturating_sub(data),
    }
}

/// Returns the total size of the files in a folder, in bytes.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}
