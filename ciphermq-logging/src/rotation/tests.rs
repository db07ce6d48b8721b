use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use super::*;

/// 2025-09-08T07:03:00Z
const MORNING: u64 = 1_757_314_980;
const HOUR: u64 = 3_600;
const DAY: u64 = 86_400;

fn file(path: &Path, rotation: Rotation, max_bytes: Option<u64>) -> RotatingFile {
    let clock: Clock = Arc::new(|| Duration::from_secs(MORNING));
    RotatingFile::new(path.to_owned(), rotation, max_bytes, "INFO", clock)
}

fn write(file: &mut RotatingFile, second: u64, lines: &str) {
    file.write(Duration::from_secs(second), lines.as_bytes())
        .unwrap();
}

/// Returns every file in the folder, with its contents.
fn files(folder: &Path) -> BTreeMap<String, String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let content = fs::read_to_string(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), content)
        })
        .collect()
}

fn expect(folder: &Path, wanted: &[(&str, &str)]) {
    let wanted = wanted
        .iter()
        .map(|(name, content)| ((*name).to_owned(), (*content).to_owned()))
        .collect::<BTreeMap<_, _>>();
    assert_eq!(files(folder), wanted);
}

#[test]
fn daily_begins_a_new_file_at_midnight() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = file(&folder.path().join("a.log"), Rotation::Daily, None);
    write(&mut log, MORNING, "one\n");
    write(&mut log, MORNING / DAY * DAY + DAY - 1, "two\n");
    expect(folder.path(), &[("a.log", "one\ntwo\n")]);
    write(&mut log, MORNING / DAY * DAY + DAY, "three\n");
    expect(
        folder.path(),
        &[("a.log", "three\n"), ("a.log.2025-09-08", "one\ntwo\n")],
    );
}

#[test]
fn hourly_rotation_starts_a_file_on_the_hour() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = file(&folder.path().join("a.log"), Rotation::Hourly, None);
    write(&mut log, MORNING, "one\n");
    write(&mut log, MORNING + HOUR, "two\n");
    write(&mut log, MORNING + 5 * HOUR, "three\n");
    expect(
        folder.path(),
        &[
            ("a.log", "three\n"),
            ("a.log.2025-09-08-07", "one\n"),
            ("a.log.2025-09-08-08", "two\n"),
        ],
    );
}

#[test]
fn old_files_are_removed_only_where_the_server_makes_them() {
    let retention = Retention {
        max_total: None,
        max_files: Some(1),
    };
    let old = |folder: &Path| {
        for number in 1..=3 {
            fs::write(folder.join(format!("a.log.{number}")), "x\n").unwrap();
        }
    };
    // Without any rotation of its own, numbered files are those of a tool.
    for (max_bytes, left) in [(None, 4), (Some(100), 2)] {
        let folder = tempfile::tempdir().unwrap();
        old(folder.path());
        let path = folder.path().join("a.log");
        let mut log = file(&path, Rotation::Never, max_bytes).retaining(retention);
        log.open().unwrap();
        assert_eq!(files(folder.path()).len(), left);
    }
    // A new file makes the one before it an old one.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let mut log = file(&path, Rotation::Daily, None).retaining(retention);
    for day in 0..4 {
        write(&mut log, MORNING + day * DAY, &format!("{day}\n"));
    }
    expect(
        folder.path(),
        &[("a.log", "3\n"), ("a.log.2025-09-10", "2\n")],
    );
}

#[test]
fn never_ignores_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = file(&folder.path().join("a.log"), Rotation::Never, None);
    write(&mut log, MORNING, "one\n");
    write(&mut log, MORNING + 400 * DAY, "two\n");
    expect(folder.path(), &[("a.log", "one\ntwo\n")]);
}

#[test]
fn size_and_time_work_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = file(&folder.path().join("a.log"), Rotation::Daily, Some(10));
    // Three lines of 5 bytes at once: two fit.
    write(&mut log, MORNING, "1111\n2222\n3333\n");
    write(&mut log, MORNING, "4444\n");
    write(&mut log, MORNING, "5555\n");
    write(&mut log, MORNING + DAY, "6666\n");
    expect(
        folder.path(),
        &[
            ("a.log", "6666\n"),
            ("a.log.2025-09-08", "1111\n2222\n"),
            ("a.log.2025-09-08.1", "3333\n4444\n"),
            ("a.log.2025-09-08.2", "5555\n"),
        ],
    );
}

