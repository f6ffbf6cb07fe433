//! Pages: which messages of the log make each of them, and the rows of one.
//!
//! Of a page the log has its latest whole and the changes since. Where that whole can't be read an earlier one may still lie in the file,
//! with the changes that were made to it: they do as well. Two pages can then claim the same keys; for each key the one counts that knows
//! it from a later message.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::super::Key;
use super::log::{self, Kind, Lsn, Message, SEGMENT};

/// A message's body in the file.
#[derive(Debug, Clone, Copy)]
struct At {
    lsn: Lsn,
    offset: u64,
    len: u32,
}

/// A leaf: the rows from `lo` up to, not including, `hi` (empty: no end).
#[derive(Debug)]
pub struct Page {
    pub lo: Box<[u8]>,
    pub hi: Box<[u8]>,
    base: At,
    links: Vec<At>,
}

/// What a page knows of a key, and from when.
pub type Known = (Lsn, Option<Vec<u8>>);

/// A leaf as it is written.
struct Node<'a> {
    lo: &'a [u8],
    hi: &'a [u8],
    prefix: u8,
    /// Count, keys and values.
    rows: &'a [u8],
}

impl<'a> Node<'a> {
    /// None for what isn't a leaf.
    fn parse(mut body: &'a [u8]) -> Option<Self> {
        log::varint(&mut body)?; // the next page
        log::varint(&mut body)?; // the page that is being merged into this one
        let (flags, mut body) = body.split_at_checked(2)?;
        let (lo, hi) = (log::text(&mut body)?, log::text(&mut body)?);
        let (leaf, rows) = body.split_first()?;
        (*leaf == 0 && usize::from(flags[1]) <= lo.len()).then_some(Self { lo, hi, prefix: flags[1], rows })
    }

    fn read(&self) -> Option<Vec<(Key, Vec<u8>)>> {
        let mut rest = self.rows;
        let count = usize::try_from(log::varint(&mut rest)?).ok()?.min(rest.len());
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            rows.push((self.key(log::text(&mut rest)?), Vec::new()));
        }
        for row in &mut rows {
            row.1 = log::text(&mut rest)?.to_vec();
        }
        Some(rows)
    }

    fn key(&self, suffix: &[u8]) -> Key {
        [&self.lo[..usize::from(self.prefix)], suffix].concat()
    }
}

impl Page {
    /// Whether a key belongs here.
    pub fn has(&self, key: &[u8]) -> bool {
        *key >= *self.lo && (self.hi.is_empty() || *key < *self.hi)
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        (self.hi.is_empty() || *other.lo < *self.hi) && (other.hi.is_empty() || *self.lo < *other.hi)
    }

    /// When it was last written as a whole.
    pub fn since(&self) -> Lsn {
        self.base.lsn
    }

    /// All that it knows: its rows, and those that it knows to be removed.
    pub fn rows(&self, file: &File) -> std::io::Result<BTreeMap<Key, Known>> {
        let mut body = Vec::new();
        let mut load = |at: At| -> std::io::Result<Vec<u8>> {
            body.resize(at.len as usize, 0);
            file.read_exact_at(&mut body, at.offset)?;
            Ok(body.clone())
        };
        let base = load(self.base)?;
        let node = Node::parse(&base);
        let rows = node.as_ref().and_then(Node::read).unwrap_or_default();
        let mut rows: BTreeMap<Key, Known> = rows.into_iter().map(|(key, value)| (key, (self.base.lsn, Some(value)))).collect();
        for at in &self.links {
            let link = load(*at)?;
            let Some((what, mut rest)) = link.split_first() else { continue };
            let Some(key) = log::text(&mut rest) else { continue };
            // A change of a whole that is lost may leave out another part of its key.
            let Some(key) = node.as_ref().map(|n| n.key(key)).filter(|key| self.has(key)) else { continue };
            match what {
                0 => drop(rows.insert(key, (at.lsn, log::text(&mut rest).map(<[u8]>::to_vec)))),
                1 => drop(rows.insert(key, (at.lsn, None))),
                _ => {}
            }
        }
        Ok(rows)
    }
}

