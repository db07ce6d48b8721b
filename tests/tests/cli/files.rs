//! The files that commands write: private to the user, through links, and never unrelated ones.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use ciphermq_tests::{Cli, Fixture};

use ciphermq_tests::workspace::{Workspace, error_parts, failed};

/// Expects a usage error about `option`, with advice, and nothing on stdout.
pub(crate) async fn expect_refused(cli: Cli, option: &str) {
    let outcome = cli.run().await.code(2);
    assert_eq!(outcome.stdout, "");
    let (what, advice) = error_parts(&outcome);
    assert!(
        what.contains(option) && advice.contains(option),
        "{what}\n{advice}"
    );
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) async fn receive_refuses_files_that_are_in_use(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.write("client.toml", "retries = 3\n");
    symlink("certs/ca.crt", workspace.path("soft")).unwrap();
    fs::hard_link(
        workspace.path("certs/receiver_private.key"),
        workspace.path("hard"),
    )
    .unwrap();
    let before = |name: &str| fs::read(workspace.path(name)).unwrap();
    let (ca, key) = (before("certs/ca.crt"), before("certs/receiver_private.key"));
    let receive = |options: &[&str]| {
        let receive =
            workspace
                .cli("receive")
                .args(["--config", "client.toml", "--idle-exit", "0.05"]);
        receive.args(options)
    };
    for option in ["--output", "--checkpoint", "--quarantine"] {
        for path in [
            "certs/../certs/ca.crt",
            "soft",
            "hard",
            "./client.toml",
            "certs/receiver_1/client.key",
        ] {
            expect_refused(receive(&[option, path]), option).await;
        }
    }
    for options in [
        ["--output", "out", "--checkpoint", "./out"],
        ["--output", "out", "--quarantine", "certs/../out"],
        ["--checkpoint", "state", "--quarantine", "./state"],
    ] {
        expect_refused(receive(&options), options[2]).await;
    }
    assert_eq!(
        (ca, key),
        (before("certs/ca.crt"), before("certs/receiver_private.key"))
    );
    assert!(!workspace.path("out").exists() && !workspace.path("data").exists());
}

pub(crate) async fn send_refuses_checkpoints_that_are_in_use(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.write("in.jsonl", "1\n");
    symlink("in.jsonl", workspace.path("soft")).unwrap();
    fs::hard_link(workspace.path("in.jsonl"), workspace.path("hard")).unwrap();
    for again in [&["--again"][..], &[]] {
        for path in [
            "in.jsonl",
            "./in.jsonl",
            "certs/../in.jsonl",
            "soft",
            "hard",
            "certs/ca.crt",
        ] {
            let send = workspace
                .send()
                .args(["--file", "in.jsonl", "--checkpoint", path]);
            expect_refused(send.args(again), "--checkpoint").await;
            let send = workspace
                .send()
                .args(["--file", "soft", "--checkpoint", path]);
            expect_refused(send.args(again), "--checkpoint").await;
        }
    }
    assert_eq!(fs::read(workspace.path("in.jsonl")).unwrap(), b"1\n");
}

pub(crate) async fn unrelated_files_are_not_changed(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.write("in.jsonl", "1\n");
    workspace.write("out.jsonl", "");
    for content in [
        "some notes\n",
        "{\"a\":1}\n",
        "\0\u{1}\u{2}",
        "ciphermq-other 1\n",
    ] {
        workspace.write("notes", content);
        workspace.write("out.jsonl", "{\"message_id\":\"x\"}\n");
        for again in [&["--again"][..], &[]] {
            let send = workspace
                .send()
                .args(["--file", "in.jsonl", "--checkpoint", "notes"])
                .args(again);
            let (what, advice) = error_parts(&send.run().await.code(1));
            assert!(
                what.contains("notes") && advice.contains("Name another"),
                "{what}\n{advice}"
            );
        }
        let options = [
            "--output",
            "out.jsonl",
            "--checkpoint",
            "notes",
            "--idle-exit",
            "0.05",
        ];
        let receive = workspace.cli("receive").args(options);
        let (what, advice) = error_parts(&receive.run().await.code(1));
        assert!(
            what.contains("notes") && advice.contains("Name another"),
            "{what}\n{advice}"
        );
        assert_eq!(
            fs::read_to_string(workspace.path("notes")).unwrap(),
            content
        );
        assert!(!workspace.path("notes.damaged").exists());
    }
    // A damaged checkpoint is moved aside, without overwriting an unrelated file.
    let receive = || {
        let options = [
            "--output",
            "out.jsonl",
            "--checkpoint",
            "state",
            "--idle-exit",
            "0.05",
        ];
        workspace.cli("receive").args(options).run()
    };
    workspace.write("state.damaged", "mine\n");
    // The same damage is kept once.
    for _ in 0..3 {
        workspace.write("state", "ciphermq-processed 1\ndamaged\n");
        receive().await.success();
        let aside = workspace.path("state.damaged.1");
        assert_eq!(fs::read(aside).unwrap(), b"ciphermq-processed 1\ndamaged\n");
    }
    assert_eq!(
        fs::read(workspace.path("state.damaged")).unwrap(),
        b"mine\n"
    );
    // An empty or damaged checkpoint is replaced.
    for content in ["", "ciphermq-stream 1\ndamaged"] {
        workspace.write("sent", content);
        let send = workspace
            .send()
            .args(["--file", "in.jsonl", "--checkpoint", "sent", "--again"]);
        send.run().await.success();
    }
}

