//! Files that commands write through standard output and through other open descriptors.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use ciphermq_tests::{Cli, Fixture, Received};

use super::files::{expect_refused, names};
use ciphermq_tests::workspace::{Workspace, error_parts, failed};

/// Returns the command in a shell, with its standard output redirected.
fn redirected(cli: Cli, to: &str) -> Cli {
    let script = format!("exec \"$0\" \"$@\" {to}");
    cli.under(&["sh".to_owned(), "-c".to_owned(), script])
}

pub(crate) async fn a_file_that_standard_output_leads_to_is_in_use(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.write("client.toml", "retries = 3\n");
    fs::hard_link(workspace.path("client.toml"), workspace.path("hard")).unwrap();
    let key = fs::read(workspace.path("certs/receiver_private.key")).unwrap();
    for output in ["-", "/dev/stdout"] {
        let receive = || {
            let options = ["--config", "client.toml", "--idle-exit", "0.05"];
            workspace
                .cli("receive")
                .args(["--output", output])
                .args(options)
        };
        for quarantine in ["all.jsonl", "./all.jsonl", "/dev/stdout", "/proc/self/fd/1"] {
            let both = receive().args(["--quarantine", quarantine]);
            expect_refused(redirected(both, "> all.jsonl"), "--quarantine").await;
        }
        for path in [
            "certs/receiver_private.key",
            "certs/ca.crt",
            "client.toml",
            "hard",
        ] {
            let outcome = redirected(receive(), &format!(">> {path}"))
                .run()
                .await
                .code(2);
            let (what, _) = error_parts(&outcome);
            assert!(what.contains("standard output"), "{what}");
        }
        receive()
            .args(["--quarantine", "/dev/stderr"])
            .run()
            .await
            .success();
    }
    assert_eq!(
        fs::read(workspace.path("certs/receiver_private.key")).unwrap(),
        key
    );
    assert_eq!(fs::read(workspace.path("all.jsonl")).unwrap(), b"");
}

pub(crate) async fn standard_output_under_any_name_has_no_checkpoint(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    symlink("/dev/stdout", workspace.path("link")).unwrap();
    fs::create_dir(workspace.path("out")).unwrap();
    let dev = names(Path::new("/dev"));
    let outputs = [
        "-",
        "/dev/stdout",
        "/proc/self/fd/1",
        "/dev/fd/1",
        "link",
        "/dev/fd/3",
    ];
    for output in outputs {
        workspace.send_messages(&["a"]).await;
        let receive = workspace
            .cli("receive")
            .args(["--output", output, "--count", "1"]);
        redirected(receive, ">> out/all 3>&1").run().await.success();
    }
    let text = fs::read_to_string(workspace.path("out/all")).unwrap();
    assert_eq!(text.lines().count(), outputs.len(), "{text}");
    assert_eq!(names(&workspace.path("out")), ["all"]);
    assert_eq!(names(Path::new("/dev")), dev);
    // With a checkpoint it is treated like any other file.
    let known = || {
        let receive = workspace.cli("receive").args(["--output", "/dev/stdout"]);
        let receive = receive.args(["--checkpoint", "state", "--idle-exit", "0.05"]);
        redirected(receive, ">> out/all").run()
    };
    let first = known().await.success();
    assert!(
        first.stderr.contains("holds 6 messages"),
        "{}",
        first.stderr
    );
    assert!(workspace.path("state").exists());
}

pub(crate) async fn a_closed_standard_output_is_an_error_before_anything_is_acknowledged(
    fixture: Fixture,
) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.send_messages(&["a"]).await;
    let cli = |line: &str| {
        let mut words = line.split(' ');
        workspace.cli(words.next().unwrap()).args(words)
    };
    let receiver = &workspace.receiver;
    for line in [
        "receive --output - --count 1",
        "receive --output /dev/stdout --count 1",
        "receive --output /dev/fd/1 --count 1",
        "receive --output - --count 1 --quarantine /dev/stdout",
        "fetch --ack",
        &format!("get-key {receiver}"),
        "keys",
        "completions bash",
        "status",
        "receive --help",
    ] {
        let outcome = redirected(cli(line), ">&-").run().await.code(1);
        let (what, _) = error_parts(&outcome);
        assert!(
            what.contains("Standard output") && what.contains("closed"),
            "{line}: {what}"
        );
        assert!(
            !outcome.stderr.contains("onfirmed"),
            "{line}: {}",
            outcome.stderr
        );
    }
    // The message is still there, and output may be discarded explicitly.
    for to in ["> /dev/null", "1<> /dev/null"] {
        redirected(cli("fetch"), to).run().await.success();
    }
    for line in ["send --to x --message y", "receive --idle-exit 0.05"] {
        // Commands that write nothing to standard output do not need it.
        let outcome = redirected(cli(line), ">&-").run().await;
        assert!(
            !outcome.stderr.contains("Standard output"),
            "{}",
            outcome.stderr
        );
    }
    assert_eq!(workspace.texts(), ["a"]);
}

