use super::*;

#[test]
fn calls_are_read_with_their_times() {
    let log = concat!(
        "7  10.000001 openat(AT_FDCWD<\\x2f\\x61>, \"\\x62\", O_RDWR|O_CREAT, 0600) = ",
        "3<\\x2f\\x61\\x2f\\x62> <0.000002>\n",
        "8  10.000005 fsync(3<\\x2f\\x61\\x2f\\x62> <unfinished ...>\n",
        "7  10.000006 pwritev(3<\\x2f\\x61\\x2f\\x62>, [{iov_base=\"\\x31\\x32\", iov_len=2}, ",
        "{iov_base=\"\\x33\", iov_len=1}], 2, 4) = 3 <9.0>\n",
        "8  10.000009 <... fsync resumed>) = 0 (DELAYED) <0.000004>\n",
        "7  10.000010 unlink(\"\\x63\") = -1 ENOENT (No such file or directory) <0.1>\n",
        "7  10.000011 write(4<\\x73\\x6f\\x63\\x6b\\x65\\x74>, \"\\x61\", 1) = 1 <0.1>\n",
        "7  10.000012 +++ killed by SIGKILL +++\n",
    );
    let path = PathBuf::from("/a/b");
    let event = |start: u64, end: u64, call| Event {
        start: 10_000_000 + start,
        end: 10_000_000 + end,
        call,
    };
    let expected = [
        event(
            1,
            3,
            Call::Open {
                descriptor: 3,
                path: path.clone(),
                creates: true,
                truncates: false,
                appends: false,
            },
        ),
        event(
            6,
            9,
            Call::Write {
                descriptor: 3,
                path: path.clone(),
                offset: Some(4),
                data: b"123".to_vec(),
            },
        ),
        event(5, 9, Call::Sync(path)),
    ];
    assert_eq!(parse(log, Path::new("/w")), expected);
}
