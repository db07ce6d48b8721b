//! `[limits]`: bounds on time, memory and disk. What is bounded here, no client can make the server
//! exceed.

use std::time::Duration;

use super::{
    Error,
    file::{self, Quantity, Setting},
    units,
    validate::Check,
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The longest prefetch that a consumer can have, whatever the configuration says.
const PREFETCH_CEILING: u64 = 65_535;

/// The limits in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The longest command line, in bytes without its line end. Bounds the size of a message and of
    /// a batch.
    pub max_line_bytes: usize,
    /// How long a connection that holds leases may be silent before they are taken back.
    pub redelivery_timeout: Duration,
    /// How long a publish waits for the store before it is answered with `storage_unavailable`.
    pub storage_wait: Duration,
    /// Free disk space, in bytes, below which publishes are refused so that acks keep working.
    pub disk_reserve: u64,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How many clients may be connected at once.
    pub max_connections: usize,
    /// The most bytes of unfinished and unprocessed lines, over all connections.
    pub max_buffered_bytes: usize,
    /// The most bytes of messages taken but not yet committed, over all connections.
    pub max_pending_bytes: usize,
    /// The most bytes of ready messages held in memory, over all queues.
    pub max_ready_bytes: usize,
    /// The largest prefetch that is granted; larger requests are cut to it.
    pub max_prefetch: u32,
    /// How long a clean shutdown may take.
    pub shutdown_timeout: Duration,
    /// How often a message is handed out without an ack before others go first.
    pub max_redeliveries: u32,
    /// How long the metadata of acknowledged messages is kept, and with it the memory of their ids.
    /// `None`: for ever.
    pub metadata_retention: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_line_bytes: 16 << 20,
            redelivery_timeout: Duration::from_secs(30),
            storage_wait: Duration::from_secs(8),
            disk_reserve: 64 * MIB,
            handshake_timeout: Duration::from_secs(10),
            max_connections: 10_000,
            max_buffered_bytes: 256 << 20,
            max_pending_bytes: 64 << 20,
            max_ready_bytes: 64 << 20,
            max_prefetch: 65_535,
            shutdown_timeout: Duration::from_secs(10),
            max_redeliveries: 10,
            metadata_retention: None,
        }
    }
}

