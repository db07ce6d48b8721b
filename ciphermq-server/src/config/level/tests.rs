use proptest::prelude::*;
use tracing_subscriber::EnvFilter;

use super::*;

#[test]
fn a_filter_yields_its_most_verbose_level() {
    for (text, level) in [
        ("info,ciphermq=debug", Level::DEBUG),
        ("ciphermq=trace,warn", Level::TRACE),
        (" warn , tokio=error ,", Level::WARN),
        ("ciphermq_server::broker=info", Level::INFO),
        ("off,ciphermq=warn", Level::WARN),
        ("off", Level::ERROR),
        ("ciphermq=4", Level::DEBUG),
        ("ciphermq=Info,WARNING", Level::INFO),
        ("3", Level::INFO),
        ("0,1", Level::ERROR),
        ("info/regex", Level::INFO),
        ("warn,ciphermq=debug/a b", Level::DEBUG),
        // A directive without a level means trace.
        ("ciphermq_server", Level::TRACE),
        ("hyper,tokio", Level::TRACE),
        ("hyper,info", Level::TRACE),
        ("info,ciphermq=", Level::TRACE),
        ("ciphermq=", Level::TRACE),
        ("[span]", Level::TRACE),
        ("ciphermq[span]", Level::TRACE),
        ("ciphermq[span]=", Level::TRACE),
        ("ciphermq[span{id=7}]", Level::TRACE),
        ("ciphermq[{id=1}]", Level::TRACE),
        // The values of fields are not levels.
        ("ciphermq[{id=1}]=warn", Level::WARN),
        ("ciphermq[span{id=7}]=debug,info", Level::DEBUG),
        ("warn,app[s{f=[a-z]+}]=info", Level::INFO),
        ("app[s{level=trace}]=info", Level::INFO),
        ("[s{path=/a/b}]=debug", Level::DEBUG),
        (r"[s{name=(?P<x>\D)}]=info", Level::INFO),
        // Fields may contain commas.
        ("info,app[span{a=x,b=y}]", Level::TRACE),
        ("info,app[span{a=x,b=y}]=debug", Level::DEBUG),
        (r#"[span{field="a,b"}]=debug,info"#, Level::DEBUG),
        (r#"[span{field="}x],y"}]=debug,info"#, Level::DEBUG),
        (r#"warn,a[s{f="x,y",g=1}]=error,b=info"#, Level::INFO),
    ] {
        let parsed = parse(text.trim()).unwrap_or_else(|part| panic!("{text}: {part}"));
        assert_eq!(parsed.level, level, "{text}");
        assert!(parsed.from_filter, "{text}");
    }
    for text in ["debug", "WARN", "Warning"] {
        assert!(!parse(text).unwrap().from_filter, "{text}");
    }
}

#[test]
fn an_invalid_filter_is_an_error_that_names_the_part() {
    for (text, part) in [
        ("inof", "inof"),
        ("Debgu", "Debgu"),
        ("eror", "eror"),
        ("loud", "loud"),
        ("verbose", "verbose"),
        ("info debug", "info debug"),
        ("info;debug", "info;debug"),
        ("info,dbug", "dbug"),
        ("hyper,inof", "inof"),
        ("ciphermq=loud", "ciphermq=loud"),
        ("info,ciphermq=loud", "ciphermq=loud"),
        ("ciphermq=6", "ciphermq=6"),
        ("6", "6"),
        ("", ""),
        (",", ","),
        ("info,ciphermq[span", "ciphermq[span"),
        ("ciphermq[span]debug", "ciphermq[span]debug"),
        ("info,!", "!"),
    ] {
        assert_eq!(parse(text).unwrap_err(), part, "{text}");
    }
}

/// Generates directives according to the documentation of `EnvFilter`.
fn directive() -> impl Strategy<Value = String> {
    let field = "[a-z_.]{1,4}(=([a-z0-9.*+-]{1,4}|\"[a-z]{1,3}\"))?";
    let span =
        (prop::option::of("[a-z_]{1,5}"), prop::option::of(field)).prop_map(|(name, field)| {
            let fields = field.map_or_else(String::new, |field| format!("{{{field}}}"));
            format!("[{}{fields}]", name.unwrap_or_default())
        });
    let level = "=(error|WARN|info|Debug|trace|off|[0-5])?";
    let target = "[a-z_][a-z0-9_:]{0,9}";
    let parts = (
        prop::option::of(target),
        prop::option::of(span),
        prop::option::of(level),
    );
    let parts = parts.prop_map(|(target, span, level)| {
        [target, span, level]
            .map(Option::unwrap_or_default)
            .concat()
    });
    prop_oneof![4 => parts, 1 => "(error|warn|INFO|debug|trace|off|[0-5])"]
}

/// Returns the most verbose level in `EnvFilter`'s own reading, which formats every directive with
/// its level.
fn most_verbose(text: &str) -> LevelFilter {
    let level = |directive: Directive| {
        let formatted = directive.to_string();
        formatted.rsplit('=').next().unwrap().parse().unwrap()
    };
    let directives = text.split(',').filter(|part| !part.is_empty());
    directives
        .map(|part| level(part.parse().unwrap()))
        .max()
        .unwrap()
}

/// Returns whether a part that `EnvFilter` accepts is refused as a misspelt level.
fn is_taken_for_typo(part: &str) -> bool {
    part.parse::<Directive>().is_ok() && !part.contains(['=', '[']) && word_level(part).is_none()
}

proptest! {
    /// Filters have the same level as in `EnvFilter`.
    #[test]
    fn filters_have_the_level_of_env_filter(
        directives in prop::collection::vec(directive(), 1..4),
    ) {
        let text = directives.join(",");
        prop_assume!(EnvFilter::try_new(&text).is_ok());
        prop_assume!(directives.iter().any(|directive| !directive.is_empty()));
        match parse(&text) {
            Ok(parsed) => {
                let level = most_verbose(&text).into_level().unwrap_or(Level::ERROR);
                prop_assert_eq!(parsed.level, level, "{}", text);
            }
            Err(part) => prop_assert!(is_taken_for_typo(part), "{}: {}", text, part),
        }
    }

    /// No text that `EnvFilter` accepts is refused, and no text causes a panic.
    #[test]
    fn nothing_that_env_filter_accepts_is_refused(
        text in "([a-f=\\[\\]{},\":_/ 0-9!]|info|=debug|\\[s\\{f=|\\}\\]){0,12}",
    ) {
        let text = text.trim();
        if let Err(part) = parse(text)
            && EnvFilter::try_new(text).is_ok()
            && text.contains(|c| c != ',' && c != ' ')
        {
            prop_assert!(is_taken_for_typo(part), "{:?}: {:?}", text, part);
        }
    }
}
