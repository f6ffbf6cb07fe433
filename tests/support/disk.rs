//! A disk whose power can be cut at any moment, without a privilege: `disk.c`, preloaded into offramp, keeps a diary of what is done to the
//! files of a directory, and [`Disk::cut`] tells from it what a disk would hold that lost power then.
//!
//! What a sync covers is there. Of everything else anything may be: of writes any pieces, whatever their order was; of names that came, went
//! or changed, those until some moment, which is what a file system's journal makes of them. A sync of a file covers no name, one of its
//! directory does.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;

use super::parts;
use super::tree::Tree;

/// The directory of one queue on such a disk.
pub struct Disk {
    root: PathBuf,
    diary: PathBuf,
    stalls: PathBuf,
    /// What was there before, and the inodes of its files.
    before: Tree,
    inodes: HashMap<u64, usize>,
}

/// What a disk did about the writes that no sync covers before it lost power.
#[derive(Debug, Clone, Copy)]
pub struct Luck {
    /// The share of their pieces that it wrote.
    pub keeps: f64,
    /// The length of a piece.
    pub piece: u64,
    /// The share of the names that it had come to, in their order.
    pub names: f64,
}

/// What happened until the diary was read.
pub struct Diary {
    bytes: Vec<u8>,
    records: Vec<Record>,
}

struct Record {
    what: What,
    at: SystemTime,
    /// Where it ends in the diary.
    end: u64,
}

enum What {
    Create { path: PathBuf, inode: u64 },
    MakeDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Link(PathBuf, PathBuf),
    Write { inode: u64, offset: u64, bytes: Range<usize> },
    SetLength { inode: u64, length: u64 },
    SyncBegins { ticket: u64, of: Synced },
    SyncEnds { ticket: u64 },
}

#[derive(Clone)]
enum Synced {
    Inode(u64),
    Dir(PathBuf),
}

impl Luck {
    /// Any luck, also the extremes.
    pub fn any(rng: &mut Rng) -> Self {
        let share = |rng: &mut Rng| [0.0, 1.0, 0.5, rng.f64()][rng.usize(..4)];
        Self { keeps: share(rng), piece: [512, 4096][rng.usize(..2)], names: share(rng) }
    }

    /// Nothing but what a sync covers.
    pub const NONE: Self = Self { keeps: 0.0, piece: 4096, names: 0.0 };

    /// Everything.
    pub const ALL: Self = Self { keeps: 1.0, piece: 4096, names: 1.0 };
}

impl Disk {
    /// The directory `root`, which exists, and holds what is on the disk for sure. The diary goes beside it.
    pub fn new(root: &Path) -> Self {
        let diary = root.with_extension("diary");
        assert!(!diary.exists(), "{} had a life before this one", root.display());
        let before = Tree::of(root);
        let inode = |(path, file)| (fs::metadata(root.join(path)).unwrap().ino(), file);
        let inodes = before.files().map(inode).collect();
        Self { root: root.to_owned(), diary, stalls: root.with_extension("stalls"), before, inodes }
    }

    /// The command on this disk.
    pub fn under(&self, mut command: Command) -> Command {
        command
            .env("LD_PRELOAD", library())
            .env("DISK_ROOT", &self.root)
            .env("DISK_DIARY", &self.diary)
            .env("DISK_STALLS", &self.stalls);
        command
    }

    /// How far the diary is.
    pub fn position(&self) -> u64 {
        fs::metadata(&self.diary).map_or(0, |diary| diary.len())
    }

    /// From now on nothing that is done to the files returns.
    pub fn stall(&self) {
        fs::write(&self.stalls, "").unwrap();
    }

    /// It returns again.
    pub fn thaw(&self) {
        fs::remove_file(&self.stalls).unwrap();
    }

    /// The diary up to now.
    pub fn read(&self) -> Diary {
        Diary::of(fs::read(&self.diary).unwrap())
    }

