//! Removes damage from an output, and keeps it beside the output.
//!
//! Lines behind the damage move forwards, over what was there. If the power fails meanwhile, parts
//! of both may be on the disk, of lines that were acknowledged. So a note says that this goes on,
//! and the next start puts back what was there before.
//!
//! A note counts only for the output and the copy that it was written for.
//! Whether it counts or not, it is gone for good before anything is appended to the output: later
//! it would put back what was there before over what was written since.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ciphermq_files::{
    Access, Existing, beside, create_new, sync_existing_name, sync_file, sync_parent,
};
use rustix::fs::OFlags;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::scan::Damage;

/// The maximum number of copies of damage beside one output.
const MAX_COPIES: u32 = 10_000;
/// The end of the name of the note.
const NOTE_END: &str = ".ciphermq-repair";
/// The first line of the note.
const NOTE_KIND: &str = "ciphermq-repair 2";
/// The maximum length of a note, in bytes.
const NOTE_BYTES: u64 = 256;
/// The number of bytes that are copied at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// Removes the damage after `end` from an output, and syncs it.
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
    let (number, copy_path, mut copy) = create_copy(path)?;
    let copied = copy_from(output, end, &mut copy).and_then(|hash| {
        sync_file(&copy)?;
        sync_parent(&copy_path)?;
        Ok(hash)
    });
    let hash = match copied {
        Ok(hash) => hash,
        Err(error) => {
            let _ = fs::remove_file(&copy_path);
            return Err(error);
        }
    };
    if damage.kept.is_empty() {
        output.set_len(end)?;
        output.sync_all()?;
        return Ok((copy_path, end));
    }
    // What stays is to be recognized, so it must not change any more.
    output.sync_all()?;
    let repair = Repair {
        end,
        copy: number,
        before: hash_before(output, end)?,
        hash,
    };
    let note = write_note(path, &repair)?;
    // Not through `output`, which is in append mode. After a kill between this write and the
    // truncation some lines are there twice; the next start puts back what was there before.
    let writer = File::options().write(true).open(path)?;
    writer.write_all_at(&damage.kept, end)?;
    let end = end.saturating_add(damage.kept.len() as u64);
    output.set_len(end)?;
    output.sync_all()?;
    // Before anything is appended, which must never be overwritten by what was there before.
    fs::remove_file(&note)?;
    sync_parent(&note)?;
    Ok((copy_path, end))
}

/// Puts back what was removed from the output by a call of [`remove`] that did not come to its end,
/// and removes the copy. Does nothing if there was none, or if it was of another output.
///
/// Afterwards there is no note, also after a power failure. A new output, which did not exist
/// before, has nothing to be put back.
///
/// # Errors
///
/// The system's error. Then the next call does the same.
pub(super) fn put_back(output: &File, path: &Path, existed: bool) -> io::Result<()> {
    let note = beside(path, NOTE_END);
    let repair = match read_note(&note)? {
        // It may have been removed without a sync.
        Note::None => return sync_existing_name(path),
        Note::Foreign => return Ok(()),
        Note::Repair(repair) => repair,
    };
    let copy_path = copy_path(path, repair.copy);
    let is_of_output = existed
        && output.metadata()?.len() >= repair.end
        && hash_before(output, repair.end)? == repair.before;
    let copy = match is_of_output {
        true => find_copy(&copy_path, &repair)?,
        false => None,
    };
    if let Some(mut copy) = copy {
        let writer = File::options().write(true).open(path)?;
        let mut at = repair.end;
        for_each_piece(&mut copy, |piece| {
            writer.write_all_at(piece, at)?;
            at = at.saturating_add(piece.len() as u64);
            Ok(())
        })?;
        writer.set_len(at)?;
        writer.sync_all()?;
        remove_note(&note)?;
        // The damage is in the output again, and will be copied again.
        return fs::remove_file(&copy_path);
    }
    remove_note(&note)
}

