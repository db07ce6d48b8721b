//! Every file that a command writes is its own: not its input, a key, a certificate, or another of
//! its outputs, however it is spelt or linked. Otherwise a slip of the hand replaces data, or puts
//! messages into a key.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ciphermq_files::is_same_file;

use crate::exit::Failure;

/// How files begin that nothing may be appended to, with what they are.
const BEGINNINGS: [(&[u8], &str); 4] = [
    (b"-----BEGIN ", "a certificate or a key"),
    (b"SQLite format 3\0", "a database"),
    (b"ciphermq-processed ", "a checkpoint"),
    (b"ciphermq-stream ", "a checkpoint"),
];

/// The files that a command works with, by what they are to it.
#[derive(Debug, Default)]
pub(crate) struct OwnFiles {
    taken: Vec<(String, PathBuf)>,
}

impl OwnFiles {
    /// A file that is read, or kept beside: nothing may be written over it.
    pub(crate) fn add(&mut self, what: impl Into<String>, path: impl Into<PathBuf>) {
        self.taken.push((what.into(), path.into()));
    }

    /// The keys, certificates and pins in a folder, whichever of them is in use.
    pub(crate) fn add_keys_in(&mut self, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            if is_key_or_pin(&path) {
                self.add(
                    format!("the key, certificate or pin {}", path.display()),
                    path,
                );
            }
        }
    }

    /// A file that is to be written, named by an option; afterwards no other may be it.
    ///
    /// # Errors
    ///
    /// [`Failure`] of usage if it is one of those that were added or claimed before.
    pub(crate) fn claim(&mut self, option: &str, path: &Path) -> Result<(), Failure> {
        if let Some(other) = self.other(path) {
            return Err(Failure::usage(
                format!("The file {} of {option} is also {other}.", path.display()),
                format!("Name a file of its own with {option}: it would be overwritten."),
            ));
        }
        self.add(format!("the file of {option}"), path);
        Ok(())
    }

    /// What a file is already.
    fn other(&self, path: &Path) -> Option<&str> {
        let mut taken = self.taken.iter();
        let (what, _) = taken.find(|(_, taken)| is_same_file(path, taken))?;
        Some(what)
    }

    /// The file that standard output leads to, if it is one: afterwards no other may be it.
    ///
    /// # Errors
    ///
    /// [`Failure`] of usage if it is one of those that were added or claimed before, or holds
    /// something else that is known.
    pub(crate) fn claim_stdout(&mut self) -> Result<(), Failure> {
        let path = Path::new("/dev/fd/1");
        let other = self.other(path).map(|other| format!("is also {other}"));
        match other.or_else(|| holds(path).map(|what| format!("holds {what}"))) {
            Some(what) => Err(Failure::usage(
                format!("The file that standard output leads to {what}."),
                "Let it lead to a file of its own: that one would be of no use afterwards.",
            )),
            None => {
                self.add("the file that standard output leads to", path);
                Ok(())
            }
        }
    }

    /// The same for a file that lines are appended to: one that holds something else that is known
    /// is refused, too.
    ///
    /// # Errors
    ///
    /// [`Failure`] of usage.
    pub(crate) fn claim_for_lines(&mut self, option: &str, path: &Path) -> Result<(), Failure> {
        self.claim(option, path)?;
        match holds(path) {
            None => Ok(()),
            Some(what) => Err(Failure::usage(
                format!("The file {} of {option} holds {what}.", path.display()),
                format!(
                    "Name another file with {option}: what it holds would be of no use afterwards."
                ),
            )),
        }
    }
}

fn is_key_or_pin(path: &Path) -> bool {
    let is_key = path.extension().is_some_and(|end| {
        ["key", "crt", "cer", "pem"]
            .iter()
            .any(|&known| end == OsStr::new(known))
    });
    let name = path.as_os_str().as_encoded_bytes();
    is_key || name.ends_with(b".pin.json") || name.ends_with(b"_announced.json")
}

/// What a file holds that is none of ours to append to, if that is known.
fn holds(path: &Path) -> Option<&'static str> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut start = Vec::new();
    File::open(path)
        .ok()?
        .take(64)
        .read_to_end(&mut start)
        .ok()?;
    BEGINNINGS
        .iter()
        .find(|(beginning, _)| start.starts_with(beginning))
        .map(|&(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_file_has_two_roles_however_it_is_spelt_or_linked() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("in.jsonl"), "1\n").unwrap();
        fs::create_dir(at("certs")).unwrap();
        fs::write(at("certs/a_public.pin.json"), "{}").unwrap();
        fs::hard_link(at("in.jsonl"), at("hard")).unwrap();
        symlink("in.jsonl", at("soft")).unwrap();
        symlink("out.jsonl", at("to-out")).unwrap();
        let mut files = OwnFiles::default();
        files.add("--file", at("in.jsonl"));
        files.add_keys_in(&at("certs"));
        files.claim("--output", &at("out.jsonl")).unwrap();
        for name in [
            "in.jsonl",
            "certs/../in.jsonl",
            "hard",
            "soft",
            "to-out",
            "./out.jsonl",
            "certs/a_public.pin.json",
        ] {
            let failure = files.claim("--checkpoint", &at(name)).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage, "{name}");
            assert!(failure.to_string().contains("--checkpoint"), "{failure}");
        }
        files.claim("--checkpoint", &at("new")).unwrap();
    }

    #[test]
    fn lines_are_not_appended_to_what_is_known_to_be_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (content, is_refused) in [
            ("-----BEGIN CERTIFICATE-----\n", true),
            ("ciphermq-stream 1\n", true),
            ("{\"message_id\":\"1\"}\n", false),
            ("", false),
        ] {
            fs::write(&path, content).unwrap();
            let claimed = OwnFiles::default().claim_for_lines("--quarantine", &path);
            assert_eq!(claimed.is_err(), is_refused, "{content}");
            assert_eq!(fs::read(&path).unwrap(), content.as_bytes());
        }
    }
}
