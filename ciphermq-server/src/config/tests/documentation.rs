//! The shipped file and the documentation.

use super::*;

#[test]
fn the_shipped_file_contains_the_defaults() {
    let shipped = parse(&repository("config.toml")).unwrap();
    assert_eq!(
        format!("{shipped:#?}"),
        format!("{:#?}", parse("").unwrap())
    );
}

#[test]
fn the_shipped_file_shows_every_field_under_its_section() {
    let text = repository("config.toml");
    for (section, fields) in file::SECTIONS {
        let (_, body) = text.split_once(&format!("[{section}]\n")).unwrap();
        let body = body.split("\n[").next().unwrap();
        for field in *fields {
            let shown = body.lines().any(|line| {
                line.trim_start_matches("# ")
                    .strip_prefix(field)
                    .is_some_and(|rest| rest.starts_with(" = "))
            });
            assert!(shown, "[{section}] {field}");
        }
    }
}

#[test]
fn every_field_and_variable_is_documented() {
    let text = repository("docs/configuration.md");
    for (section, fields) in file::SECTIONS {
        let (_, body) = text.split_once(&format!("## `[{section}]`\n")).unwrap();
        let body = body.split("\n## ").next().unwrap();
        for field in *fields {
            let row = body
                .lines()
                .find(|line| line.starts_with(&format!("| `{field}` |")));
            let row = row.unwrap_or_else(|| panic!("[{section}] {field} is not documented"));
            let variable = format!("| `{}` |", section::variable(section, field));
            assert!(row.ends_with(&variable), "{row} lacks {variable}");
        }
    }
}
