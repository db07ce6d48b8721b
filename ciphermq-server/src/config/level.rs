//! `[logging] level`: one level, or what older servers took there, a filter by modules.

use tracing::Level;

/// A level, and whether it was picked out of a filter.
pub(super) struct Picked {
    pub(super) level: Level,
    pub(super) of_filter: bool,
}

/// Reads a level, or the most talkative one of a filter such as `info,ciphermq=debug`.
pub(super) fn read(text: &str) -> Option<Picked> {
    if let Some(level) = word(text) {
        return Some(Picked {
            level,
            of_filter: false,
        });
    }
    // What follows a slash was once an expression that lines must match.
    let filter = text.split('/').next().unwrap_or_default();
    let mut most = None;
    for directive in filter
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let level = match directive.rsplit_once('=') {
            Some((_, level)) => Some(in_filter(level.trim().trim_end_matches(['}', ']', '"']))?),
            // A module alone; it says no level.
            None => in_filter(directive),
        };
        most = most.max(level);
    }
    Some(Picked {
        level: most?,
        of_filter: true,
    })
}

fn word(text: &str) -> Option<Level> {
    Some(match text {
        "error" => Level::ERROR,
        "warn" | "warning" => Level::WARN,
        "info" => Level::INFO,
        "debug" => Level::DEBUG,
        "trace" => Level::TRACE,
        _ => return None,
    })
}

/// Filters know numbers and `off`, too: as little as there is here.
fn in_filter(text: &str) -> Option<Level> {
    Some(match text {
        "off" | "0" | "1" => Level::ERROR,
        "2" => Level::WARN,
        "3" => Level::INFO,
        "4" => Level::DEBUG,
        "5" => Level::TRACE,
        other => return word(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_keeps_its_most_talkative_level() {
        for (text, level) in [
            ("info,ciphermq=debug", Level::DEBUG),
            ("ciphermq=trace,warn", Level::TRACE),
            (" warn , tokio=error ,", Level::WARN),
            ("ciphermq_server::broker=info", Level::INFO),
            ("hyper,info", Level::INFO),
            ("off,ciphermq=warn", Level::WARN),
            ("off", Level::ERROR),
            ("ciphermq=4", Level::DEBUG),
            ("ciphermq[span{id=7}]=debug,info", Level::DEBUG),
            ("info/regex", Level::INFO),
        ] {
            let picked = read(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(picked.level, level, "{text}");
            assert!(picked.of_filter);
        }
        assert!(!read("debug").unwrap().of_filter);
        for text in [
            "loud",
            "ciphermq=loud",
            "info,ciphermq=loud",
            "",
            ",",
            "hyper,tokio",
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }
}
