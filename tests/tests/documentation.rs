//! The server behaves as docs/protocol.md describes: its examples are run, its tables compared.

use std::collections::HashMap;

use ciphermq_protocol::{Command, ErrorCode};
use ciphermq_tests::{Backend, RawClient, Server, on_both_databases};

const PROTOCOL: &str = include_str!("../../docs/protocol.md");

/// Returns the lines of all examples, in order.
fn examples() -> impl Iterator<Item = &'static str> {
    PROTOCOL.split("```").skip(1).step_by(2).flat_map(|block| {
        let text = block
            .strip_prefix("text\n")
            .expect("every block of the document is an example");
        text.lines()
    })
}

/// Returns the bytes after a line, which are in brackets and in hexadecimal.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix('[')?.strip_suffix(']')?;
    Some(hex::decode(digits.replace(' ', "")).expect("hexadecimal"))
}

async fn the_server_replies_as_in_the_examples(backend: Backend) {
    let limited = "clients = ['limited_*']\nqueues = 1\npublish_bytes_per_second = 1";
    let limited: toml::Table = limited.parse().unwrap();
    let options = backend.options().await;
    let administrators = vec!["admin_1"];
    let options = options
        .set("authorization", "administrators", administrators)
        .set("limits", "clients", vec![limited]);
    let server = Server::start(options).await;
    let mut clients: HashMap<&str, RawClient> = HashMap::new();
    let mut compared = 0;
    for line in examples() {
        if let Some(name) = line.strip_suffix(" connects anew") {
            clients.insert(name, RawClient::connect(&server, name).await);
            continue;
        }
        let (name, text) = line
            .split_once(['>', '<'])
            .unwrap_or_else(|| panic!("not a line of an example: {line}"));
        let text = &text[1..];
        if !clients.contains_key(name) {
            clients.insert(name, RawClient::connect(&server, name).await);
        }
        let client = clients.get_mut(name).expect("it was just inserted");
        let is_sent = line[name.len()..].starts_with('>');
        if let Some(bytes) = bytes(text) {
            if is_sent {
                client.send_bytes(&bytes).await;
            } else {
                client.expect_bytes(&bytes).await;
            }
        } else if is_sent {
            client.send_line(text).await;
        } else {
            let reply = client.line().await;
            match text.strip_suffix("...") {
                Some(start) => assert!(reply.starts_with(start), "{reply:?} instead of {text:?}"),
                None => assert_eq!(reply, text),
            }
            compared += 1;
        }
    }
    assert!(compared > 40, "only {compared} replies");
    for client in clients.values_mut() {
        client.ask("ping", "PONG").await;
    }
}

on_both_databases!(the_server_replies_as_in_the_examples);

#[test]
fn the_table_of_error_codes_is_complete() {
    let table: Vec<(String, &str)> = PROTOCOL
        .split_once("| code | definite | meaning |")
        .expect("the table of error codes")
        .1
        .lines()
        .skip(2)
        .map_while(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            Some((cells.next()?.trim_matches('`').to_owned(), cells.next()?))
        })
        .collect();
    let codes: Vec<(String, &str)> = ErrorCode::ALL
        .iter()
        .map(|code| {
            (
                code.to_string(),
                if code.is_definite() { "yes" } else { "no" },
            )
        })
        .collect();
    assert_eq!(table, codes);
}

/// Every command that the parser accepts has a heading, and the parser accepts every command with a
/// heading.
#[test]
fn every_command_is_described() {
    let headings: String = PROTOCOL
        .lines()
        .filter(|line| line.starts_with("### `"))
        .collect();
    let described: Vec<&str> = headings
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|command| command.split(' ').next())
        .collect();
    for word in &described {
        let line = bytes::Bytes::copy_from_slice(word.as_bytes());
        let unknown = matches!(
            Command::parse(&line),
            Err(ciphermq_protocol::CommandError::Unknown)
        );
        assert!(!unknown, "{word} is described, but is not a command");
    }
    let source = include_str!("../../ciphermq-protocol/src/command.rs");
    let parse = source
        .split_once("match word {")
        .expect("the match on the command's name")
        .1;
    let parse = parse
        .split_once("_ => Err(CommandError::Unknown)")
        .expect("the last arm of that match")
        .0;
    let words: Vec<&str> = parse
        .lines()
        .filter_map(|line| line.trim().strip_prefix('"')?.split_once("=>"))
        .flat_map(|(words, _)| {
            words
                .split('"')
                .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
        })
        .collect();
    assert!(words.len() >= 19, "{words:?}");
    for word in words.into_iter().chain(["declare_queue"]) {
        assert!(described.contains(&word), "{word} is not described");
    }
}
