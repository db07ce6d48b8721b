//! Which events are logged, by their level and by the module that they come from.

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::reload;

/// The level in force, which can be changed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CurrentLevel {
    filter: reload::Handle<Targets, Registry>,
    at_every_level: &'static str,
}

impl CurrentLevel {
    /// Puts another level in force.
    pub(crate) fn set(&self, level: Level) {
        // It fails when the subscriber is gone, which then logs nothing.
        let _ = self.filter.reload(targets(level, self.at_every_level));
    }
}

/// Returns the filter of a level, and the handle that changes it. Warnings of the target
/// `at_every_level` pass at every level.
pub(crate) fn filter(
    level: Level,
    at_every_level: &'static str,
) -> (reload::Layer<Targets, Registry>, CurrentLevel) {
    let (filter, handle) = reload::Layer::new(targets(level, at_every_level));
    let current = CurrentLevel {
        filter: handle,
        at_every_level,
    };
    (filter, current)
}

fn targets(level: Level, at_every_level: &'static str) -> Targets {
    let level = LevelFilter::from_level(level);
    // Libraries log about themselves at INFO and below, and would drown what the broker logs.
    let libraries = if level == LevelFilter::TRACE {
        LevelFilter::DEBUG
    } else {
        level.min(LevelFilter::WARN)
    };
    Targets::new()
        .with_default(libraries)
        .with_target("ciphermq", level)
        .with_target(at_every_level, level.max(LevelFilter::WARN))
}