/// Fills in defaults and checks ranges, then how the limits fit together.
pub(super) fn validate(section: &file::Limits, check: &Check<'_>) -> Result<Limits, Error> {
    let default = Limits::default();
    let millis = Duration::from_millis;
    let secs = Duration::from_secs;
    let time = |field, setting: &Option<_>, default, least, most| {
        check.duration(("limits", field), setting.as_ref(), default, least..=most)
    };
    let size = |field, setting: &Option<_>, default: usize, least, most| {
        let bytes = check.size(
            ("limits", field),
            setting.as_ref(),
            default as u64,
            least..=most,
        )?;
        fits(bytes, ("limits", field), setting, check)
    };
    let number = |field, setting: &Option<_>, default: u32, most| {
        let number = check.number(
            ("limits", field),
            setting.as_ref(),
            u64::from(default),
            1..=most,
        )?;
        fits(number, ("limits", field), setting, check)
    };

    let limits = Limits {
        max_line_bytes: size(
            "max_line_bytes",
            &section.max_line_bytes,
            default.max_line_bytes,
            KIB,
            256 * MIB,
        )?,
        redelivery_timeout: time(
            "redelivery_timeout",
            &section.redelivery_timeout,
            default.redelivery_timeout,
            millis(100),
            secs(86_400),
        )?,
        storage_wait: time(
            "storage_wait",
            &section.storage_wait,
            default.storage_wait,
            millis(100),
            secs(600),
        )?,
        disk_reserve: check.size(
            ("limits", "disk_reserve"),
            section.disk_reserve.as_ref(),
            default.disk_reserve,
            0..=1024 * GIB,
        )?,
        handshake_timeout: time(
            "handshake_timeout",
            &section.handshake_timeout,
            default.handshake_timeout,
            millis(100),
            secs(600),
        )?,
        max_connections: {
            let name = ("limits", "max_connections");
            let setting = &section.max_connections;
            let number = check.number(
                name,
                setting.as_ref(),
                default.max_connections as u64,
                1..=1_000_000,
            )?;
            fits(number, name, setting, check)?
        },
        max_buffered_bytes: size(
            "max_buffered_bytes",
            &section.max_buffered_bytes,
            default.max_buffered_bytes,
            KIB,
            1024 * GIB,
        )?,
        max_pending_bytes: size(
            "max_pending_bytes",
            &section.max_pending_bytes,
            default.max_pending_bytes,
            KIB,
            1024 * GIB,
        )?,
        max_ready_bytes: size(
            "max_ready_bytes",
            &section.max_ready_bytes,
            default.max_ready_bytes,
            KIB,
            1024 * GIB,
        )?,
        max_prefetch: number(
            "max_prefetch",
            &section.max_prefetch,
            default.max_prefetch,
            PREFETCH_CEILING,
        )?,
        shutdown_timeout: time(
            "shutdown_timeout",
            &section.shutdown_timeout,
            default.shutdown_timeout,
            Duration::ZERO,
            secs(3_600),
        )?,
        max_redeliveries: number(
            "max_redeliveries",
            &section.max_redeliveries,
            default.max_redeliveries,
            1_000_000,
        )?,
        metadata_retention: retention(section.metadata_retention.as_ref(), check)?,
    };

    // A budget that cannot hold one line would let that line wait for ever.
    for (field, setting, budget) in [
        (
            "max_buffered_bytes",
            &section.max_buffered_bytes,
            limits.max_buffered_bytes,
        ),
        (
            "max_pending_bytes",
            &section.max_pending_bytes,
            limits.max_pending_bytes,
        ),
        (
            "max_ready_bytes",
            &section.max_ready_bytes,
            limits.max_ready_bytes,
        ),
    ] {
        if budget < limits.max_line_bytes {
            // The blame is put on the setting that somebody made: a default is not a line to be
            // corrected.
            let (field, setting) = match setting {
                Some(_) => (field, setting),
                None => ("max_line_bytes", &section.max_line_bytes),
            };
            return Err(check.wrong(
                ("limits", field),
                setting.as_ref().map(|setting| &setting.place),
                format!(
                    "one line of max_line_bytes ({}) does not fit into the budget of {}",
                    units::show_size(limits.max_line_bytes as u64),
                    units::show_size(budget as u64)
                ),
                "Lower max_line_bytes, or raise max_buffered_bytes, max_pending_bytes and \
                 max_ready_bytes to it at least.",
            ));
        }
    }
    Ok(limits)
}

/// Narrows a number that has been checked against its range, for machines whose words are smaller
/// than it.
fn fits<T: TryFrom<u64>>(
    number: u64,
    name: (&'static str, &'static str),
    setting: &Option<Setting<Quantity>>,
    check: &Check<'_>,
) -> Result<T, Error> {
    T::try_from(number).map_err(|_| {
        let place = setting.as_ref().map(|setting| &setting.place);
        check.wrong(
            name,
            place,
            "it is too large for this machine",
            "Write a smaller number.",
        )
    })
}

/// `forever`, or a duration.
fn retention(
    setting: Option<&Setting<Quantity>>,
    check: &Check<'_>,
) -> Result<Option<Duration>, Error> {
    let is_forever = |setting: &Setting<Quantity>| {
        ["forever", "for ever"].contains(&setting.value.0.trim().to_ascii_lowercase().as_str())
    };
    match setting {
        None => Ok(None),
        Some(setting) if is_forever(setting) => Ok(None),
        // A retry that comes after its message's metadata is gone is stored as a new message. A
        // minute is longer than all retries of one publish together, as clients make them by
        // default: 3 of 10 seconds.
        Some(_) => {
            let (least, most) = (
                Duration::from_secs(60),
                Duration::from_secs(100 * 365 * 86_400),
            );
            check
                .duration(
                    ("limits", "metadata_retention"),
                    setting,
                    least,
                    least..=most,
                )
                .map(Some)
                .map_err(|error| match error {
                    Error::Setting {
                        origin,
                        section,
                        field,
                        problem,
                        advice,
                    } => Error::Setting {
                        origin,
                        section,
                        field,
                        problem,
                        advice: format!("{advice} Or write \"forever\"."),
                    },
                    other => other,
                })
        }
    }
}
