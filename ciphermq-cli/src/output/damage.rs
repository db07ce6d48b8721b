//! Removes damage from an output, and keeps it beside the output.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ciphermq_files::{Access, beside, create_new, sync_file, sync_parent};

use super::scan::Damage;

/// The maximum number of copies of damage beside one output.
const MAX_COPIES: u32 = 10_000;

/// Removes the damage after `end` from an output.
///
/// Copies everything after `end` into a new file, private to the owner, syncs that, and only then
/// changes the output. Returns the path of the copy, and the new end of the output.
///
/// # Errors
///
/// The system's error. Then the output is unchanged, or the copy is complete.
pub(super) fn remove(
    output: &File,
    path: &Path,
    end: u64,
    damage: &Damage,
) -> io::Result<(PathBuf, u64)> {
    let (copy_path, mut copy) = create_copy(path)?;
    let copied = copy_from(output, end, &mut copy);
    if let Err(error) = copied
        .and_then(|()| sync_file(&copy))
        .and_then(|()| sync_parent(&copy_path))
    {
        let _ = std::fs::remove_file(&copy_path);
        return Err(error);
    }
    if !damage.kept.is_empty() {
        // Not through `output`, which is in append mode. After a kill between this write and the
        // truncation some lines are there twice; the next start recognises the second copies.
        let writer = File::options().write(true).open(path)?;
        writer.write_all_at(&damage.kept, end)?;
    }
    let end = end.saturating_add(damage.kept.len() as u64);
    output.set_len(end)?;
    Ok((copy_path, end))
}

fn create_copy(path: &Path) -> io::Result<(PathBuf, File)> {
    for number in 1..=MAX_COPIES {
        let copy_path = beside(path, &format!(".damaged-{number}"));
        match create_new(&copy_path, Access::Private) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|file| (copy_path, file)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn copy_from(output: &File, start: u64, copy: &mut File) -> io::Result<()> {
    let mut reader = io::BufReader::with_capacity(256 * 1024, output);
    reader.seek(SeekFrom::Start(start))?;
    io::copy(&mut reader.take(u64::MAX), copy)?;
    copy.flush()
}