pub(crate) async fn links_are_kept_and_their_targets_are_written(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.write("in.jsonl", "1\n2\n");
    fs::create_dir(workspace.path("disk")).unwrap();
    let links = ["sent", "out.jsonl", "state", "aside.jsonl"];
    for name in links {
        symlink(format!("disk/new/{name}"), workspace.path(name)).unwrap();
    }
    for lines in ["1\n2\n", "1\n2\n3\n"] {
        workspace.write("in.jsonl", lines);
        let send = workspace
            .send()
            .args(["--file", "in.jsonl", "--checkpoint", "sent"]);
        send.run().await.success();
        let options = [
            "--output",
            "out.jsonl",
            "--checkpoint",
            "state",
            "--quarantine",
            "aside.jsonl",
        ];
        let receive = workspace
            .cli("receive")
            .args(options)
            .args(["--idle-exit", "0.5"]);
        receive.run().await.success();
        let received = ciphermq_tests::received::read(&workspace.path("disk/new/out.jsonl"));
        assert_eq!(received.len(), lines.lines().count());
    }
    assert_eq!(
        names(&workspace.path("disk/new")),
        ["out.jsonl", "sent", "state"]
    );
    for name in links {
        assert!(
            workspace
                .path(name)
                .symlink_metadata()
                .unwrap()
                .is_symlink(),
            "{name}"
        );
    }
}