/// Returns the command in a shell that writes a header and a footer through the same descriptor.
fn between_header_and_footer(cli: Cli, descriptor: u32, to: &str) -> Cli {
    let script = format!(
        "{{ echo header-header >&{descriptor}; \"$0\" \"$@\"; code=$?; echo footer-footer \
         >&{descriptor}; }} {to}; exit $code"
    );
    cli.under(&["sh".to_owned(), "-c".to_owned(), script])
}

pub(crate) async fn a_descriptor_is_shared_with_its_other_users(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    symlink("/dev/fd/3", workspace.path("link")).unwrap();
    let outputs = [
        ("/dev/fd/3", 3, "3> all"),
        ("/proc/self/fd/3", 3, "3> all"),
        ("/proc/thread-self/fd/3", 3, "3<> all"),
        ("link", 3, "3> all"),
        ("/dev/stderr", 2, "2> all"),
        ("/dev/stdout", 1, "> all"),
    ];
    for (output, descriptor, to) in outputs {
        workspace.write("all", "");
        workspace.send_messages(&["a", "b"]).await;
        let receive = workspace
            .cli("receive")
            .args(["--output", output, "--count", "2"]);
        between_header_and_footer(receive, descriptor, to)
            .run()
            .await
            .success();
        let text = fs::read_to_string(workspace.path("all")).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.first(), Some(&"header-header"), "{output}: {text}");
        assert_eq!(lines.last(), Some(&"footer-footer"), "{output}: {text}");
        let records = lines.iter().filter(|line| line.starts_with('{'));
        let texts: Vec<String> = records.map(|line| Received::parse(line).text()).collect();
        assert_eq!(texts, ["a", "b"], "{output}: {text}");
    }
    // The quarantine is written in the same way.
    workspace.send_messages(&["sealed"]).await;
    workspace.new_key_pair();
    let receive = workspace
        .cli("receive")
        .args(["--quarantine", "/dev/fd/3", "--idle-exit", "1"]);
    between_header_and_footer(receive, 3, "3> all")
        .run()
        .await
        .success();
    let text = fs::read_to_string(workspace.path("all")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!((lines[0], lines[2]), ("header-header", "footer-footer"));
    assert!(lines[1].contains("\"envelope\""), "{text}");
}

pub(crate) async fn outputs_that_others_would_overwrite_are_refused(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let receive = |options: &[&str]| {
        let receive = workspace.cli("receive").args(["--idle-exit", "0.05"]);
        receive.args(options)
    };
    // With a checkpoint the descriptor's file is opened once more.
    let known = || receive(&["--output", "/dev/fd/3", "--checkpoint", "state"]);
    let outcome = redirected(known(), "3> all").run().await.code(1);
    let (what, advice) = error_parts(&outcome);
    assert!(
        what.contains("does not append") && advice.contains(">>"),
        "{what}"
    );
    redirected(known(), "3>> all").run().await.success();
    // Standard error has an offset of its own in a file that is named.
    for option in ["--output", "--quarantine", "--checkpoint"] {
        redirected(receive(&[option, "errors"]), "2> errors")
            .run()
            .await
            .code(2);
        let text = fs::read_to_string(workspace.path("errors")).unwrap();
        assert!(text.contains("standard error leads to"), "{text}");
    }
    let closed = receive(&["--output", "/dev/fd/3"]);
    let (what, _) = failed(redirected(closed, "3>&-").run().await);
    assert!(what.contains("closed"), "{what}");
    redirected(receive(&["--output", "/dev/stderr"]), "2>&-")
        .run()
        .await
        .code(1);
}