/// Opens the copy that a note was written for, at its beginning; `None` if it is not there, or is
/// another one.
fn find_copy(path: &Path, repair: &Repair) -> io::Result<Option<File>> {
    let Some(mut copy) = open_own(path)? else {
        return Ok(None);
    };
    let mut hasher = Sha256::new();
    for_each_piece(&mut copy, |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    copy.seek(SeekFrom::Start(0))?;
    let is_the_same = hex::encode(hasher.finalize()) == repair.hash;
    Ok(is_the_same.then_some(copy))
}

/// The change of an output that is going on.
#[derive(Debug, PartialEq, Eq)]
struct Repair {
    /// Where the change begins.
    end: u64,
    /// The number of the copy of what was there.
    copy: u32,
    /// The SHA-256 of the end of what stays, in hexadecimal.
    before: String,
    /// The SHA-256 of the copy, in hexadecimal.
    hash: String,
}

impl Repair {
    fn text(&self) -> String {
        let Self {
            end,
            copy,
            before,
            hash,
        } = self;
        format!("{NOTE_KIND}\n{end} {copy} {before} {hash}\n")
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (kind, line) = text.strip_suffix('\n')?.split_once('\n')?;
        let mut words = line.split(' ');
        let parsed = Self {
            end: words.next()?.parse().ok()?,
            copy: words.next()?.parse().ok()?,
            before: words.next()?.to_owned(),
            hash: words.next()?.to_owned(),
        };
        (kind == NOTE_KIND && words.next().is_none()).then_some(parsed)
    }
}

fn write_note(path: &Path, repair: &Repair) -> io::Result<PathBuf> {
    let note = beside(path, NOTE_END);
    if matches!(read_note(&note)?, Note::Foreign) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "{} is something else than a note of a repair",
                note.display()
            ),
        ));
    }
    let text = repair.text();
    ciphermq_files::write(&note, text.as_bytes(), Access::Private, Existing::Replace)
        .map_err(io::Error::other)?;
    Ok(note)
}

fn remove_note(note: &Path) -> io::Result<()> {
    fs::remove_file(note)?;
    sync_parent(note)
}

/// What is in the place of a note.
enum Note {
    None,
    Foreign,
    Repair(Repair),
}

fn read_note(path: &Path) -> io::Result<Note> {
    let Some(file) = open_own(path)? else {
        let is_there = path.symlink_metadata().is_ok();
        return Ok(if is_there { Note::Foreign } else { Note::None });
    };
    let mut bytes = Vec::new();
    file.take(NOTE_BYTES).read_to_end(&mut bytes)?;
    Ok(Repair::parse(&bytes).map_or(Note::Foreign, Note::Repair))
}

/// Opens a file that this user has made; `None` if there is none. Another user may put something
/// else there, if the folder is everybody's: a pipe, a link, a note of their own.
fn open_own(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => {
            let found = file.metadata()?;
            let is_own = found.is_file() && found.uid() == rustix::process::geteuid().as_raw();
            Ok(is_own.then_some(file))
        }
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                || error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn copy_path(path: &Path, number: u32) -> PathBuf {
    beside(path, &format!(".damaged-{number}"))
}

/// Creates the file of a copy, with the first number that is not in use.
fn create_copy(path: &Path) -> io::Result<(u32, PathBuf, File)> {
    for number in 1..=MAX_COPIES {
        let copy_path = copy_path(path, number);
        match create_new(&copy_path, Access::Private) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|file| (number, copy_path, file)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Copies an output from `start` on, and returns the SHA-256 of it in hexadecimal.
fn copy_from(mut output: &File, start: u64, copy: &mut File) -> io::Result<String> {
    output.seek(SeekFrom::Start(start))?;
    let mut hasher = Sha256::new();
    for_each_piece(&mut output, |piece| {
        hasher.update(piece);
        copy.write_all(piece)
    })?;
    Ok(hex::encode(hasher.finalize()))
}

/// Returns the SHA-256 of what is before `end`, of the last piece of it if it is long.
fn hash_before(output: &File, end: u64) -> io::Result<String> {
    let length = end.min(PIECE_BYTES as u64);
    let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
    output.read_exact_at(&mut piece, end.saturating_sub(length))?;
    Ok(hex::encode(Sha256::digest(&piece)))
}

/// Reads to the end.
fn for_each_piece(
    from: &mut impl io::Read,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        take(piece.get(..length).unwrap_or_default())?;
    }
}