pub(crate) async fn devices_are_written_and_never_replaced(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace
        .send_messages(&["for a key that is lost", "this one, too"])
        .await;
    workspace.new_key_pair();
    workspace.cli("register-key").run().await.success();
    workspace.send_messages(&["one"]).await;
    let receive = workspace
        .cli("receive")
        .args(["--quarantine", "/dev/null", "--count", "1"]);
    receive.run().await.success();
    assert_eq!(workspace.texts(), ["one"]);
    workspace.expect_empty_queue(&fixture.server).await;
    workspace.write("in.jsonl", "1\n");
    for again in [&["--again"][..], &[]] {
        let send = workspace
            .send()
            .args(["--file", "in.jsonl", "--checkpoint", "/dev/null"])
            .args(again);
        error_parts(&send.run().await.code(1));
    }
    let receive =
        workspace
            .cli("receive")
            .args(["--checkpoint", "/dev/null", "--idle-exit", "0.05"]);
    error_parts(&receive.run().await.code(1));
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

pub(crate) async fn names_that_are_too_long_are_shortened(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    for name in ["Ж".repeat(120), "x".repeat(255)] {
        workspace.write(&name, "1\n2\n");
        for text in ["", "already"] {
            let sent = workspace
                .send()
                .args(["--file", &name])
                .run()
                .await
                .success();
            assert!(sent.stderr.contains(text), "{}", sent.stderr);
        }
        let output = format!("data/{name}");
        for _ in 0..2 {
            let receive =
                workspace
                    .cli("receive")
                    .args(["--output", &output, "--idle-exit", "0.3"]);
            receive.run().await.success();
        }
        assert_eq!(
            ciphermq_tests::received::read(&workspace.path(&output)).len(),
            2
        );
    }
}

pub(crate) async fn created_files_are_private(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    // The usual umask, which may differ from that of the tests.
    let usual = ["sh", "-c", "umask 022; exec \"$@\"", "sh"].map(str::to_owned);
    workspace.register_receiver().await;
    workspace.write("in.jsonl", "1\n");
    workspace.send_messages(&["for a key that is lost"]).await;
    workspace.new_key_pair();
    workspace.cli("register-key").run().await.success();
    let send = workspace
        .send()
        .args(["--file", "in.jsonl", "--checkpoint", "state/sent"]);
    send.under(&usual).run().await.success();
    let options = [
        "--output",
        "new/deep/out.jsonl",
        "--quarantine",
        "aside/q.jsonl",
        "--pins",
        "pins",
    ];
    let receive = || {
        workspace
            .cli("receive")
            .args(options)
            .args(["--idle-exit", "0.3"])
    };
    receive().under(&usual).run().await.success();
    for folder in ["state", "new", "new/deep", "aside", "pins", "data"] {
        assert_eq!(mode(&workspace.path(folder)), 0o700, "{folder}");
    }
    for file in [
        "state/sent",
        "new/deep/out.jsonl",
        "new/deep/out.jsonl.ciphermq-receive",
        "aside/q.jsonl",
    ] {
        assert_eq!(mode(&workspace.path(file)), 0o600, "{file}");
        fs::set_permissions(workspace.path(file), fs::Permissions::from_mode(0o640)).unwrap();
    }
    // Existing files keep their modes, even if they are replaced.
    workspace.write("in.jsonl", "1\n2\n");
    let send = workspace
        .send()
        .args(["--file", "in.jsonl", "--checkpoint", "state/sent"]);
    send.under(&usual).run().await.success();
    receive().under(&usual).run().await.success();
    for file in [
        "state/sent",
        "new/deep/out.jsonl",
        "new/deep/out.jsonl.ciphermq-receive",
        "aside/q.jsonl",
    ] {
        assert_eq!(mode(&workspace.path(file)), 0o640, "{file}");
    }
}

pub(crate) async fn temporary_files_of_killed_runs_do_not_interfere(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.write("in.jsonl", "1\n");
    workspace.write("mine", "my own\n");
    // Names that older versions used for temporary files, one of them a planted link.
    symlink("mine", workspace.path("sent.new")).unwrap();
    workspace.write("data/received_messages.jsonl.ciphermq-receive.new", "half");
    for again in [&[][..], &["--again"], &["--again"]] {
        let send = workspace
            .send()
            .args(["--file", "in.jsonl", "--checkpoint", "sent"])
            .args(again);
        send.run().await.success();
    }
    workspace.receive(3).await;
    assert_eq!(fs::read(workspace.path("mine")).unwrap(), b"my own\n");
    assert!(
        workspace
            .path("sent.new")
            .symlink_metadata()
            .unwrap()
            .is_symlink()
    );
    let left = names(workspace.path("").as_path());
    assert!(
        left.iter().all(|name| !name.starts_with(".new-")),
        "{left:?}"
    );
}

pub(crate) async fn saved_keys_replace_saved_keys_only(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let record = format!("certs/{}_public.key", workspace.receiver);
    let get_key = || {
        workspace
            .cli("get-key")
            .args([&workspace.receiver, "--save"])
    };
    get_key().run().await.success();
    get_key().run().await.success();
    let key = fs::read(workspace.path(&record)).unwrap();
    fs::remove_file(workspace.path(&record)).unwrap();
    symlink("elsewhere", workspace.path(&record)).unwrap();
    get_key().run().await.success();
    assert_eq!(fs::read(workspace.path("certs/elsewhere")).unwrap(), key);
    workspace.write("certs/elsewhere", "my notes\n");
    let outcome = get_key().run().await.code(1);
    assert!(
        outcome.stderr.contains("was not saved"),
        "{}",
        outcome.stderr
    );
    assert_eq!(
        fs::read(workspace.path("certs/elsewhere")).unwrap(),
        b"my notes\n"
    );
}

pub(crate) async fn unrelated_files_are_not_appended_to(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let key = fs::read(workspace.path("certs/receiver_private.key")).unwrap();
    for content in [
        &key[..],
        b"[server]\naddress = \"localhost\"\n",
        b"{\n\"epoch\": 1\n}\n",
    ] {
        workspace.write("copy", content);
        for option in ["--output", "--quarantine"] {
            let receive = workspace
                .cli("receive")
                .args([option, "copy", "--idle-exit", "0.05"]);
            let (what, advice) = error_parts(&receive.run().await.code(1));
            assert!(
                what.contains("copy") && advice.contains("Name another"),
                "{what}\n{advice}"
            );
        }
        assert_eq!(fs::read(workspace.path("copy")).unwrap(), content);
        assert!(!workspace.path("copy.ciphermq-receive").exists());
    }
}

pub(crate) async fn options_without_effect_are_refused(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    for output in ["-", "/dev/stdout", "/dev/null"] {
        for options in [&["--checkpoint", "state"][..], &["--output-is-gone"]] {
            let receive = workspace.cli("receive").args(["--output", output]);
            expect_refused(
                receive.args(["--idle-exit", "0.05"]).args(options),
                options[0],
            )
            .await;
        }
    }
    assert!(!workspace.path("state").exists());
}

pub(crate) async fn an_empty_checkpoint_is_accepted(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.write("in.jsonl", "1\n");
    for name in ["sent", "state"] {
        workspace.write_private(name, "");
    }
    for expected in ["1 sent, 1 acknowledged", "already sent to"] {
        let send = workspace
            .send()
            .args(["--file", "in.jsonl", "--checkpoint", "sent"]);
        let sent = send.run().await.success();
        assert!(sent.stderr.contains(expected), "{}", sent.stderr);
    }
    let options = [
        "--output",
        "out.jsonl",
        "--checkpoint",
        "state",
        "--count",
        "1",
    ];
    workspace.cli("receive").args(options).run().await.success();
    for name in ["sent", "state"] {
        let text = fs::read_to_string(workspace.path(name)).unwrap();
        assert!(text.starts_with("ciphermq-"), "{name}: {text}");
    }
}

pub(crate) async fn a_link_and_its_file_are_sent_once(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    fs::create_dir(workspace.path("disk")).unwrap();
    workspace.write("disk/in.jsonl", "1\n");
    symlink("disk/in.jsonl", workspace.path("link")).unwrap();
    let names = ["link", "disk/in.jsonl", "link"];
    for (name, expected) in names
        .into_iter()
        .zip(["1 sent", "already sent", "already sent"])
    {
        let sent = workspace
            .send()
            .args(["--file", name])
            .run()
            .await
            .success();
        assert!(sent.stderr.contains(expected), "{name}: {}", sent.stderr);
    }
    // The checkpoint is where previous versions put it.
    let end = format!(".{}.ciphermq-send", workspace.receiver);
    let [there, before] =
        ["disk/in.jsonl", "link"].map(|name| workspace.path(&(name.to_owned() + &end)));
    fs::rename(there, &before).unwrap();
    workspace.write("disk/in.jsonl", "1\n2\n");
    let sent = workspace
        .send()
        .args(["--file", "link"])
        .run()
        .await
        .success();
    assert!(
        sent.stderr.contains("1 sent, 1 acknowledged"),
        "{}",
        sent.stderr
    );
}

pub(crate) async fn an_unwritable_quarantine_is_reported_at_the_start(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    workspace.send_messages(&["a"]).await;
    for quarantine in ["certs/ca.crt/below", "certs", "/proc/new", "/proc/new/file"] {
        let receive = workspace
            .cli("receive")
            .args(["--quarantine", quarantine, "--count", "1"]);
        let outcome = receive.run().await;
        assert_ne!(outcome.code, Some(0), "{quarantine}: {}", outcome.stderr);
        let (what, _) = error_parts(&outcome);
        assert!(what.contains(quarantine), "{what}");
    }
    workspace.receive(1).await;
    assert_eq!(workspace.texts(), ["a"]);
}

pub(crate) async fn a_quarantine_that_is_a_pipe_has_a_reader(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.register_receiver().await;
    let pipe = workspace.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
    workspace.send_messages(&["sealed"]).await;
    workspace.new_key_pair();
    let receive = || {
        let receive = workspace.cli("receive").args(["--quarantine", "pipe"]);
        receive.args(["--idle-exit", "1"])
    };
    let (what, advice) = failed(receive().run().await);
    assert!(what.contains("nobody reads"), "{what}");
    assert!(advice.contains("reader"), "{advice}");
    // A reader that ends when nobody has the pipe open for writing.
    let script = "cat pipe > read & \"$0\" \"$@\"; code=$?; wait; exit $code".to_owned();
    receive()
        .under(&["sh".to_owned(), "-c".to_owned(), script])
        .run()
        .await
        .success();
    let read = fs::read_to_string(workspace.path("read")).unwrap();
    assert!(read.contains("\"envelope\""), "{read}");
}
