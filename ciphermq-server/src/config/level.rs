//! `[logging] level`: one level, or what older servers took there, a filter by modules.
//!
//! Older servers handed the text to tracing-subscriber's `EnvFilter`. This reads whatever that
//! accepts, of each directive the level only: `target[span{field=value}]=level`, where every part
//! may be left out. A directive without a level means trace, as it does there.

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Directive;

use super::{
    Error,
    file::{Setting, Text},
    validate::Check,
};

const NAME: (&str, &str) = ("logging", "level");

/// Reads the setting. For a filter, a warning says which level is taken.
pub(super) fn validate(
    setting: Option<&Setting<Text>>,
    check: &Check<'_>,
    warnings: &mut Vec<String>,
) -> Result<Level, Error> {
    let Some(setting) = setting else {
        return Ok(Level::INFO);
    };
    let text = setting.value.0.trim();
    let picked = read(text).map_err(|unknown| {
        let mut advice = String::from("Write error, warn, info, debug or trace.");
        if unknown.parse::<Directive>().is_ok() && !unknown.contains(char::is_whitespace) {
            let target = format!(" If it is a target in a filter, write {unknown}=trace.");
            advice.push_str(&target);
        }
        let problem = format!("`{unknown}` is unknown");
        check.wrong(NAME, Some(&setting.place), problem, advice)
    })?;
    if picked.of_filter {
        let origin = check.origin(Some(&setting.place));
        let word = picked.level.as_str().to_ascii_lowercase();
        warnings.push(format!(
            "{origin}: [logging] level: `{text}` is a filter, and one level is for all: {word} is \
             taken; write level = \"{word}\""
        ));
    }
    Ok(picked.level)
}

/// A level, and whether it was picked out of a filter.
#[derive(Debug)]
struct Picked {
    level: Level,
    of_filter: bool,
}

/// Reads a level, or the most talkative one of a filter such as `info,ciphermq=debug`. The error is
/// the part that cannot be read.
fn read(text: &str) -> Result<Picked, &str> {
    let is_number = text.bytes().any(|byte| byte.is_ascii_digit());
    if let Some(level) = word(text)
        .and_then(LevelFilter::into_level)
        .filter(|_| !is_number)
    {
        return Ok(Picked {
            level,
            of_filter: false,
        });
    }
    let mut most = None;
    for directive in directives(text) {
        most = most.max(Some(level_of(directive).ok_or(directive)?));
    }
    // There is no level below error here.
    let level = most.ok_or(text)?.into_level().unwrap_or(Level::ERROR);
    Ok(Picked {
        level,
        of_filter: true,
    })
}

/// The directives of a filter.
fn directives(text: &str) -> Vec<&str> {
    let at_commas = parts(text, |_| 0);
    let is_valid = |part: &&str| part.parse::<Directive>().is_ok();
    if at_commas.iter().all(is_valid) {
        return at_commas;
    }
    // `EnvFilter` splits at every comma, though several fields of a span, and quoted text, were
    // meant to hold some.
    parts(text, brackets)
}

/// The parts between commas, but for those in the first bytes of each, as many as `skip` says.
fn parts(mut text: &str, skip: impl Fn(&str) -> usize) -> Vec<&str> {
    let mut parts = Vec::new();
    while !text.is_empty() {
        let skipped = skip(text);
        let comma = text.get(skipped..).and_then(|rest| rest.find(','));
        let (part, rest) = text.split_at(comma.map_or(text.len(), |comma| skipped + comma));
        parts.extend(Some(part.trim()).filter(|part| !part.is_empty()));
        text = rest.strip_prefix(',').unwrap_or(rest);
    }
    parts
}

/// How many bytes a directive has up to the end of its brackets; 0 if it has none.
fn brackets(text: &str) -> usize {
    let Some(start) = text
        .find(['[', '=', ','])
        .filter(|&index| text.as_bytes().get(index) == Some(&b'['))
    else {
        return 0;
    };
    let (mut quoted, mut in_fields) = (false, false);
    for (index, c) in text.char_indices().skip_while(|&(index, _)| index < start) {
        match c {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '{' | '}' => in_fields = c == '{',
            ']' if !in_fields => return index,
            _ => {}
        }
    }
    0
}

/// The level of one directive, trace if it says none; `None` if it is no directive.
fn level_of(directive: &str) -> Option<LevelFilter> {
    let (start, rest) = directive.split_at(directive.find(['=', '[']).unwrap_or(directive.len()));
    let level = match rest.strip_prefix('=') {
        Some(level) => level,
        None if rest.is_empty() => return bare(start),
        // Values hold any character; what follows the last bracket is the level's.
        None => match rest.rsplit_once(']')?.1.trim_start() {
            "" => "",
            level => level.strip_prefix('=')?,
        },
    };
    match level.trim() {
        "" => Some(LevelFilter::TRACE),
        level => word(before_slash(level)),
    }
}

/// What a word alone means: a level, or trace for a target. A misspelt level is neither, though
/// `EnvFilter` takes it for a target.
fn bare(text: &str) -> Option<LevelFilter> {
    if let Some(level) = word(before_slash(text)) {
        return Some(level);
    }
    let is_target = text.parse::<Directive>().is_ok()
        && !text.bytes().all(|byte| byte.is_ascii_digit())
        && !text
            .split([' ', '\t', ';', '|'])
            .any(|part| word(part).is_some() || is_meant_as_level(part));
    is_target.then_some(LevelFilter::TRACE)
}

/// What follows a slash was once, in the filters of env_logger, an expression that lines must
/// match.
fn before_slash(text: &str) -> &str {
    text.split('/').next().unwrap_or_default().trim_end()
}

fn word(text: &str) -> Option<LevelFilter> {
    match text {
        "" => None,
        _ if text.eq_ignore_ascii_case("warning") => Some(LevelFilter::WARN),
        _ => text.parse().ok(),
    }
}

/// Whether a word is a level with one slip in it, or what other programs call one.
fn is_meant_as_level(text: &str) -> bool {
    const LEVELS: [&str; 7] = ["error", "warn", "warning", "info", "debug", "trace", "off"];
    const OTHERS: [&str; 22] = [
        "alert",
        "all",
        "crit",
        "critical",
        "dbg",
        "emerg",
        "emergency",
        "err",
        "fatal",
        "fine",
        "finer",
        "finest",
        "information",
        "loud",
        "max",
        "min",
        "none",
        "notice",
        "quiet",
        "severe",
        "silent",
        "verbose",
    ];
    let text = text.to_ascii_lowercase();
    OTHERS.contains(&&*text) || LEVELS.iter().any(|level| is_one_slip(&text, level))
}

/// Whether one letter added, left out or changed, or two changed about, makes one text the other.
fn is_one_slip(text: &str, meant: &str) -> bool {
    fn without_common<'a>(text: &'a [u8], other: &[u8]) -> &'a [u8] {
        let start = text.iter().zip(other).take_while(|(a, b)| a == b).count();
        let (text, other) = (text.get(start..), other.get(start..));
        let (text, other) = (text.unwrap_or_default(), other.unwrap_or_default());
        let ends = text.iter().rev().zip(other.iter().rev());
        let end = ends.take_while(|(a, b)| a == b).count();
        text.get(..text.len() - end).unwrap_or_default()
    }
    let (text, meant) = (text.as_bytes(), meant.as_bytes());
    match (without_common(text, meant), without_common(meant, text)) {
        ([] | [_], [] | [_]) => true,
        ([a, b], [c, d]) => a == d && b == c,
        _ => false,
    }
}

#[cfg(test)]
#[path = "level_tests.rs"]
mod tests;