/// The value that a message gives to the last key of all, if it does: the one that no page's prefix leaves a part of out.
pub fn last_value<'a>(message: &Message<'a>, last: &[u8]) -> Option<&'a [u8]> {
    match message.kind {
        Kind::Link => {
            let (0, mut rest) = message.body.split_first().map(|(what, rest)| (*what, rest))? else { return None };
            (log::text(&mut rest)? == last).then(|| log::text(&mut rest)).flatten()
        }
        Kind::Node => {
            let node = Node::parse(message.body).filter(|node| node.hi.is_empty())?;
            // The keys come first.
            let mut rest = node.rows;
            let count = log::varint(&mut rest)?;
            let mut key: &[u8] = &[];
            for _ in 0..count {
                key = log::text(&mut rest)?;
            }
            let mut value = None;
            for _ in 0..count {
                value = log::text(&mut rest);
            }
            value.filter(|_| *node.key(key) == *last)
        }
        _ => None,
    }
}

/// The pages of a file.
#[derive(Debug, Default)]
pub struct Pages {
    /// Disjoint, by their `lo`.
    pub main: Vec<Page>,
    /// Those that claim what a later one has.
    pub late: Vec<Page>,
    /// Changes of pages that are lost.
    pub lost: u64,
}

impl Pages {
    /// Whether there is a page for each key.
    pub fn have_all(&self) -> bool {
        let mut next: Option<&[u8]> = Some(&[]);
        for page in &self.main {
            if next != Some(&*page.lo) {
                return false;
            }
            next = Some(&*page.hi).filter(|hi| !hi.is_empty());
        }
        next.is_none()
    }

    /// Whether any of it lies in a part of the file.
    pub fn count_on(&self, part: Range<u64>) -> bool {
        let mut all = self.main.iter().flat_map(|page| page.links.iter().chain([&page.base]));
        all.any(|at| part.contains(&at.offset))
    }

    /// Reads the whole log, or what is before `tip`.
    pub fn read(file: &File, tip: Option<Lsn>) -> std::io::Result<Self> {
        let mut segments = log::segments(file)?;
        let mut buffer = vec![0; SEGMENT];
        // In the order of the log; one without a header where its messages say that it belongs.
        for segment in segments.iter_mut().filter(|s| s.lsn.is_none()) {
            log::read(file, segment.at, &mut buffer)?;
            let walk = log::walk(&buffer, segment.at, None, &mut |_| {});
            segment.lsn = (walk.behind > 0).then(|| walk.first / log::LEN * log::LEN);
        }
        segments.retain(|s| s.lsn.is_some());
        segments.sort_unstable_by_key(|s| s.lsn);
        let (mut pages, mut lost) = (HashMap::<u64, Page>::new(), 0);
        for segment in segments {
            log::read(file, segment.at, &mut buffer)?;
            log::walk(&buffer, segment.at, segment.lsn, &mut |message| {
                if tip.is_some_and(|tip| message.lsn >= tip) {
                    return;
                }
                let at = At { lsn: message.lsn, offset: message.at, len: u32::try_from(message.body.len()).unwrap_or(0) };
                match message.kind {
                    Kind::Free => drop(pages.remove(&message.page)),
                    Kind::Node => {
                        if let Some(Node { lo, hi, .. }) = Node::parse(message.body) {
                            pages.insert(message.page, Page { lo: lo.into(), hi: hi.into(), base: at, links: Vec::new() });
                        } else {
                            pages.remove(&message.page);
                        }
                    }
                    Kind::Link if matches!(message.body.first(), Some(0 | 1)) => match pages.get_mut(&message.page) {
                        Some(page) => page.links.push(at),
                        None => lost += 1,
                    },
                    _ => {}
                }
            });
        }
        let mut all: Vec<Page> = pages.into_values().collect();
        all.sort_unstable_by_key(|page| std::cmp::Reverse(page.since()));
        let (mut main, mut late) = (BTreeMap::<Box<[u8]>, Page>::new(), Vec::new());
        for mut page in all {
            page.links.shrink_to_fit();
            let before = main.range(..=page.lo.clone()).next_back().is_some_and(|(_, p)| p.overlaps(&page));
            let behind = main.range(page.lo.clone()..).next().is_some_and(|(_, p)| p.overlaps(&page));
            if before || behind {
                late.push(page);
            } else {
                main.insert(page.lo.clone(), page);
            }
        }
        Ok(Self { main: main.into_values().collect(), late, lost })
    }
}