#[test]
fn rotation_by_size_numbers_files_in_ascending_order() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log.7.gz"), "old").unwrap();
    fs::write(folder.path().join("a.log.2025-09-08"), "other").unwrap();
    fs::write(folder.path().join("a.logger.9"), "other").unwrap();
    let mut log = file(&folder.path().join("a.log"), Rotation::Never, Some(5));
    for line in ["1111\n", "2222\n", "3333\n"] {
        write(&mut log, MORNING, line);
    }
    let found = files(folder.path());
    assert_eq!(found["a.log.8"], "1111\n");
    assert_eq!(found["a.log.9"], "2222\n");
    assert_eq!(found["a.log"], "3333\n");
    assert_eq!(found.len(), 6);
}

#[test]
fn a_line_longer_than_a_file_gets_one_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = file(&folder.path().join("a.log"), Rotation::Never, Some(5));
    write(&mut log, MORNING, "1\n222222222\n3\n");
    expect(
        folder.path(),
        &[
            ("a.log", "3\n"),
            ("a.log.1", "1\n"),
            ("a.log.2", "222222222\n"),
        ],
    );
}

#[test]
fn a_late_line_stays_and_a_clock_set_back_begins_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = file(&folder.path().join("a.log"), Rotation::Daily, None);
    write(&mut log, MORNING, "one\n");
    write(&mut log, MORNING - DAY, "late\n");
    expect(folder.path(), &[("a.log", "one\nlate\n")]);
    write(&mut log, MORNING - 30 * DAY, "back\n");
    expect(
        folder.path(),
        &[("a.log", "back\n"), ("a.log.2025-09-08", "one\nlate\n")],
    );
}

#[test]
fn a_restart_appends_after_ending_half_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/a.log");
    write(
        &mut file(&path, Rotation::Never, Some(20)),
        MORNING,
        "one\n",
    );
    OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"ha")
        .unwrap();
    let mut log = file(&path, Rotation::Never, Some(20));
    write(&mut log, MORNING, "two\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\nha\ntwo\n");
    // The existing bytes count: 11, and 10 more are too many.
    write(&mut log, MORNING, "123456789\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "123456789\n");
}

#[test]
fn a_restart_on_another_day_rotates_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    write(&mut file(&path, Rotation::Daily, None), MORNING, "one\n");
    let yesterday = std::time::UNIX_EPOCH + Duration::from_secs(MORNING);
    File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .set_modified(yesterday)
        .unwrap();
    let mut log = file(&path, Rotation::Daily, None);
    log.open().unwrap();
    write(&mut log, MORNING + DAY, "two\n");
    expect(
        folder.path(),
        &[("a.log", "two\n"), ("a.log.2025-09-08", "one\n")],
    );
}

#[test]
fn a_moved_or_truncated_file_is_continued_under_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let mut log = file(&path, Rotation::Never, Some(12));
    write(&mut log, MORNING, "one\n");
    fs::rename(&path, folder.path().join("moved")).unwrap();
    write(&mut log, MORNING, "two\n");
    fs::remove_file(&path).unwrap();
    write(&mut log, MORNING, "12345678\n");
    File::create(&path).unwrap();
    write(&mut log, MORNING, "four\n");
    expect(folder.path(), &[("a.log", "four\n"), ("moved", "one\n")]);
}

#[test]
fn a_failure_reports_what_was_written_and_passes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no-folder/a.log");
    fs::write(
        folder.path().join("no-folder"),
        "a file where a folder should be",
    )
    .unwrap();
    let mut log = file(&path, Rotation::Daily, None);
    assert!(log.open().is_err());
    let failure = log
        .write(Duration::from_secs(MORNING), b"one\n")
        .unwrap_err();
    assert_eq!(failure.written, 0);
    fs::remove_file(folder.path().join("no-folder")).unwrap();
    write(&mut log, MORNING, "one\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
}

