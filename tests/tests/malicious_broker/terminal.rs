//! A malicious broker attacks the terminal of `ciphermq-cli` with escape sequences in everything
//! that it sends.

use ciphermq_client::text::{Escaped, is_unsafe};
use ciphermq_tests::cli::Outcome;
use ciphermq_tests::faults::proxy::Direction;
use ciphermq_tests::malicious::MaliciousBroker;
use ciphermq_tests::server::Options;
use ciphermq_tests::{Cli, Server};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use ciphermq_tests::workspace::{Workspace, console_text, screen};

/// Escape sequences, in 7-bit and 8-bit form, that clear the screen, set the title, move the cursor
/// and delete; and characters that change the text direction and end lines.
const ESCAPES: &str = "\x1b[2J\x1b]0;title\x07\x08\x7f\u{9b}31m\u{85}\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{2029}x";

/// Checks that output for people contains no control characters, and that the program did not
/// panic.
#[track_caller]
fn assert_harmless(what: &str, outcome: &Outcome, text: &str) {
    let harmful = text
        .lines()
        .find(|line| line.contains(is_unsafe))
        .map(|line| Escaped(line).to_string());
    assert_eq!(harmful, None, "{what}");
    assert_ne!(outcome.code, Some(101), "{what}: {text}");
    assert!(!text.contains("panicked"), "{what}: {text}");
}

/// All commands that connect to a server, with short time-outs.
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
async fn replies_of_a_broker_cannot_control_the_terminal() {
    let server = Server::start(Options::sqlite()).await;
    let broker = MaliciousBroker::start(&server).await;
    let workspace = Workspace::at(broker.address(), server.pki(), "sender", "receiver");
    workspace.register_receiver().await;

    // Each of these replaces every reply to the commands' requests.
    let replies = [
        format!("Error: not_authorized: {ESCAPES}"),
        format!("Error: storage_unavailable: {ESCAPES}"),
        format!("Error: {ESCAPES}"),
        format!("Invalid message format: {ESCAPES}"),
        format!("Public key: {ESCAPES}"),
        format!("Signed key: {ESCAPES}"),
        format!("Certificate: {ESCAPES}"),
        format!("Waiting keys: {ESCAPES}"),
        format!("Message: {ESCAPES} {{}}"),
        format!("Message: m-1 {ESCAPES}"),
        format!("ACK {ESCAPES}"),
        ESCAPES.to_owned(),
    ];
    for reply in replies {
        let replacement = reply.clone();
        broker.intercept(move |line| match line.direction {
            Direction::ToClient if !line.text.starts_with("Hello: ") => vec![replacement.clone()],
            _ => line.honest(),
        });
        let mut running = JoinSet::new();
        for (command, cli) in commands(&workspace) {
            let what = format!("{command} with the reply {reply:?}");
            running.spawn(async move { (what, cli.run().await) });
        }
        for (what, outcome) in running.join_all().await {
            assert_harmless(&what, &outcome, &outcome.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_of_a_broker_about_itself_and_messages_are_escaped() {
    let server = Server::start(Options::sqlite()).await;
    let broker = MaliciousBroker::start(&server).await;
    let workspace = Workspace::at(broker.address(), server.pki(), "sender", "receiver");
    workspace.register_receiver().await;
    let rejected = json!({
        "messages": [{
            "message_id": "m-1", "sender": "sender", "receiver": "receiver", "exchange": "e", "routing_key": "k",
            "reason": format!("{ESCAPES}\n"), "rejected_time": ESCAPES,
        }],
        "more": false,
    });
    let page = rejected.clone();
    broker.intercept(move |line| {
        if line.direction == Direction::ToClient
            && let Some(hello) = line.text.strip_prefix("Hello: ")
        {
            let mut hello: Value = serde_json::from_str(hello).expect("an object");
            hello["server"] = format!("{ESCAPES}\nclient id     forged").into();
            hello["version"] = ESCAPES.into();
            return vec![format!("Hello: {hello}")];
        }
        if line.direction == Direction::ToClient && line.text.starts_with("Rejected messages: ") {
            return vec![format!("Rejected messages: {page}")];
        }
        line.honest()
    });
    let status = workspace.cli("status").arg("-vv").run().await.success();
    assert_harmless("status", &status, &status.stdout);
    assert_harmless("status", &status, &status.stderr);
    assert!(status.stdout.contains("\\u{1b}[2J"), "{}", status.stdout);
    assert!(
        !status.stdout.contains("\nclient id     forged"),
        "{}",
        status.stdout
    );
    // In output for programs it is unchanged.
    let status = workspace.cli("status").arg("--json").run().await.success();
    let status: Value = serde_json::from_str(&status.stdout).expect("one object");
    assert_eq!(status["server"]["version"], ESCAPES);

    let listed = workspace.cli("rejected").run().await.success();
    let line: Value = serde_json::from_str(&listed.stdout).expect("one object");
    assert_eq!(line, rejected["messages"][0]);
    assert!(listed.stdout.contains('\u{202e}'), "unchanged");
    assert_harmless("rejected", &listed, &listed.stderr);
    // On a terminal, the same JSON is escaped.
    let program = ciphermq_tests::binaries::binary("ciphermq-cli");
    let shown = workspace
        .in_a_terminal(&format!("{} rejected", program.display()))
        .run()
        .await
        .success();
    let lines: String = shown.stdout.replace("\r\n", "\n");
    assert_harmless("rejected on a terminal", &shown, &lines);
    let line = lines
        .lines()
        .find(|line| line.starts_with('{'))
        .expect("the message");
    assert_eq!(
        serde_json::from_str::<Value>(line).expect("the same object"),
        rejected["messages"][0]
    );
}

/// The progress bar is cleared before every line: notices about the connection, ids on standard
/// output, and the error at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_progress_bar_is_cleared_before_every_line() {
    let server = Server::start(Options::sqlite()).await;
    let broker = MaliciousBroker::start(&server).await;
    let workspace = Workspace::at(broker.address(), server.pki(), "sender", "receiver");
    workspace.register_receiver().await;
    // The broker forwards messages, but suppresses the acknowledgements.
    broker.intercept(|line| match line.reply_to("sender", "ACK") {
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
    while broker.published_by("sender").is_empty() {
        assert!(!sending.is_finished());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(broker);
    let shown = sending.await.expect("`send` ends").code(3);
    assert!(
        shown.stdout.contains("0 acknowledged, "),
        "a bar was shown: {:?}",
        shown.stdout
    );
    let (mut notices, mut ids, mut error) = (Vec::new(), 0, Vec::new());
    for line in screen(&shown.stdout) {
        if line.starts_with('[') {
            notices.push(console_text("SENDER", &line).to_owned());
        } else if line.starts_with("error: ") || line.starts_with("       ") {
            error.push(line);
        } else {
            ids += 1;
            assert!(
                line.chars().all(|c| c.is_ascii_hexdigit() || c == '-'),
                "remains of the progress bar: {line:?}"
            );
        }
    }
    assert_eq!(ids, 3, "{notices:?}");
    assert!(
        notices
            .iter()
            .any(|line| line.starts_with("Connection lost")),
        "{notices:?}"
    );
    assert!(
        notices
            .iter()
            .any(|line| line.starts_with("No connection yet")),
        "{notices:?}"
    );
    assert!(
        notices
            .iter()
            .all(|line| !line.contains(" acknowledged, 0/s")),
        "{notices:?}"
    );
    assert!(
        error.len() > 1 && error[0].contains("3 messages were not acknowledged"),
        "{error:?}"
    );
}
