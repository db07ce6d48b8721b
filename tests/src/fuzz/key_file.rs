use std::cell::RefCell;
use std::io::{Seek as _, Write as _};

use ciphermq_crypto::key_file::{
    read_private, read_public, read_x_wing_private, read_x_wing_public,
};
use tempfile::NamedTempFile;

thread_local! {
    /// The file, with mode 0600, which is created once and rewritten for each input.
    static FILE: RefCell<NamedTempFile> = RefCell::new(NamedTempFile::new().expect("a file can be \
        created"));
}

/// Checks that a file contains at most one kind of key, and that the encoding of a key is unique.
pub fn key_file(data: &[u8]) {
    FILE.with_borrow_mut(|file| {
        let whole = file.as_file_mut();
        whole.set_len(0).expect("a file can be truncated");
        whole.rewind().expect("a file can be rewound");
        whole.write_all(data).expect("a file can be written");
        let path = file.path();
        let private = read_private(path)
            .ok()
            .map(|key| key.to_base64().to_string());
        let x_wing_private = read_x_wing_private(path)
            .ok()
            .map(|key| format!("XWING {}", *key.to_base64()));
        let public = read_public(path).ok().map(|key| key.to_base64());
        let x_wing_public = read_x_wing_public(path)
            .ok()
            .map(|key| format!("XWING {}", key.to_base64()));
        // An X25519 key is 32 bytes, whether private or public, so a file may be accepted as both.
        let kinds = [&private, &x_wing_private, &x_wing_public];
        assert!(
            kinds.iter().filter(|kind| kind.is_some()).count() <= 1,
            "two kinds of keys"
        );
        for encoded in [private, x_wing_private, public, x_wing_public]
            .into_iter()
            .flatten()
        {
            let text = std::str::from_utf8(data).expect("a key is text");
            let line = text.strip_suffix('\n').unwrap_or(text);
            let line = line.strip_suffix('\r').unwrap_or(line);
            assert_eq!(line, encoded, "a key has one encoding");
        }
    });
}