#[test]
fn a_full_disk_leaves_no_half_line() {
    // A device that refuses every write as a full disk does.
    let full = File::options().append(true).open("/dev/full").unwrap();
    let mut open = Open {
        file: full,
        place: PathBuf::from("/dev/full"),
        rotates: false,
        bytes: 0,
        period: 0,
        identity: (0, 0),
        room: None,
    };
    let partial = append(&mut open, b"one\n").map(drop).unwrap_err();
    assert_eq!(partial.count, 0);
    assert_eq!(partial.source.kind(), io::ErrorKind::StorageFull);
    assert_eq!(open.bytes, 0);
}

#[test]
fn a_failed_rotation_lets_the_file_grow_and_is_retried() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    let mut log = file(&path, Rotation::Daily, Some(6));
    write(&mut log, MORNING, "1111\n");
    // A name too long for the file system stands for a folder without write permission: root may
    // write everywhere.
    log.path = folder.path().join("a".repeat(250));
    fs::rename(&path, &log.path).unwrap();
    write(&mut log, MORNING, "2222\n");
    assert!(log.complaint().unwrap().contains("cannot rotate"));
    write(&mut log, MORNING + 1, "3333\n");
    assert!(
        log.complaint().is_none(),
        "not complained of with every line"
    );
    assert_eq!(fs::read_to_string(&log.path).unwrap(), "1111\n2222\n3333\n");
    fs::rename(&log.path, &path).unwrap();
    log.path = path;
    write(&mut log, MORNING + RETRY_SECONDS, "4444\n");
    expect(
        folder.path(),
        &[
            ("a.log", "4444\n"),
            ("a.log.2025-09-08", "1111\n2222\n3333\n"),
        ],
    );
}

#[test]
fn the_file_is_not_for_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.log");
    write(&mut file(&path, Rotation::Never, None), MORNING, "one\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
}

#[test]
fn a_link_stays_and_its_target_is_rotated_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    let link = folder.path().join("a.log");
    std::os::unix::fs::symlink("disk/b.log", &link).unwrap();
    let mut log = file(&link, Rotation::Daily, Some(5));
    write(&mut log, MORNING, "one\n");
    write(&mut log, MORNING, "two\n");
    write(&mut log, MORNING + DAY, "six\n");
    assert!(link.symlink_metadata().unwrap().is_symlink());
    expect(
        &disk,
        &[
            ("b.log", "six\n"),
            ("b.log.2025-09-08", "one\n"),
            ("b.log.2025-09-08.1", "two\n"),
        ],
    );
}

#[test]
fn inherited_descriptors_are_shared_and_never_renamed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("redirected");
    let mut output = File::create(&path).unwrap();
    rustix::io::fcntl_setfd(&output, rustix::io::FdFlags::empty()).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&output);
    let link = folder.path().join("stdout.log");
    std::os::unix::fs::symlink(format!("/proc/self/fd/{number}"), &link).unwrap();
    for name in [PathBuf::from(format!("/dev/fd/{number}")), link] {
        let mut log = file(&name, Rotation::Daily, Some(5));
        output.write_all(b"header\n").unwrap();
        write(&mut log, MORNING, "one\n");
        write(&mut log, MORNING + DAY, "two\n");
    }
    output.write_all(b"footer\n").unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "header\none\ntwo\nheader\none\ntwo\nfooter\n"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    let mut null = file(Path::new("/dev/null"), Rotation::Hourly, Some(5));
    write(&mut null, MORNING, "one\ntwo\n");
    write(&mut null, MORNING + DAY, "six\n");
    assert!(!fs::metadata("/dev/null").unwrap().is_file() && null.complaint().is_none());
}

#[test]
fn names_that_are_too_long_with_a_date_are_shortened() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = file(&folder.path().join("x".repeat(250)), Rotation::Daily, None);
    write(&mut log, MORNING, "one\n");
    write(&mut log, MORNING + DAY, "two\n");
    assert!(log.complaint().is_none());
    let contents: Vec<_> = files(folder.path()).into_values().collect();
    assert_eq!(contents.len(), 2, "{contents:?}");
}
