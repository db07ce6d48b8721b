//! Renewals by `keygen renew`: for the same names, and never a pair that does not belong together
//! for longer than the documented moment.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::{Timestamp, ToSpan as _};
use keygen::files::is_mismatch;
use keygen::{CertsArgs, certs};

use crate::folder::Folder;

const PAIR: [&str; 2] = ["c/client.key", "c/client.crt"];

fn read(folder: &Folder, names: [&str; 2]) -> [Vec<u8>; 2] {
    names.map(|name| fs::read(folder.path(name)).unwrap())
}

/// Returns how many files of a folder have such a name.
fn names(folder: &Folder, name: &str, end: &str) -> usize {
    let files = fs::read_dir(folder.path(name)).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(end)).count()
}

fn is_pair(folder: &Folder) -> bool {
    !is_mismatch(&folder.path("c/client.crt"), &folder.path("c/client.key"))
}

#[test]
fn an_authority_at_hand_renews_at_once() {
    let folder = Folder::with(&["c"]);
    let before = read(&folder, PAIR);
    let done = folder.keygen("renew c --out . --ca . --days 5");
    assert!(done.starts_with("wrote ./c/client.crt\n"), "{done}");
    let after = read(&folder, PAIR);
    assert_eq!(after[0], before[0], "the key");
    assert_ne!(after[1], before[1], "the certificate");
    assert_eq!(folder.handshake("c", "localhost").unwrap(), "c");

    let done = folder.keygen("renew c/client.crt --ca . --new-key");
    assert!(
        done.starts_with("wrote c/client.key\nwrote c/client.crt\n"),
        "{done}"
    );
    assert_ne!(read(&folder, PAIR)[0], after[0], "the key");
    assert_eq!(folder.handshake("c", "localhost").unwrap(), "c");
    assert_eq!(names(&folder, "c", ".new"), 0, "nothing is left");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = fs::metadata(folder.path("c/client.key")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }

    let done = folder.keygen("renew server.crt --ca . --new-key");
    assert!(done.contains("SIGHUP"), "{done}");
    for host in ["localhost", "127.0.0.1", "::1"] {
        folder.handshake("c", host).unwrap();
    }
}

#[test]
fn a_reader_of_a_renewed_certificate_always_has_its_key() {
    let folder = Folder::with(&["c"]);
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !is_done.load(Ordering::Relaxed) {
                // Neither part of a file, nor a moment without one.
                folder.certificate("c/client.crt");
                folder.key("c/client.key");
                assert!(is_pair(&folder));
                reads += 1;
            }
            reads
        });
        for _ in 0..10 {
            folder.keygen("renew c --out . --ca .");
        }
        is_done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
}

/// Every state in which a power failure can leave a renewal with a new key.
#[test]
fn interrupted_renewals_are_completed() {
    let folder = Folder::with(&["c"]);
    let old = read(&folder, PAIR);
    folder.keygen("renew c --out . --ca . --new-key");
    let new = read(&folder, PAIR);
    let write = |name: &str, contents: Option<&Vec<u8>>| match contents {
        Some(contents) => fs::write(folder.path(name), contents).unwrap(),
        None => {
            let _ = fs::remove_file(folder.path(name));
        }
    };
    for (key, certificate, new_key, new_certificate, is_complete) in [
        (&old[0], &old[1], Some(&new[0]), None, false),
        (&old[0], &old[1], Some(&new[0]), Some(&new[1]), true),
        (&new[0], &old[1], None, Some(&new[1]), true),
    ] {
        write("c/client.key", Some(key));
        write("c/client.crt", Some(certificate));
        write("c/client.key.new", new_key);
        write("c/client.crt.new", new_certificate);
        let done = folder.keygen("renew c --out . --ca . --new-key");
        assert_eq!(done.contains("is completed"), is_complete, "{done}");
        // Not even the key is another one.
        assert_eq!(read(&folder, PAIR)[0], new[0]);
        assert_eq!(read(&folder, PAIR)[1] == new[1], is_complete);
        assert_eq!(names(&folder, "c", ".new"), 0);
        assert_eq!(folder.handshake("c", "localhost").unwrap(), "c");
    }
    // One that was given up, for a certificate that ends later than that: it is not completed.
    folder.keygen("renew c --out . --ca . --days 900");
    let later = read(&folder, PAIR);
    write("c/client.key", Some(&old[0]));
    write("c/client.key.new", Some(&later[0]));
    write("c/client.crt.new", Some(&new[1]));
    folder.keygen("csr --client c --key c/client.key --out client");
    folder.keygen("sign client/c/client.csr --out . --force --days 1000");
    let done = folder.keygen("renew c --out . --due");
    assert!(done.starts_with("kept"), "{done}");
    for name in ["c/client.key.new", "c/client.crt.new"] {
        write(name, None);
    }
    // What another renewal has left, and does not fit, is not used.
    let other = Folder::with(&["c"]);
    write("c/client.crt.new", Some(&read(&other, PAIR)[1]));
    folder.keygen("renew c --out . --ca .");
    assert!(is_pair(&folder));
    assert_eq!(folder.handshake("c", "localhost").unwrap(), "c");
}