/// Rust's runtime takes what is written to a standard output that is open for reading, without an
/// error, and reads nothing from a standard input that is open for writing.
pub(crate) async fn descriptors_for_the_other_direction_are_refused_at_the_start(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.write("in", "a line\n");
    workspace.write("out", "");
    symlink("/dev/fd/3", workspace.path("link")).unwrap();
    let receive = |options: &[&str]| {
        let receive = workspace.cli("receive").args(["--idle-exit", "0.05"]);
        // Nothing is connected before the error.
        receive.args(["--server", "localhost:1"]).args(options)
    };
    let state = ["--output", "/dev/fd/3", "--checkpoint", "state"];
    for (options, descriptors, name) in [
        (&["--output", "/dev/fd/3"][..], "3< in", "/dev/fd/3"),
        (&["--output", "/proc/self/fd/3"], "3< in", "/proc/self/fd/3"),
        (&["--output", "link"], "3< in", "link"),
        (&["--output", "/dev/stdin"], "< in", "/dev/stdin"),
        (&["--output", "-"], "1< in", "Standard output"),
        (&["--output", "/dev/stdout"], "1< in", "Standard output"),
        (&["--quarantine", "/dev/fd/3"], "3< in", "/dev/fd/3"),
        (&["--quarantine", "/dev/stdin"], "< in", "/dev/stdin"),
        (&state, "3< in", "/dev/fd/3"),
    ] {
        let (what, advice) = failed(redirected(receive(options), descriptors).run().await);
        assert!(
            what.contains("it is open for reading only") && what.contains(name),
            "{options:?} {descriptors}: {what}"
        );
        assert!(
            advice.contains(">>") || advice.contains("Redirect"),
            "{advice}"
        );
    }
    for (command, name) in [("fetch", "fetch"), ("status", "status"), ("keys", "keys")] {
        let (what, _) = failed(redirected(workspace.cli(command), "1< in").run().await);
        assert!(
            what.contains("it is open for reading only"),
            "{name}: {what}"
        );
    }
    let send = |options: &[&str]| workspace.send().args(options);
    for (options, descriptors, problem, hint) in [
        (
            &["--file", "/dev/fd/3"][..],
            "3> out",
            "writing only",
            "3< file",
        ),
        (&["--file", "link"], "3>> out", "writing only", "3< file"),
        (
            &["--file", "/dev/stdin"],
            "0> out",
            "writing only",
            "< file",
        ),
        (&[], "0> out", "writing only", "Redirect"),
        (
            &["--file", "/dev/fd/9"],
            "",
            "it is closed",
            "No such descriptor",
        ),
        (
            &["--file", "/dev/fd/9", "--checkpoint", "c"],
            "",
            "it is closed",
            "No such descriptor",
        ),
    ] {
        let (what, advice) = failed(redirected(send(options), descriptors).run().await);
        assert!(what.contains(problem), "{options:?} {descriptors}: {what}");
        assert!(advice.contains(hint), "{options:?} {descriptors}: {advice}");
    }
    // For both directions it is used.
    workspace.send_messages(&["a"]).await;
    let receive = workspace.cli("receive").args(["--count", "1"]);
    redirected(receive.args(["--output", "/dev/fd/3"]), "3<> out")
        .run()
        .await
        .success();
    assert!(!fs::read(workspace.path("out")).unwrap().is_empty());
}

pub(crate) async fn a_checkpoint_is_a_regular_file(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.write("in", "a line\n");
    for checkpoint in ["/dev/null", "certs", "/dev/fd/3"] {
        for command in [
            workspace.send().args(["--file", "in"]),
            workspace.send().args(["--file", "in", "--again"]),
            workspace.cli("receive").args(["--idle-exit", "0.05"]),
        ] {
            let command = command.args(["--checkpoint", checkpoint]);
            let (what, advice) = failed(redirected(command, "3>> other").run().await);
            assert!(what.contains("no regular file"), "{checkpoint}: {what}");
            assert!(
                advice.starts_with("It is a folder, a device, a pipe or a descriptor: name a"),
                "{advice}"
            );
            assert!(!advice.contains("may write"), "{advice}");
        }
    }
}
