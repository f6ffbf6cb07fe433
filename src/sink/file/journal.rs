//! The file itself: whole lines, a schema line at its head, and a new file when one is full.
//!
//! # Who may write
//! Whoever holds the lock of the file, and finds it still at its path. So several may write: the instance before a reload and the one after
//! it, and `offramp sink test` beside a running offramp. A file that was moved away, by another writer or by hand, is left, and a new one begun.
//!
//! # A full file
//! `path` becomes `path.1`, `path.1` becomes `path.2`, and what was `path.KEEP` is gone. They move from the last to the first, and no
//! further than to the first name that is free: a crash in the middle leaves such a gap, and costs no file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The first line of each file: what its lines are. Other lines are episodes, and have an `id`.
pub const HEAD: &str = "{\"schema\":\"offramp.episode\",\"version\":1}\n";

/// How far back (bytes) an episode in doubt is looked for: more than all workers can have written in one attempt each.
const TAIL: u64 = 64 << 20;

/// One file, and those that it was before.
pub struct Journal {
    path: PathBuf,
    /// Bytes of one file; 0 = it is never full.
    max_bytes: u64,
    /// How many full ones stay.
    keep: u32,
    /// Opened with the first use, and again after an error.
    file: Option<File>,
}

impl Journal {
    /// Touches nothing yet.
    pub fn new(path: PathBuf, max_bytes: u64, keep: u32) -> Self {
        Self { path, max_bytes, keep, file: None }
    }

    /// Writes whole lines, in one file, and syncs them.
    pub fn append(&mut self, lines: &str) -> io::Result<()> {
        let (mut file, mut length) = self.locked()?;
        if self.is_full(length, lines.len()) {
            rotate(&self.path, self.keep)?;
            (file, length) = self.locked()?; // the lock of the full one goes: those who wait for it find it moved
        }
        if length == 0 {
            file.write_all([HEAD, lines].concat().as_bytes())?;
        } else {
            file.write_all(lines.as_bytes())?;
        }
        file.sync_data()?;
        self.unlock(file)
    }

    /// Whether one of the latest lines begins like this.
    pub fn finds(&mut self, beginning: &str) -> io::Result<bool> {
        let (file, length) = self.locked()?;
        let mut found = find(&file, length, TAIL, beginning)?;
        let mut left = TAIL.saturating_sub(length);
        for n in 1..=self.keep {
            if found || left == 0 {
                break;
            }
            let Ok(former) = File::open(numbered(&self.path, n)) else { break };
            let length = former.metadata()?.len();
            found = find(&former, length, left, beginning)?;
            left = left.saturating_sub(length);
        }
        self.unlock(file)?;
        Ok(found)
    }

    /// A file with no line but its head is never full: what is longer than a file has one of its own.
    fn is_full(&self, length: u64, more: usize) -> bool {
        self.max_bytes > 0 && length > HEAD.len() as u64 && length + more as u64 > self.max_bytes
    }

    /// The file at the path, nobody else's until it is unlocked or closed, and its length up to its last end of line.
    fn locked(&mut self) -> io::Result<(File, u64)> {
        loop {
            let mut file = match self.file.take() {
                Some(file) => file,
                None => open(&self.path)?,
            };
            match file.lock() {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {} // there it has to be the only writer
                locked => locked?,
            }
            if !is_at(&file, &self.path)? {
                continue;
            }
            // What a crash has torn was not delivered, and comes again.
            let whole = end_of_last_line(&mut file)?;
            if whole < file.metadata()?.len() {
                file.set_len(whole)?;
            }
            return Ok((file, whole));
        }
    }

    fn unlock(&mut self, file: File) -> io::Result<()> {
        match file.unlock() {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            unlocked => unlocked?,
        }
        self.file = Some(file);
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        File::open(dir)?.sync_all()?; // the file's name must be as durable as its lines
    }
    Ok(file)
}

