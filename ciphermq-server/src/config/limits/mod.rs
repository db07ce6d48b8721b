//! `[limits]`: bounds on time, memory and disk, which no client can make the server exceed.

use super::{Error, units, validate::Check};

#[cfg(test)]
mod row;
mod table;

pub use table::Limits;
pub(super) use table::LimitsSection;

/// Fills in defaults and checks each limit, then how they fit together.
pub(super) fn validate(section: &LimitsSection, check: &Check<'_>) -> Result<Limits, Error> {
    let limits = section.within_bounds(check)?;
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
            // A default is not a line that can be corrected, so the error names a setting that
            // somebody made.
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