    /// What the disk holds when it loses power at `position`. From `lies_from` on it said of each sync that it is done, and had done nothing.
    pub fn cut(&self, diary: &Diary, position: u64, lies_from: u64, luck: Luck, rng: &mut Rng) -> Tree {
        let records = diary.until(position);
        let covered = Covered::by(records, lies_from, &self.inodes, self.before.files().count());
        let names = covered.names(records, luck.names);
        let mut tree = self.before.clone();
        for (number, record) in records.iter().enumerate() {
            let file = covered.files[number];
            let mut is_kept = || covered.has_file(number) || rng.f64() < luck.keeps;
            match &record.what {
                What::Write { offset, bytes, .. } => {
                    for piece in pieces(*offset, bytes.clone(), luck.piece) {
                        if is_kept() {
                            tree.write(file, piece.0, &diary.bytes[piece.1]);
                        }
                    }
                }
                What::SetLength { length, .. } => {
                    if is_kept() {
                        tree.set_length(file, *length);
                    }
                }
                What::Create { path, .. } => {
                    tree.create(self.owned(path).filter(|_| names[number]));
                }
                _ if !names[number] => {}
                What::MakeDir(path) => tree.make_dir(self.owned(path)),
                What::Rename(from, to) => tree.rename(self.below(from), self.below(to)),
                What::Remove(path) => tree.remove(self.below(path)),
                What::Link(from, to) => tree.link(self.below(from), self.owned(to)),
                What::SyncBegins { .. } | What::SyncEnds { .. } => {}
            }
        }
        tree
    }

    /// The path below the root; none where it is outside.
    fn below<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        path.strip_prefix(&self.root).ok()
    }

    fn owned(&self, path: &Path) -> Option<PathBuf> {
        self.below(path).map(Path::to_owned)
    }
}

/// What the syncs of some records cover.
struct Covered {
    /// The file that each record is about, by its number in the tree; `usize::MAX`: none.
    files: Vec<usize>,
    /// Up to which record each file's content is on the disk.
    contents: HashMap<usize, usize>,
    /// Up to which record each directory's names are.
    dirs: HashMap<PathBuf, usize>,
}

impl Covered {
    fn by(records: &[Record], lies_from: u64, inodes: &HashMap<u64, usize>, mut next: usize) -> Self {
        let mut inodes = inodes.clone();
        let mut covered = Self { files: Vec::with_capacity(records.len()), contents: HashMap::new(), dirs: HashMap::new() };
        let mut begun = HashMap::new();
        for (number, record) in records.iter().enumerate() {
            let mut file = usize::MAX;
            match &record.what {
                What::Create { inode, .. } => {
                    file = next;
                    inodes.insert(*inode, next); // the inode may have been another file's
                    next += 1;
                }
                What::Write { inode, .. } | What::SetLength { inode, .. } => file = inodes[inode],
                What::SyncBegins { ticket, of } => {
                    begun.insert(*ticket, (number, of.clone()));
                }
                What::SyncEnds { ticket } if record.end < lies_from => match begun.remove(ticket) {
                    Some((until, Synced::Inode(inode))) => drop(covered.contents.insert(inodes[&inode], until)),
                    Some((until, Synced::Dir(dir))) => drop(covered.dirs.insert(dir, until)),
                    None => panic!("a sync ended that had not begun"),
                },
                _ => {}
            }
            covered.files.push(file);
        }
        covered
    }

    fn has_file(&self, number: usize) -> bool {
        self.contents.get(&self.files[number]).is_some_and(|until| number < *until)
    }

    /// Of each record, whether what it does to names is on the disk: it is covered, or one is that stands on it, or the disk had come to it.
    fn names(&self, records: &[Record], share: f64) -> Vec<bool> {
        let all = records.iter().filter(|record| !record.what.dirs().is_empty()).count();
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let mut come_to = (all as f64 * share) as usize;
        let mut kept: Vec<bool> = records
            .iter()
            .map(|record| {
                let is_name = !record.what.dirs().is_empty();
                let is_kept = is_name && come_to > 0;
                come_to -= usize::from(is_kept);
                is_kept
            })
            .collect();
        let mut dirs = self.dirs.clone();
        for (number, record) in records.iter().enumerate().rev() {
            let here = record.what.dirs();
            if here.iter().any(|dir| dirs.get(*dir).is_some_and(|until| number < *until)) {
                kept[number] = true;
                for dir in here {
                    let until = dirs.entry(dir.to_owned()).or_default();
                    *until = (*until).max(number);
                }
            }
        }
        kept
    }
}

impl What {
    /// The directories whose names it changes.
    fn dirs(&self) -> Vec<&Path> {
        match self {
            Self::Create { path, .. } | Self::MakeDir(path) | Self::Remove(path) => path.parent().into_iter().collect(),
            Self::Rename(from, to) => [from, to].into_iter().filter_map(|path| path.parent()).collect(),
            Self::Link(_, to) => to.parent().into_iter().collect(),
            _ => Vec::new(),
        }
    }
}

