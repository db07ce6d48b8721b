//! Refuses configurations in which one file has two roles, however it is spelt or linked.
//!
//! A log that is the database, or a database that is a private key, would destroy it. Paths are
//! compared by the files they lead to. The configuration's own checks, which can name the line,
//! find only paths that are spelt alike.

use std::path::{Path, PathBuf};

use ciphermq_files::{beside, is_descriptor, is_same_file, resolve};

use crate::config::{Config, Database, KeySource};

/// The error of two settings that name one file.
#[derive(Debug, thiserror::Error)]
#[error(
    "{written} ({}) is the same file as {other} ({})\nGive each of them a file of its own.",
    written_path.display(),
    other_path.display()
)]
pub struct SharedFile {
    written: &'static str,
    written_path: PathBuf,
    other: &'static str,
    other_path: PathBuf,
}

/// Refuses a configuration in which a file that the server writes is one of its other files.
///
/// # Errors
///
/// [`SharedFile`], with the settings that name it.
pub fn refuse_shared(config: &Config, config_file: &Path) -> Result<(), SharedFile> {
    let written = written_files(config);
    let mut read = vec![
        ("the configuration", config_file.to_owned()),
        ("[tls] cert_path", config.tls.cert_path.clone()),
        ("[tls] key_path", config.tls.key_path.clone()),
        ("[tls] ca_cert_path", config.tls.ca_cert_path.clone()),
    ];
    let lists = config.tls.crl_paths.iter().cloned();
    read.extend(lists.map(|path| ("[tls] crl_paths", path)));
    for (index, (name, path)) in written.iter().enumerate() {
        let others = written.iter().skip(index + 1).chain(&read);
        for (other, other_path) in others.filter(|(other, _)| other != name) {
            if is_same_file(path, other_path) && !(is_log(other) && is_descriptor_of_log(path)) {
                return Err(SharedFile {
                    written: name,
                    written_path: path.clone(),
                    other,
                    other_path: other_path.clone(),
                });
            }
        }
    }
    Ok(())
}

fn is_log(name: &str) -> bool {
    name.starts_with("[logging]")
}

/// Whether a log goes to an open descriptor, as `/dev/stdout`: it is appended to and never renamed,
/// so that several logs may share it.
fn is_descriptor_of_log(path: &Path) -> bool {
    resolve(path).is_ok_and(|place| is_descriptor(&place))
}

/// Returns the files that the server creates or writes, with the settings that name them.
fn written_files(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let logging = &config.logging;
    let mut files = vec![
        ("[logging] info_file_path", logging.info_file_path.clone()),
        ("[logging] debug_file_path", logging.debug_file_path.clone()),
        ("[logging] error_file_path", logging.error_file_path.clone()),
    ];
    if let KeySource::File { path, .. } = &config.encryption.key {
        files.push(("[encryption] aes_key_file", path.clone()));
    }
    files.push((
        "the notes beside [encryption] aes_key_file",
        config.encryption.adoption_record().path().to_owned(),
    ));
    if let Database::Sqlite { path } = &config.database {
        files.push(("[database] url", path.clone()));
        files.extend(
            ["-wal", "-shm", "-journal", ".lock"]
                .map(|end| ("a file of [database] url", beside(path, end))),
        );
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn refusal(folder: &Path, settings: &str) -> Option<String> {
        let at = |name: &str| folder.join(name).display().to_string();
        let text = settings.replace("@", &at(""));
        let file = folder.join("config.toml");
        fs::write(&file, &text).unwrap();
        let config = Config::parse(&text, &file, std::iter::empty()).unwrap();
        refuse_shared(&config, &file)
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn each_file_has_one_role_however_it_is_spelt_or_linked() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("server.key"), "key").unwrap();
        fs::write(at("mq.db"), "database").unwrap();
        fs::hard_link(at("server.key"), at("hard")).unwrap();
        symlink("mq.db", at("soft")).unwrap();
        symlink("new.log", at("to-new")).unwrap();
        for (settings, named) in [
            (
                "[tls]\nkey_path = \"@server.key\"\n[logging]\ninfo_file_path = \"@hard\"",
                "key_path",
            ),
            (
                "[database]\nurl = \"sqlite://@mq.db\"\n[logging]\nerror_file_path = \"@soft\"",
                "url",
            ),
            (
                "[database]\nurl = \"sqlite://@mq.db\"\n[logging]\nerror_file_path = \
                 \"@./mq.db-wal\"",
                "file of",
            ),
            (
                "[database]\nurl = \"sqlite://@mq.db\"\n[encryption]\naes_key_file = \"@soft\"",
                "aes_key_file",
            ),
            (
                "[logging]\ninfo_file_path = \"@new.log\"\ndebug_file_path = \"@to-new\"",
                "debug_file_path",
            ),
            (
                "[logging]\ninfo_file_path = \"@config.toml\"",
                "the configuration",
            ),
            (
                "[encryption]\naes_key_file = \"@a.key\"\n[logging]\ndebug_file_path = \"@a.key\"",
                "aes_key_file",
            ),
            (
                "[encryption]\naes_key_file = \"@a.key\"\n[logging]\ndebug_file_path = \
                 \"@./a.key.adopted\"",
                "the notes",
            ),
            (
                "[tls]\nca_cert_path = \"@server.key\"\n[logging]\nerror_file_path = \"@hard\"",
                "ca_cert_path",
            ),
        ] {
            let text = refusal(folder.path(), settings).unwrap_or_default();
            assert!(
                text.contains(named) && text.contains("of its own"),
                "{settings}: {text}"
            );
        }
        for (info, debug) in [
            ("/dev/null", "/dev/../dev/null"),
            ("/dev/null", "/dev/null"),
            ("/dev/stderr", "/dev/stderr"),
            ("/dev/stdout", "/proc/self/fd/1"),
        ] {
            let apart = format!(
                "[logging]\ninfo_file_path = \"{info}\"\ndebug_file_path = \"{debug}\"\n\
                 [database]\nurl = \"sqlite://@mq.db\""
            );
            assert_eq!(refusal(folder.path(), &apart), None, "{info} {debug}");
        }
    }
}
