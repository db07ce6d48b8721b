//! An evil broker tries to steer the terminal of whoever runs `ciphermq-cli`: escape sequences
//! wherever it may say something.

use ciphermq_client::text::{Escaped, is_unsafe};
use ciphermq_tests::cli::Outcome;
use ciphermq_tests::evil::Evil;
use ciphermq_tests::faults::proxy::Direction;
use ciphermq_tests::server::Options;
use ciphermq_tests::{Cli, Server};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::workspace::{Workspace, said, screen};

/// Clears the screen, moves, deletes, in seven and in eight bits; turns the reading direction; ends
/// lines.
const EVIL: &str = "\x1b[2J\x1b]0;title\x07\x08\x7f\u{9b}31m\u{85}\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{2029}x";

/// What was written for people is harmless, and yet tells what the broker said.
#[track_caller]
fn is_harmless(what: &str, outcome: &Outcome, text: &str) {
    let steering = text
        .lines()
        .find(|line| line.contains(is_unsafe))
        .map(|line| Escaped(line).to_string());
    assert_eq!(steering, None, "{what}");
    assert_ne!(outcome.code, Some(101), "{what}: {text}");
    assert!(!text.contains("panicked"), "{what}: {text}");
}

/// All commands that speak to a server, impatient.
fn commands(workspace: &Workspace) -> Vec<(&'static str, Cli)> {
    let id = "m-1";
    let lines: [(&'static str, &[&str]); 11] = [
        ("status", &[]),
        ("send", &["--to", "receiver", "--message", "x"]),
        ("receive", &["--idle-exit", "0.3"]),
        ("get-key", &["receiver"]),
        ("verify-key", &["receiver"]),
        ("fetch", &[]),
        ("ack", &[id]),
        ("resend", &[id]),
        ("rejected", &[]),
        ("keys", &[]),
        ("register-key", &[]),
    ];
    let impatient = ["--retries", "1", "--retry-timeout", "0.5", "-vv"];
    lines
        .into_iter()
        .map(|(command, arguments)| {
            (
                command,
                workspace.cli(command).args(arguments).args(impatient),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_broker_says_does_not_steer_the_terminal() {
    let server = Server::start(Options::sqlite()).await;
    let evil = Evil::start(&server).await;
    let workspace = Workspace::at(evil.address(), server.pki(), "sender", "receiver");
    workspace.introduce().await;

    // Instead of every reply to these commands' requests.
    let replies = [
        format!("Error: not_authorized: {EVIL}"),
        format!("Error: storage_unavailable: {EVIL}"),
        format!("Error: {EVIL}"),
        format!("Invalid message format: {EVIL}"),
        format!("Public key: {EVIL}"),
        format!("Signed key: {EVIL}"),
        format!("Certificate: {EVIL}"),
        format!("Waiting keys: {EVIL}"),
        format!("Message: {EVIL} {{}}"),
        format!("Message: m-1 {EVIL}"),
        format!("ACK {EVIL}"),
        EVIL.to_owned(),
    ];
    for reply in replies {
        let said = reply.clone();
        evil.play(move |line| match line.direction {
            Direction::Down if !line.text.starts_with("Hello: ") => vec![said.clone()],
            _ => line.honest(),
        });
        let mut running = JoinSet::new();
        for (command, cli) in commands(&workspace) {
            let what = format!("{command} told {reply:?}");
            running.spawn(async move { (what, cli.run().await) });
        }
        for (what, outcome) in running.join_all().await {
            is_harmless(&what, &outcome, &outcome.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_broker_says_of_itself_and_of_messages_is_shown_harmless() {
    let server = Server::start(Options::sqlite()).await;
    let evil = Evil::start(&server).await;
    let workspace = Workspace::at(evil.address(), server.pki(), "sender", "receiver");
    workspace.introduce().await;
    let rejected = json!({
        "messages": [{
            "message_id": "m-1", "sender": "sender", "receiver": "receiver", "exchange": "e", "routing_key": "k",
            "reason": format!("{EVIL}\n"), "rejected_time": EVIL,
        }],
        "more": false,
    });
    let page = rejected.clone();
    evil.play(move |line| {
        if line.direction == Direction::Down
            && let Some(hello) = line.text.strip_prefix("Hello: ")
        {
            let mut hello: Value = serde_json::from_str(hello).expect("an object");
            hello["server"] = format!("{EVIL}\nclient id     forged").into();
            hello["version"] = EVIL.into();
            return vec![format!("Hello: {hello}")];
        }
        if line.direction == Direction::Down && line.text.starts_with("Rejected messages: ") {
            return vec![format!("Rejected messages: {page}")];
        }
        line.honest()
    });
    let status = workspace.cli("status").arg("-vv").run().await.success();
    is_harmless("status", &status, &status.stdout);
    is_harmless("status", &status, &status.stderr);
    assert!(status.stdout.contains("\\u{1b}[2J"), "{}", status.stdout);
    assert!(
        !status.stdout.contains("\nclient id     forged"),
        "{}",
        status.stdout
    );
    // For programs it stays what it was.
    let status = workspace.cli("status").arg("--json").run().await.success();
    let status: Value = serde_json::from_str(&status.stdout).expect("one object");
    assert_eq!(status["server"]["version"], EVIL);

    let listed = workspace.cli("rejected").run().await.success();
    let line: Value = serde_json::from_str(&listed.stdout).expect("one object");
    assert_eq!(line, rejected["messages"][0]);
    assert!(listed.stdout.contains('\u{202e}'), "as it came");
    is_harmless("rejected", &listed, &listed.stderr);
    // On a terminal the same JSON, escaped.
    let program = ciphermq_tests::binaries::binary("ciphermq-cli");
    let shown = workspace
        .in_a_terminal(&format!("{} rejected", program.display()))
        .run()
        .await
        .success();
    let lines: String = shown.stdout.replace("\r\n", "\n");
    is_harmless("rejected on a terminal", &shown, &lines);
    let line = lines
        .lines()
        .find(|line| line.starts_with('{'))
        .expect("the message");
    assert_eq!(
        serde_json::from_str::<Value>(line).expect("the same object"),
        rejected["messages"][0]
    );
}

/// Every notice finds the progress bar in its way, whoever tells it: those about the connection,
/// ids on standard output, the error at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bar_makes_way_for_every_line() {
    let server = Server::start(Options::sqlite()).await;
    let evil = Evil::start(&server).await;
    let workspace = Workspace::at(evil.address(), server.pki(), "sender", "receiver");
    workspace.introduce().await;
    // It takes messages, and says nothing of them.
    evil.play(|line| match line.reply_to("sender", "ACK") {
        Some(_) => Vec::new(),
        None => line.honest(),
    });
    workspace.write("lines.txt", "one\ntwo\nthree\n");
    let program = ciphermq_tests::binaries::binary("ciphermq-cli");
    let line = format!(
        "stty cols 300; '{}' send --to receiver --file lines.txt --retries 1 --retry-timeout 3",
        program.display()
    );
    let sending = tokio::spawn(workspace.in_a_terminal(&line).run());
    while evil.published_by("sender").is_empty() {
        assert!(!sending.is_finished());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(evil);
    let shown = sending.await.expect("it ends").code(3);
    assert!(
        shown.stdout.contains("0 acknowledged, "),
        "a bar was shown: {:?}",
        shown.stdout
    );
    let (mut told, mut ids, mut error) = (Vec::new(), 0, Vec::new());
    for line in screen(&shown.stdout) {
        if line.starts_with('[') {
            told.push(said("SENDER", &line).to_owned());
        } else if line.starts_with("error: ") || line.starts_with("       ") {
            error.push(line);
        } else {
            ids += 1;
            assert!(
                line.chars().all(|c| c.is_ascii_hexdigit() || c == '-'),
                "debris: {line:?}"
            );
        }
    }
    assert_eq!(ids, 3, "{told:?}");
    assert!(
        told.iter().any(|line| line.starts_with("Connection lost")),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|line| line.starts_with("No connection yet")),
        "{told:?}"
    );
    assert!(
        told.iter().all(|line| !line.contains(" acknowledged, 0/s")),
        "{told:?}"
    );
    assert!(
        error.len() > 1 && error[0].contains("3 messages were not acknowledged"),
        "{error:?}"
    );
}