#[test]
fn requests_for_renewals_are_signed_elsewhere_and_put_in_place() {
    for (option, is_new) in [("", false), ("--new-key", true)] {
        let folder = Folder::with(&["c"]);
        fs::rename(folder.path("c"), folder.path("client")).unwrap();
        let names = ["client/client.key", "client/client.crt"];
        let before = read(&folder, names);
        let done = folder.keygen(&format!("renew client/client.crt {option}"));
        assert!(done.contains("wrote client/client.csr"), "{done}");
        assert_eq!(
            done.contains("wrote client/client.key.new"),
            is_new,
            "{done}"
        );
        assert_eq!(read(&folder, names), before, "nothing is replaced yet");
        // A second run asks for the same key: the request may be on its way.
        folder.copy("client/client.csr", "first.csr");
        folder.keygen(&format!("renew client/client.crt {option}"));
        let refused = folder.refuses("sign client/client.csr --client d --out .");
        assert!(refused.contains("for the client `c`"), "{refused}");
        folder.keygen("sign first.csr --client c --out .");
        folder.keygen("renew client/client.crt --signed c/client.crt");
        let after = read(&folder, names);
        assert_eq!(after[0] != before[0], is_new);
        assert_ne!(after[1], before[1]);
        let (server, client) = ("server", "client/client");
        let name = folder.handshake_between("ca.crt", server, client, "localhost");
        assert_eq!(name.unwrap(), "c");
    }
}

#[test]
fn only_its_own_certificate_is_put_in_place() {
    let folder = Folder::with(&["c", "d"]);
    let refused = folder.refuses("renew c --out . --signed d/client.crt");
    assert!(
        refused.contains("d/client.crt is not for the client c"),
        "{refused}"
    );
    let refused = folder.refuses("renew c --out . --signed server.crt");
    assert!(refused.contains("is not for the client c"), "{refused}");
    let other = Folder::with(&["c"]);
    fs::copy(other.path("c/client.crt"), folder.path("other.crt")).unwrap();
    let refused = folder.refuses("renew c --out . --signed other.crt");
    assert!(
        refused.contains("does not belong to the certificate"),
        "{refused}"
    );
    // One that has ended, for the same key.
    let then = Timestamp::now() - (24 * 900).hours();
    let made = Folder::new();
    certs::run(&made.args(&["c"]), then).unwrap();
    let args = CertsArgs {
        days: 3000,
        ..folder.args(&["e"])
    };
    certs::run(&args, Timestamp::now()).unwrap();
    for name in PAIR {
        fs::copy(made.path(name), folder.path(name)).unwrap();
    }
    let refused = folder.refuses("renew c --out . --signed c/client.crt");
    assert!(refused.contains("expired at"), "{refused}");

    folder.openssl("req -new -key d/client.key -subj /CN=..\\/evil -out evil.csr");
    folder.openssl("x509 -req -in evil.csr -CA ca.crt -CAkey ca.key -out evil.crt");
    for (line, error) in [
        (
            "renew evil.crt --key d/client.key --ca .",
            "cannot be a client's name",
        ),
        ("renew ca.crt --ca .", "is not the certificate of either"),
        (
            "renew d --out . --key c/client.key --ca .",
            "does not belong to the certificate",
        ),
        (
            "renew d --out . --key d/client.crt --ca .",
            "are the same file",
        ),
        ("renew nobody --out . --ca .", "cannot read"),
        ("renew d --out . --ca d", "cannot read d/ca.crt"),
        (
            "renew d --out . --ca . --signed d/client.crt",
            "cannot be used with",
        ),
    ] {
        let refused = folder.refuses(line);
        assert!(refused.contains(error), "{line}: {refused}");
    }
}

