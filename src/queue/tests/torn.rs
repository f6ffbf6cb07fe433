//! Lost power on the engine's real files: of what was written since the last sync any pieces are there, whatever their order was.
//!
//! What is found then is what there was after one of the commits, exactly, and not an earlier one than the last that was synced. That is no
//! damage: nothing is set aside, nothing is missing.
//!
//! `OFFRAMP_TEARS` is the number of cuts, 30 by default. The seed of a life is printed if it fails, and `OFFRAMP_SEED` makes it the first one's.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::damage::{copy, number};
use crate::queue::keys;
use crate::queue::rows::Meta;
use crate::queue::store::{Store, Witness, Writes};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// Cuts made of one moment, moments of one life.
const CUTS: u64 = 5;
const MOMENTS: u64 = 6;

fn rows(store: &Store) -> Rows {
    let mut rows = Rows::new();
    store.scan(vec![0]..vec![u8::MAX], &mut |key, value| rows.insert(key.to_vec(), value.to_vec()).is_none()).unwrap();
    for key in [keys::commits(), keys::whole()] {
        rows.remove(&key);
    }
    rows
}

/// A commit of up to `most` bytes, roughly, and what there is after it.
fn commit(rng: &mut fastrand::Rng, rows: &mut Rows, most: usize) -> Writes {
    let (mut writes, mut size) = (Writes::new(), 0);
    while size < most {
        let key = [b"e", &rng.u16(0..300).to_be_bytes()[..]].concat();
        let length = rng.usize(0..4000);
        let value: Option<Vec<u8>> = (rng.u8(0..4) > 0).then(|| std::iter::repeat_with(|| rng.u8(..)).take(length).collect());
        size += 64 + value.as_ref().map_or(0, Vec::len);
        writes.insert(key, value);
        if rng.u8(0..6) == 0 {
            break;
        }
    }
    for (key, value) in &writes {
        match value {
            Some(value) => drop(rows.insert(key.clone(), value.clone())),
            None => drop(rows.remove(key)),
        }
    }
    writes
}

