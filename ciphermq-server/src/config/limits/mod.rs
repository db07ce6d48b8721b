//! The section `[limits]`: bounds on time, memory and disk that no client can exceed, and those of
//! each client.

use super::{Error, units, validator::Validator};
use crate::quota::Quotas;

mod client;
#[cfg(test)]
mod row;
mod table;

pub use client::ClientLimits;
pub(super) use client::ClientSection;
pub use table::Limits;
pub(super) use table::LimitsSection;

/// Fills in defaults, and checks each limit and the relations between them.
///
/// # Errors
///
/// [`Error::Setting`] for a limit out of its bounds, or a budget smaller than the longest line.
pub(super) fn validate(
    section: &LimitsSection,
    validator: &Validator<'_>,
) -> Result<Limits, Error> {
    let limits = section.within_bounds(validator)?;
    // A budget that cannot hold one line would let that line wait forever.
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
            // A default has no line to correct, so the error names a setting that is written.
            let (field, setting) = match setting {
                Some(_) => (field, setting),
                None => ("max_line_bytes", &section.max_line_bytes),
            };
            return Err(validator.invalid(
                ("limits", field),
                setting.as_ref().map(|setting| &setting.location),
                format!(
                    "one line of max_line_bytes ({}) does not fit into the budget of {}",
                    units::format_size(limits.max_line_bytes as u64),
                    units::format_size(budget as u64)
                ),
                "Lower max_line_bytes, or raise max_buffered_bytes, max_pending_bytes and \
                 max_ready_bytes to at least its value.",
            ));
        }
    }
    Ok(limits)
}

/// Checks the limits of clients: `[limits.client]` and `[[limits.clients]]`.
///
/// # Errors
///
/// [`Error::Setting`] for a limit out of its bounds, and for an entry that names no clients or sets
/// no limit.
pub(super) fn validate_quotas(
    section: &LimitsSection,
    limits: &Limits,
    validator: &Validator<'_>,
) -> Result<Quotas, Error> {
    let connections = limits.max_connections_per_client;
    client::validate(&section.client, &section.clients, connections, validator)
}