#[test]
fn a_renewal_is_due_when_a_third_of_the_lifetime_is_left() {
    let folder = Folder::with(&["c"]);
    let done = folder.keygen("renew c --out . --ca . --due");
    assert!(done.starts_with("kept ./c/client.crt\n"), "{done}");
    // 90 days, from the day before on: due after 60.
    for (age, is_due) in [(58, false), (62, true), (89, true), (100, true)] {
        let folder = Folder::new();
        let args = CertsArgs {
            days: 89,
            ..folder.args(&["c"])
        };
        certs::run(&args, Timestamp::now() - (24 * age).hours()).unwrap();
        let done = folder.keygen("renew c --out . --ca . --due");
        assert_eq!(done.starts_with("wrote"), is_due, "{age}: {done}");
    }
}

#[test]
fn revoking_a_client_revokes_what_was_renewed_as_well() {
    let folder = Folder::with(&["c", "d"]);
    let certificate = |name: &str| fs::read_to_string(folder.path(name)).unwrap();
    let mut all = vec![certificate("c/client.crt")];
    // In the authority's own folder, for a request, and elsewhere.
    folder.keygen("renew c --out . --ca .");
    all.push(certificate("c/client.crt"));
    folder.keygen("csr --client c --key c/client.key --out client");
    folder.keygen("sign client/c/client.csr --out . --force");
    all.push(certificate("c/client.crt"));
    folder.copy("c/client.crt", "client/c/client.crt");
    folder.copy("c/client.key", "client/c/client.key");
    fs::remove_file(folder.path("c/client.key")).unwrap();
    folder.keygen("renew c --out client --ca . --new-key");
    all.push(certificate("client/c/client.crt"));
    assert_eq!(names(&folder, "c", ".crt"), 4);
    all.dedup();
    assert_eq!(all.len(), 4);

    let done = folder.keygen("revoke c --out .");
    assert!(done.contains("Revoked certificates: 4."), "{done}");
    let verify = |certificate: &str| {
        fs::write(folder.path("one.crt"), certificate).unwrap();
        folder.openssl_outcome("verify -crl_check -CRLfile ca.crl -CAfile ca.crt one.crt")
    };
    for certificate in &all {
        let (is_good, text) = verify(certificate);
        assert!(!is_good && text.contains("certificate revoked"), "{text}");
    }
    assert!(verify(&certificate("d/client.crt")).0);
    // A file is that certificate alone.
    folder.keygen("renew d --out . --ca .");
    let done = folder.keygen("revoke d/client.crt --out .");
    assert!(done.contains("Revoked certificates: 5."), "{done}");
}

#[test]
fn certificates_that_have_ended_are_not_kept() {
    let folder = Folder::new();
    let args = CertsArgs {
        days: 1,
        ..folder.args(&["c"])
    };
    certs::run(&args, Timestamp::now() - (24 * 5).hours()).unwrap();
    folder.keygen("renew c --out . --ca .");
    assert_eq!(names(&folder, "c", ".crt"), 2);
    folder.keygen("renew c --out . --ca .");
    folder.keygen("renew c --out . --ca .");
    assert_eq!(names(&folder, "c", ".crt"), 3);
}