/// What a disk has that held `before`, and had come to a part of what makes it `after`.
fn torn(before: &[u8], after: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let keeps = [0.1, 0.5, 0.9, rng.f64()][rng.usize(..4)];
    let piece = [512, 4096][rng.usize(..2)];
    let mut image = before.to_vec();
    for (n, bytes) in after.chunks(piece).enumerate() {
        let at = n * piece;
        let is = before.get(at..).map(|rest| &rest[..rest.len().min(bytes.len())]);
        if is != Some(bytes) && rng.f64() < keeps {
            image.resize(image.len().max(at + bytes.len()), 0);
            image[at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
    image
}

/// One life with many cuts; how many stores were not opened by the engine as they were, of how many.
fn live(seed: u64, unsynced: usize, most: usize) -> Result<(usize, usize), String> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let dir = tempfile::tempdir().unwrap();
    let (life, image) = (dir.path().join("life"), dir.path().join("image"));
    fs::create_dir(&life).unwrap();
    let log = |dir: &Path| dir.join("store/db");
    let mut store = Store::open(&life).unwrap();
    let (mut now, mut made_anew, mut cuts) = (Rows::new(), 0, 0);
    for moment in 0..MOMENTS {
        for _ in 0..rng.usize(20..150) {
            store.commit(commit(&mut rng, &mut now, 60_000), true).unwrap();
        }
        if rng.u8(0..3) == 0 {
            drop(store);
            store = Store::open(&life).unwrap();
        }
        store.commit(commit(&mut rng, &mut now, 10_000), true).unwrap();
        let before = fs::read(log(&life)).unwrap();
        copy(&life, &image);
        let mut states = vec![now.clone()];
        for _ in 0..unsynced {
            store.commit(commit(&mut rng, &mut now, most), false).unwrap();
            states.push(now.clone());
        }
        store.sync().unwrap();
        let after = fs::read(log(&life)).unwrap();
        for cut in 0..CUTS {
            let what = |text: String| Err(format!("moment {moment}, cut {cut}: {text}"));
            let held = dir.path().join(format!("held-{moment}-{cut}"));
            copy(&image, &held);
            fs::write(log(&held), torn(&before, &after, &mut rng)).unwrap();
            let opened = match Store::open(&held) {
                Ok(store) => store,
                Err(error) => return what(error.to_string()),
            };
            if held.join("quarantine").exists() {
                return what("a torn end was taken for damage".into());
            }
            let there = rows(&opened);
            if !states.contains(&there) {
                let differ = there.iter().filter(|(key, value)| states[0].get(*key) != Some(value)).count();
                let lost = states[0].keys().filter(|key| !there.contains_key(*key)).count();
                return what(format!("{} rows, {differ} differ from what was synced, {lost} are missing", there.len()));
            }
            cuts += 1;
            made_anew += usize::from(held.join("store-1").exists());
            drop(opened);
            fs::remove_dir_all(held).unwrap();
        }
        fs::remove_dir_all(&image).unwrap();
    }
    Ok((made_anew, cuts))
}

#[test]
fn inv8_a_torn_store_that_is_behind_its_witness_is_damaged() {
    let mut rng = fastrand::Rng::new();
    let dir = tempfile::tempdir().unwrap();
    let (life, held) = (dir.path().join("life"), dir.path().join("held"));
    fs::create_dir(&life).unwrap();
    let log = |dir: &Path| dir.join("store/db");
    let store = Store::open(&life).unwrap();
    let mut now = Rows::new();
    // Until the engine can't be trusted with what is there: where it has begun a segment that is not synced.
    for n in 0.. {
        assert!(n < 500, "the engine could be trusted with all of them");
        store.commit(commit(&mut rng, &mut now, 10_000), true).unwrap();
        let before = fs::read(log(&life)).unwrap();
        for _ in 0..12 {
            store.commit(commit(&mut rng, &mut now, 4_000), false).unwrap();
        }
        store.sync().unwrap();
        let image = torn(&before, &fs::read(log(&life)).unwrap(), &mut rng);
        let open = |witness: Option<Witness>| {
            copy(&life, &held);
            fs::write(log(&held), &image).unwrap();
            if let Some(witness) = witness {
                witness.write(&held).unwrap();
            }
            drop(Store::open(&held).unwrap());
            let found = (held.join("store-1").exists(), held.join("quarantine").exists());
            fs::remove_dir_all(&held).unwrap();
            found
        };
        if open(None) == (true, false) {
            let meta = Some(Meta { next_seq: 7, ..Meta::default() });
            assert_eq!(open(Some(Witness { meta, ..Witness::default() })), (true, true));
            return;
        }
    }
}

fn lives(unsynced: usize, most: usize) {
    if std::env::var_os("OFFRAMP_LOG").is_some() {
        let _ = tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).try_init();
    }
    let first = number("OFFRAMP_SEED").unwrap_or_else(|| fastrand::u64(..));
    let count = number("OFFRAMP_TEARS").unwrap_or(30).div_ceil(CUTS * MOMENTS);
    let (mut made_anew, mut cuts) = (0, 0);
    for seed in (0..count).map(|n| first.wrapping_add(n)) {
        let (anew, of) = live(seed, unsynced, most).unwrap_or_else(|broken| panic!("OFFRAMP_SEED={seed}: {broken}"));
        made_anew += anew;
        cuts += of;
    }
    eprintln!("{made_anew} of {cuts} torn stores were made anew");
}

#[test]
fn inv2_inv8_of_a_commit_that_was_being_synced_any_pieces_may_be_there() {
    lives(1, 200_000);
}

#[test]
fn inv2_inv8_of_commits_that_were_not_synced_any_pieces_may_be_there() {
    lives(12, 4_000);
}
