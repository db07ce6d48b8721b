//! Which files commands write: their own, where links lead, for their owner alone, and never
//! somebody else's.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use ciphermq_tests::{Cli, Fixture};

use super::workspace::{Workspace, two_parts};

/// A usage error about `option`: nothing on stdout, and what to do.
async fn refused(cli: Cli, option: &str) {
    let outcome = cli.run().await.code(2);
    assert_eq!(outcome.stdout, "");
    let (what, advice) = two_parts(&outcome);
    assert!(
        what.contains(option) && advice.contains(option),
        "{what}\n{advice}"
    );
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

pub(crate) async fn no_file_of_receive_is_another_one_in_use(fixture: Fixture) {
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
            refused(receive(&[option, path]), option).await;
        }
    }
    for options in [
        ["--output", "out", "--checkpoint", "./out"],
        ["--output", "out", "--quarantine", "certs/../out"],
        ["--checkpoint", "state", "--quarantine", "./state"],
    ] {
        refused(receive(&options), options[2]).await;
    }
    assert_eq!(
        (ca, key),
        (before("certs/ca.crt"), before("certs/receiver_private.key"))
    );
    assert!(!workspace.path("out").exists() && !workspace.path("data").exists());
}

pub(crate) async fn no_checkpoint_of_send_is_another_file_in_use(fixture: Fixture) {
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
            refused(send.args(again), "--checkpoint").await;
            let send = workspace
                .send()
                .args(["--file", "soft", "--checkpoint", path]);
            refused(send.args(again), "--checkpoint").await;
        }
    }
    assert_eq!(fs::read(workspace.path("in.jsonl")).unwrap(), b"1\n");
}

pub(crate) async fn strangers_files_stay_as_they_are(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.introduce().await;
    workspace.write("in.jsonl", "1\n");
    workspace.write("out.jsonl", "");
    for content in [
        "dear diary\n",
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
            let (what, advice) = two_parts(&send.run().await.code(1));
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
        let (what, advice) = two_parts(&receive.run().await.code(1));
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
    // A damaged one of ours is set aside, and not onto a stranger's file.
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
    for number in [1, 1, 1] {
        workspace.write("state", "ciphermq-processed 1\ndamaged\n");
        receive().await.success();
        let aside = workspace.path(&format!("state.damaged.{number}"));
        assert_eq!(fs::read(aside).unwrap(), b"ciphermq-processed 1\ndamaged\n");
    }
    assert_eq!(
        fs::read(workspace.path("state.damaged")).unwrap(),
        b"mine\n"
    );
    // Empty, or a damaged one of ours: begun anew.
    for content in ["", "ciphermq-stream 1\ndamaged"] {
        workspace.write("sent", content);
        let send = workspace
            .send()
            .args(["--file", "in.jsonl", "--checkpoint", "sent", "--again"]);
        send.run().await.success();
    }
}

pub(crate) async fn links_stay_and_lead_to_what_is_written(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.introduce().await;
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
    workspace.introduce().await;
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
        two_parts(&send.run().await.code(1));
    }
    let receive =
        workspace
            .cli("receive")
            .args(["--checkpoint", "/dev/null", "--idle-exit", "0.05"]);
    two_parts(&receive.run().await.code(1));
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
}

pub(crate) async fn names_that_are_too_long_are_shortened(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.introduce().await;
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

pub(crate) async fn what_is_made_is_its_owners_alone(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    // The usual umask, whatever that of the tests is.
    let usual = ["sh", "-c", "umask 022; exec \"$@\"", "sh"].map(str::to_owned);
    workspace.introduce().await;
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
    // Those that are there keep their modes, also where they are replaced as a whole.
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

pub(crate) async fn drafts_of_killed_runs_are_in_nobodys_way(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.introduce().await;
    workspace.write("in.jsonl", "1\n");
    workspace.write("mine", "my own\n");
    // Names that older versions used for their drafts, one of them a trap.
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

pub(crate) async fn records_of_keys_replace_records_only(fixture: Fixture) {
    let workspace = Workspace::of(&fixture);
    workspace.introduce().await;
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