/// A write in pieces that a disk writes or not: where each goes, and its bytes.
fn pieces(offset: u64, bytes: Range<usize>, piece: u64) -> impl Iterator<Item = (u64, Range<usize>)> {
    let mut at = offset;
    let mut from = bytes.start;
    std::iter::from_fn(move || {
        let length = usize::try_from(piece - at % piece).unwrap().min(bytes.end - from);
        let this = (at, from..from + length);
        at += length as u64;
        from += length;
        (length > 0).then_some(this)
    })
}

impl Diary {
    fn of(bytes: Vec<u8>) -> Self {
        const HEAD: usize = 40;
        let mut records = Vec::new();
        let mut from = 0;
        // A kill may have torn the last one.
        while from + HEAD <= bytes.len() {
            let head = |n: usize| u64::from_le_bytes(bytes[from + 8 * n..from + 8 * n + 8].try_into().unwrap());
            let (what, at, inode, number, length) = (head(0), head(1), head(2), head(3), usize::try_from(head(4)).unwrap());
            let text = from + HEAD..from + HEAD + length;
            if text.end > bytes.len() {
                break;
            }
            let mut paths = bytes[text.clone()].split(|byte| *byte == 0).map(|path| PathBuf::from(str::from_utf8(path).unwrap()));
            let mut path = || paths.next().unwrap();
            // As in disk.c.
            let what = match what {
                1 => What::Create { path: path(), inode },
                2 => What::MakeDir(path()),
                3 => What::Rename(path(), path()),
                4 => What::Remove(path()),
                5 => What::Link(path(), path()),
                6 => What::Write { inode, offset: number, bytes: text.clone() },
                7 => What::SetLength { inode, length: number },
                8 if inode == 0 => What::SyncBegins { ticket: number, of: Synced::Dir(path()) },
                8 => What::SyncBegins { ticket: number, of: Synced::Inode(inode) },
                9 => What::SyncEnds { ticket: number },
                other => panic!("the diary has a record of kind {other} at {from}"),
            };
            records.push(Record { what, at: UNIX_EPOCH + Duration::from_nanos(at), end: text.end as u64 });
            from = text.end;
        }
        Self { bytes, records }
    }

    fn until(&self, position: u64) -> &[Record] {
        &self.records[..self.records.partition_point(|record| record.end <= position)]
    }

    /// Where the whole diary ends.
    pub fn end(&self) -> u64 {
        self.records.last().map_or(0, |record| record.end)
    }

    /// A moment between two records, not before `from`: each record has the same chance, the long and the short.
    pub fn any_position(&self, from: u64, rng: &mut Rng) -> u64 {
        let first = self.until(from).len();
        self.records[rng.usize(first..self.records.len())].end
    }

    /// When what stands before `position` was done.
    pub fn time(&self, position: u64) -> SystemTime {
        self.until(position).last().map_or(UNIX_EPOCH, |record| record.at)
    }

    /// The longest that a sync lasted; one that did not end lasts until the end of the diary.
    pub fn longest_sync(&self) -> Duration {
        let mut begun = BTreeMap::new();
        let mut longest = Duration::ZERO;
        let since = |now: SystemTime, then| now.duration_since(then).unwrap_or_default();
        for record in &self.records {
            match record.what {
                What::SyncBegins { ticket, .. } => drop(begun.insert(ticket, record.at)),
                What::SyncEnds { ticket } => longest = longest.max(since(record.at, begun.remove(&ticket).unwrap())),
                _ => {}
            }
        }
        let end = self.time(self.end());
        begun.into_values().map(|at| since(end, at)).fold(longest, Duration::max)
    }
}

/// `disk.c`, compiled once. Panics with what to do where that isn't possible.
fn library() -> &'static Path {
    const NEEDS_CC: &str = "the tests of lost power need a C compiler as `cc`; on Debian: apt-get install gcc libc6-dev";
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = parts::directory().join("disk.so");
        // Another test process may be at it.
        let made = library.with_extension(format!("{}.so", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/disk.c");
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-shared", "-fPIC", "-pthread", "-o"]).arg(&made).arg(source);
        let said = cc.output().unwrap_or_else(|error| panic!("{NEEDS_CC}. (cc: {error})"));
        assert!(said.status.success(), "{NEEDS_CC}. It said:\n{}", String::from_utf8_lossy(&said.stderr));
        fs::rename(made, &library).unwrap();
        library
    })
}
