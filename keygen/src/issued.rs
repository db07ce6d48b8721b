//! The certificates that an authority has issued for one name, and that have not ended.
//!
//! The last one is `client.crt`; those before it are kept beside it, as `client.<number>.crt`,
//! until they end. With a stolen key they are as good as the last one, so all are revoked together.

use std::fs;
use std::path::{Path, PathBuf};

use ciphermq_certificates::Validity;
use ciphermq_files::{Access, Existing, NewFiles, parent};
use jiff::{SignedDuration, Timestamp};
use rcgen::PublicKeyData;

use crate::error::Error;
use crate::files;
use crate::pair::{Pair, is_there};
use crate::profile::Profile;

/// How long ended certificates are kept, for clocks that are behind.
const GRACE: SignedDuration = SignedDuration::from_hours(24);

/// Stages a copy of the last certificate, which is about to be replaced, and removes the copies of
/// those that have ended.
pub(crate) fn keep(
    last: &Path,
    next: &Profile,
    now: Timestamp,
    files: &mut NewFiles,
) -> Result<(), Error> {
    if !is_there(last) {
        return Ok(());
    }
    refuse_other_client(last, next)?;
    for copy in copies(last) {
        if has_ended(&copy, now) == Some(true) {
            // Best effort: it is not needed, and does no harm.
            let _ = fs::remove_file(copy);
        }
    }
    let number = hex::encode(files::serial_number(last)?.to_bytes());
    let copy = last.with_extension(format!("{number}.{EXTENSION}"));
    let text = files::read(last)?;
    Ok(files.stage(copy, &text, Access::Public, Existing::Replace)?)
}

/// Refuses to replace the certificate of another client, whose name is that of the same folder.
fn refuse_other_client(last: &Path, next: &Profile) -> Result<(), Error> {
    if let Profile::Client(name) = next {
        let der = files::read_certificate(last)?;
        if !name.is_in(&files::parse(&der, last)?) {
            return Err(Error::OtherClient {
                path: last.to_owned(),
                expected: name.id().to_string(),
            });
        }
    }
    Ok(())
}

/// Refuses to place a certificate beside the private key of another one.
pub(crate) fn refuse_other_key(place: &Pair, key: &impl PublicKeyData) -> Result<(), Error> {
    if is_there(&place.key) {
        let there = files::read_key(&place.key)?;
        if there.subject_public_key_info() != key.subject_public_key_info() {
            return Err(Error::OtherKey(place.key.clone()));
        }
    }
    Ok(())
}

/// Returns the files of the last certificate, and of those before it that have not ended or cannot
/// be read.
pub(crate) fn all(last: &Path, now: Timestamp) -> Vec<PathBuf> {
    let copies = copies(last).into_iter();
    let valid = copies.filter(|copy| has_ended(copy, now) != Some(true));
    std::iter::once(last.to_owned()).chain(valid).collect()
}

/// The extension of certificates.
const EXTENSION: &str = "crt";

/// Returns the files beside a certificate that are named as copies of earlier ones, sorted.
fn copies(last: &Path) -> Vec<PathBuf> {
    let Some(stem) = last.file_stem().and_then(|stem| stem.to_str()) else {
        return Vec::new();
    };
    let is_copy = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name
            .and_then(|name| name.strip_prefix(stem)?.strip_prefix('.'))
            .and_then(|rest| rest.strip_suffix(EXTENSION)?.strip_suffix('.'));
        number.is_some_and(|number| hex::decode(number).is_ok_and(|bytes| !bytes.is_empty()))
    };
    let entries = fs::read_dir(parent(last)).into_iter().flatten();
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let mut copies: Vec<_> = paths.filter(is_copy).collect();
    copies.sort();
    copies
}

/// Returns whether the certificate in a file has ended; `None` if there is none.
fn has_ended(path: &Path, now: Timestamp) -> Option<bool> {
    let certificate = files::read_certificate(path).ok()?;
    let end = Validity::read(&certificate)?.not_after;
    Some(now > end.saturating_add(GRACE).unwrap_or(Timestamp::MAX))
}
