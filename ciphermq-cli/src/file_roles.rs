//! Checks that a command writes no file that it uses otherwise: its input, a key, a certificate, or
//! another of its outputs, however the paths are spelt or linked. A mistyped option must not
//! overwrite data, or append messages to a key.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ciphermq_files::{is_same_file, own_descriptor, resolve};

use crate::exit::Failure;

/// Files that nothing may be appended to: how they begin, and what they are.
const KNOWN_FORMATS: [(&[u8], &str); 4] = [
    (b"-----BEGIN ", "a certificate or a key"),
    (b"SQLite format 3\0", "a database"),
    (b"ciphermq-processed ", "a checkpoint"),
    (b"ciphermq-stream ", "a checkpoint"),
];

/// The files that a command uses, each with its role.
#[derive(Debug, Default)]
pub(crate) struct FileRoles {
    files: Vec<(String, PathBuf)>,
}

impl FileRoles {
    /// Adds a file that must not be overwritten.
    pub(crate) fn add(&mut self, role: impl Into<String>, path: impl Into<PathBuf>) {
        self.files.push((role.into(), path.into()));
    }

    /// Adds all keys, certificates and pins in a folder.
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

    /// Adds a file that an option names and that is to be written.
    ///
    /// # Errors
    ///
    /// [`Failure`] of usage if the file has another role already.
    pub(crate) fn claim(&mut self, option: &str, path: &Path) -> Result<(), Failure> {
        if let Some(role) = self.role_of(path) {
            return Err(Failure::usage(
                format!("The file {} of {option} is also {role}.", path.display()),
                format!("Name another file with {option}: this one would be overwritten."),
            ));
        }
        self.add(format!("the file of {option}"), path);
        Ok(())
    }

    /// The role that a file has already, if any.
    fn role_of(&self, path: &Path) -> Option<&str> {
        let mut files = self.files.iter();
        let role = files.find(|(_, file)| is_same_file(path, file));
        match role {
            Some((role, _)) => Some(role),
            None => is_file_of_stderr(path).then_some("the file that standard error leads to"),
        }
    }

    /// Adds the file that standard output leads to, if it is one.
    ///
    /// # Errors
    ///
    /// [`Failure`] of usage if the file has another role already, or a known format.
    pub(crate) fn claim_stdout(&mut self) -> Result<(), Failure> {
        let path = Path::new("/dev/fd/1");
        let conflict = self.role_of(path).map(|role| format!("is also {role}"));
        match conflict.or_else(|| known_content(path).map(|what| format!("holds {what}"))) {
            Some(conflict) => Err(Failure::usage(
                format!("The file that standard output leads to {conflict}."),
                "Redirect it to another file: that one would be unusable afterwards.",
            )),
            None => {
                self.add("the file that standard output leads to", path);
                Ok(())
            }
        }
    }

    /// Adds a file that an option names and that lines are to be appended to.
    ///
    /// # Errors
    ///
    /// [`Failure`] of usage if the file has another role already, or a known format.
    pub(crate) fn claim_for_lines(&mut self, option: &str, path: &Path) -> Result<(), Failure> {
        self.claim(option, path)?;
        match known_content(path) {
            None => Ok(()),
            Some(what) => Err(Failure::usage(
                format!("The file {} of {option} holds {what}.", path.display()),
                format!("Name another file with {option}: this one would be unusable afterwards."),
            )),
        }
    }
}

/// Whether a path that is not a descriptor leads to the file of standard error. What is written
/// there would overwrite the file from its own offset on; a descriptor shares the offset.
fn is_file_of_stderr(path: &Path) -> bool {
    let is_descriptor = || resolve(path).is_ok_and(|path| own_descriptor(&path).is_some());
    is_same_file(path, Path::new("/dev/fd/2")) && !is_descriptor()
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

/// The content of a file that lines must not be appended to, if its format is known.
fn known_content(path: &Path) -> Option<&'static str> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut start = Vec::new();
    File::open(path)
        .ok()?
        .take(64)
        .read_to_end(&mut start)
        .ok()?;
    KNOWN_FORMATS
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
        let mut files = FileRoles::default();
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
    fn lines_are_not_appended_to_files_of_known_formats() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (content, is_refused) in [
            ("-----BEGIN CERTIFICATE-----\n", true),
            ("ciphermq-stream 1\n", true),
            ("{\"message_id\":\"1\"}\n", false),
            ("", false),
        ] {
            fs::write(&path, content).unwrap();
            let claimed = FileRoles::default().claim_for_lines("--quarantine", &path);
            assert_eq!(claimed.is_err(), is_refused, "{content}");
            assert_eq!(fs::read(&path).unwrap(), content.as_bytes());
        }
    }
}