/// Whether it is this file that is found at the path.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let own = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((own.dev(), own.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    let mut last = 1;
    while last < keep && numbered(path, last).try_exists()? {
        last += 1;
    }
    for n in (1..last).rev() {
        fs::rename(numbered(path, n), numbered(path, n + 1))?;
    }
    fs::rename(path, numbered(path, 1))
}

/// `episodes.jsonl.1` and so on.
fn numbered(path: &Path, n: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

/// Whether a line within the last `tail` bytes begins like this.
fn find(mut file: &File, length: u64, tail: u64, beginning: &str) -> io::Result<bool> {
    file.seek(SeekFrom::Start(length.saturating_sub(tail)))?;
    for line in BufReader::new(file.take(tail)).split(b'\n') {
        if line?.starts_with(beginning.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The length of the file up to its last end of line.
fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut block = [0; 4096];
    while end > 0 {
        let from = end.saturating_sub(block.len() as u64);
        // At most a block's length, which fits.
        #[allow(clippy::cast_possible_truncation)]
        let block = &mut block[..(end - from) as usize];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(block)?;
        if let Some(at) = block.iter().rposition(|b| *b == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    const HEAD_LINE: &str = HEAD.trim_ascii_end();

    #[test]
    fn inv9_full_files_move_on_and_no_more_stay_than_are_to_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.jsonl");
        // Two lines of ten bytes fit beside the head, a third does not.
        let mut journal = Journal::new(path.clone(), HEAD.len() as u64 + 25, 2);
        for n in 1..=7 {
            journal.append(&format!("line {n:04}\n")).unwrap();
        }
        assert_eq!(lines(&path), [HEAD_LINE, "line 0007"]);
        assert_eq!(lines(&numbered(&path, 1)), [HEAD_LINE, "line 0005", "line 0006"]);
        assert_eq!(lines(&numbered(&path, 2)), [HEAD_LINE, "line 0003", "line 0004"]);
        assert!(!numbered(&path, 3).exists());
        // Found wherever they are, as long as they are.
        assert!([3, 4, 5, 6, 7].iter().all(|n| journal.finds(&format!("line {n:04}")).unwrap()));
        assert!(!journal.finds("line 0002").unwrap());

        // What is longer than a file is not torn apart, and a gap is as far as files move.
        fs::remove_file(numbered(&path, 1)).unwrap();
        let long = "x".repeat(100);
        journal.append(&format!("{long}\n{long}\n")).unwrap();
        assert_eq!(lines(&path), [HEAD_LINE, &long, &long]);
        assert_eq!(lines(&numbered(&path, 1)), [HEAD_LINE, "line 0007"]);
        assert_eq!(lines(&numbered(&path, 2)), [HEAD_LINE, "line 0003", "line 0004"]);
    }

    #[test]
    fn a_file_that_was_moved_away_is_left_and_a_new_one_begun() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("e.jsonl"), dir.path().join("moved"));
        let mut journal = Journal::new(path.clone(), 0, 1);
        journal.append("a\n").unwrap();
        fs::rename(&path, &moved).unwrap();
        journal.append("b\n").unwrap();
        assert_eq!((lines(&moved), lines(&path)), (vec![HEAD_LINE.into(), "a".into()], vec![HEAD_LINE.into(), "b".into()]));
    }

    #[test]
    fn several_writers_of_one_file_tear_and_lose_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("e.jsonl");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = path.clone();
                scope.spawn(move || {
                    let mut journal = Journal::new(path, 4000, 100);
                    for n in 0..50 {
                        journal.append(&format!("{writer}-{n} {}\n", "x".repeat(100))).unwrap();
                    }
                });
            }
        });
        let files = (1..).map(|n| numbered(&path, n)).take_while(|path| path.exists()).chain([path.clone()]);
        let mut all: Vec<String> = Vec::new();
        for file in files {
            assert!(fs::metadata(&file).unwrap().len() <= 4000);
            let mut lines = lines(&file).into_iter();
            assert_eq!(lines.next().as_deref(), Some(HEAD_LINE));
            all.extend(lines);
        }
        assert!(all.iter().all(|line| line.ends_with(&"x".repeat(100)) && line.len() < 110));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 200);
    }
}
