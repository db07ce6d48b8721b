//! The setting `[logging] level`: a level, or a filter by module as in older configurations.
//!
//! Older servers passed the text to tracing-subscriber's `EnvFilter`. This parser accepts the same
//! directives, `target[span{field=value}]=level` with every part optional, and uses only their
//! levels. As in `EnvFilter`, a directive without a level means trace.

use ciphermq_protocol::text::{holds_key, shown};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Directive;

use super::{
    Error,
    setting::{Setting, Text},
    validator::Validator,
};

const NAME: (&str, &str) = ("logging", "level");

/// Validates the setting, with a warning about the level in use if it is a filter.
///
/// # Errors
///
/// [`Error::Setting`] if a part of the text is neither a level nor a directive.
pub(super) fn validate(
    setting: Option<&Setting<Text>>,
    validator: &Validator<'_>,
    warnings: &mut Vec<String>,
) -> Result<Level, Error> {
    let Some(setting) = setting else {
        return Ok(Level::INFO);
    };
    let text = setting.value.0.trim();
    // Base64 has the form of a filter's target.
    let parsed = if holds_key(text) {
        Err(text)
    } else {
        parse(text)
    };
    let parsed = parsed.map_err(|unknown| {
        let mut advice = String::from("Write error, warn, info, debug or trace.");
        if unknown.parse::<Directive>().is_ok()
            && !unknown.contains(char::is_whitespace)
            && !holds_key(unknown)
        {
            let target = format!(" If it is a target in a filter, write {unknown}=trace.");
            advice.push_str(&target);
        }
        let problem = format!("`{}` is unknown", shown(unknown));
        validator.invalid(NAME, Some(&setting.location), problem, advice)
    })?;
    if parsed.from_filter {
        let origin = validator.origin(Some(&setting.location));
        let word = parsed.level.as_str().to_ascii_lowercase();
        warnings.push(format!(
            "{origin}: [logging] level: `{}` is a filter, but one level applies to all \
             modules: using {word}; write level = \"{word}\"",
            shown(text)
        ));
    }
    Ok(parsed.level)
}

/// A level, and whether it comes from a filter.
#[derive(Debug)]
struct ParsedLevel {
    level: Level,
    from_filter: bool,
}

/// Parses a level, or the most verbose one of a filter such as `info,ciphermq=debug`.
///
/// # Errors
///
/// The first invalid part of the text.
fn parse(text: &str) -> Result<ParsedLevel, &str> {
    let is_number = text.bytes().any(|byte| byte.is_ascii_digit());
    if let Some(level) = parse_level(text)
        .and_then(LevelFilter::into_level)
        .filter(|_| !is_number)
    {
        return Ok(ParsedLevel {
            level,
            from_filter: false,
        });
    }
    let mut most_verbose = None;
    for directive in directives(text) {
        most_verbose = most_verbose.max(Some(directive_level(directive).ok_or(directive)?));
    }
    // Errors are always logged, so `off` means error.
    let level = most_verbose
        .ok_or(text)?
        .into_level()
        .unwrap_or(Level::ERROR);
    Ok(ParsedLevel {
        level,
        from_filter: true,
    })
}

/// Splits a filter into its directives.
fn directives(text: &str) -> Vec<&str> {
    let at_commas = split_at_commas(text, |_| 0);
    let is_valid = |part: &&str| part.parse::<Directive>().is_ok();
    if at_commas.iter().all(is_valid) {
        return at_commas;
    }
    // `EnvFilter` splits at every comma, even between the fields of a span and in quoted text,
    // where commas do not separate directives.
    split_at_commas(text, bracketed_len)
}

/// Splits text at commas, except those in the first `skip(rest)` bytes of each part.
fn split_at_commas(mut text: &str, skip: impl Fn(&str) -> usize) -> Vec<&str> {
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

/// Returns the length in bytes of a directive up to its closing bracket; 0 if it has none.
fn bracketed_len(text: &str) -> usize {
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

/// Returns the level of a directive, trace by default; `None` if it is not a directive.
fn directive_level(directive: &str) -> Option<LevelFilter> {
    let (start, rest) = directive.split_at(directive.find(['=', '[']).unwrap_or(directive.len()));
    let level = match rest.strip_prefix('=') {
        Some(level) => level,
        None if rest.is_empty() => return word_level(start),
        // Field values may contain any character; the level follows the last bracket.
        None => match rest.rsplit_once(']')?.1.trim_start() {
            "" => "",
            level => level.strip_prefix('=')?,
        },
    };
    match level.trim() {
        "" => Some(LevelFilter::TRACE),
        level => parse_level(before_slash(level)),
    }
}

/// Returns the level of a single word: a level itself, or trace for a target.
///
/// Returns `None` for a misspelt level, which `EnvFilter` would accept as a target.
fn word_level(text: &str) -> Option<LevelFilter> {
    if let Some(level) = parse_level(before_slash(text)) {
        return Some(level);
    }
    let is_target = text.parse::<Directive>().is_ok()
        && !text.bytes().all(|byte| byte.is_ascii_digit())
        && !text
            .split([' ', '\t', ';', '|'])
            .any(|part| parse_level(part).is_some() || resembles_level(part));
    is_target.then_some(LevelFilter::TRACE)
}

/// Returns the text before a slash, which starts a regular expression in filters of env_logger.
fn before_slash(text: &str) -> &str {
    text.split('/').next().unwrap_or_default().trim_end()
}

/// Parses a level or `warning`, in any case; `None` for empty or other text.
fn parse_level(text: &str) -> Option<LevelFilter> {
    match text {
        "" => None,
        _ if text.eq_ignore_ascii_case("warning") => Some(LevelFilter::WARN),
        _ => text.parse().ok(),
    }
}

/// Returns whether a word is a level with one typo, or the name of a level in other programs.
fn resembles_level(text: &str) -> bool {
    const LEVELS: [&str; 7] = ["error", "warn", "warning", "info", "debug", "trace", "off"];
    const OTHER_PROGRAMS: [&str; 22] = [
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
    OTHER_PROGRAMS.contains(&&*text) || LEVELS.iter().any(|level| is_one_typo(&text, level))
}

/// Returns whether two texts differ by at most one insertion, deletion, substitution or
/// transposition of adjacent letters.
fn is_one_typo(text: &str, meant: &str) -> bool {
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
mod tests;
