//! Removes damage from an output, and keeps it beside the output.
//!
//! Lines behind the damage move forwards, over what was there. If the power fails meanwhile, parts
//! of both may be on the disk, of lines that were acknowledged. So a note says that this goes on,
//! and the next start puts back what was there before.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use ciphermq_files::{Access, Existing, beside, create_new, sync_file, sync_parent};

use super::scan::Damage;

/// The maximum number of copies of damage beside one output.
const MAX_COPIES: u32 = 10_000;
/// The end of the name of the note.
const NOTE_END: &str = ".ciphermq-repair";
/// The first line of the note.
const NOTE_KIND: &str = "ciphermq-repair 1";
/// The maximum length of a note, in bytes.
const NOTE_BYTES: u64 = 128;
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
    let copied = copy_from(output, end, &mut copy);
    if let Err(error) = copied
        .and_then(|()| sync_file(&copy))
        .and_then(|()| sync_parent(&copy_path))
    {
        let _ = fs::remove_file(&copy_path);
        return Err(error);
    }
    if damage.kept.is_empty() {
        output.set_len(end)?;
        output.sync_all()?;
        return Ok((copy_path, end));
    }
    let note = note(path, end, number)?;
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
/// and removes the copy. Does nothing if there was none.
///
/// The output must be the one that the checkpoint describes, as only such a one has lines that
/// move.
///
/// # Errors
///
/// The system's error. Then the next call does the same.
pub(super) fn put_back(output: &File, path: &Path) -> io::Result<()> {
    let note_path = beside(path, NOTE_END);
    let Note::Repair { end, copy: number } = read_note(&note_path)? else {
        return Ok(());
    };
    let copy_path = copy_path(path, number);
    if output.metadata()?.len() < end || !copy_path.exists() {
        return Ok(());
    }
    let mut copy = File::open(&copy_path)?;
    let writer = File::options().write(true).open(path)?;
    let (mut at, mut piece) = (end, vec![0; PIECE_BYTES]);
    loop {
        let length = copy.read(&mut piece)?;
        if length == 0 {
            break;
        }
        writer.write_all_at(piece.get(..length).unwrap_or_default(), at)?;
        at = at.saturating_add(length as u64);
    }
    writer.set_len(at)?;
    writer.sync_all()?;
    fs::remove_file(&note_path)?;
    sync_parent(&note_path)?;
    // The damage is in the output again, and will be copied again.
    fs::remove_file(&copy_path)
}

/// Writes the note that the output is changed after `end`, and is what it was with the copy.
fn note(path: &Path, end: u64, copy: u32) -> io::Result<PathBuf> {
    let note = beside(path, NOTE_END);
    // An earlier note is of another output, which was moved away.
    if matches!(read_note(&note)?, Note::Foreign) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "{} is something else than a note of a repair",
                note.display()
            ),
        ));
    }
    let text = format!("{NOTE_KIND}\n{end} {copy}\n");
    ciphermq_files::write(&note, text.as_bytes(), Access::Private, Existing::Replace)
        .map_err(io::Error::other)?;
    Ok(note)
}

/// What is in the place of a note.
enum Note {
    None,
    Foreign,
    /// The output is changed after `end`, and the copy of this number is what was there.
    Repair {
        end: u64,
        copy: u32,
    },
}

fn read_note(path: &Path) -> io::Result<Note> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Note::None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(NOTE_BYTES).read_to_end(&mut bytes)?;
    let parse = || {
        let text = std::str::from_utf8(&bytes).ok()?;
        let (kind, line) = text.strip_suffix('\n')?.split_once('\n')?;
        let (end, copy) = line.split_once(' ').filter(|_| kind == NOTE_KIND)?;
        Some(Note::Repair {
            end: end.parse().ok()?,
            copy: copy.parse().ok()?,
        })
    };
    Ok(parse().unwrap_or(Note::Foreign))
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

fn copy_from(output: &File, start: u64, copy: &mut File) -> io::Result<()> {
    let mut reader = io::BufReader::with_capacity(PIECE_BYTES, output);
    reader.seek(SeekFrom::Start(start))?;
    io::copy(&mut reader.take(u64::MAX), copy)?;
    copy.flush()
}
