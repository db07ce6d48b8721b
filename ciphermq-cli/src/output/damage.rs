//! What is taken out of an output is kept beside it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ciphermq_files::{Access, beside, create_new, sync_file, sync_parent};

use super::scan::Damage;

/// So many files of this kind one output can have.
const MAX_ASIDE: u32 = 10_000;

/// Takes damage out of an output that ends properly at `end`: copies everything behind it into a
/// file of its own, for the owner alone, syncs that, and only then changes the output. Returns the
/// other file, and where the output ends.
///
/// # Errors
///
/// What the system says. Then the output is as it was, or what the other file tells.
pub(super) fn take_out(
    output: &File,
    path: &Path,
    end: u64,
    damage: &Damage,
) -> io::Result<(PathBuf, u64)> {
    let (aside, mut copy) = create(path)?;
    let copied = copy_from(output, end, &mut copy);
    if let Err(error) = copied
        .and_then(|()| sync_file(&copy))
        .and_then(|()| sync_parent(&aside))
    {
        let _ = std::fs::remove_file(&aside);
        return Err(error);
    }
    if !damage.kept.is_empty() {
        // Not through `output`, which appends wherever it is told to write. Killed here, the lines
        // stand twice, and the next start takes the second ones for what they are.
        let writer = File::options().write(true).open(path)?;
        writer.write_all_at(&damage.kept, end)?;
    }
    let end = end.saturating_add(damage.kept.len() as u64);
    output.set_len(end)?;
    Ok((aside, end))
}

fn create(path: &Path) -> io::Result<(PathBuf, File)> {
    for number in 1..=MAX_ASIDE {
        let aside = beside(path, &format!(".damaged-{number}"));
        match create_new(&aside, Access::Private) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|file| (aside, file)),
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
