//! A queue with keys: what lies on the disk, and what opens it.

use proptest::prelude::*;

use super::super::codec::CodecError;
use super::*;
use crate::config::encryption::SealingKey;

fn key(n: u8) -> SealingKey {
    SealingKey::new([n; 32])
}

fn with(keys: &[u8]) -> config::Queue {
    config::Queue { encryption_keys: keys.iter().map(|n| key(*n)).collect(), ..config() }
}

fn seals(keys: &[u8]) -> Seals {
    Seals::new(&with(keys).encryption_keys)
}

proptest! {
    #[test]
    fn what_is_sealed_opens_in_its_place_with_its_key_alone(text: String, place: Vec<u8>, other: Vec<u8>) {
        let sealed = seals(&[1, 2]).encode(&text, &place).unwrap();
        prop_assert_eq!(seals(&[3, 1]).decode::<String>(&sealed, &place), Ok(text.clone()));
        prop_assert!(matches!(seals(&[2]).decode::<String>(&sealed, &place), Err(CodecError::Key(_))));
        prop_assert!(matches!(seals(&[]).decode::<String>(&sealed, &place), Err(CodecError::Key(_))));
        if other != place {
            prop_assert_eq!(seals(&[1]).decode::<String>(&sealed, &other), Err(CodecError::Seal));
        }
        let again = seals(&[1]).encode(&text, &place).unwrap();
        prop_assert_ne!(&again, &sealed, "each has a nonce of its own");
        if text.len() > 4 {
            prop_assert!(!sealed.windows(text.len()).any(|w| w == text.as_bytes()));
        }
        let plain = seals(&[]).encode(&text, &place).unwrap();
        prop_assert_eq!(seals(&[1]).decode::<String>(&plain, &place), Ok(text), "what was written before there was a key");
    }

    #[test]
    fn tampering_with_any_byte_is_an_error(text: String, bit in 0u8..8) {
        let seals = seals(&[1]);
        let sealed = seals.encode(&text, b"place").unwrap();
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone();
            bytes[at] ^= 1 << bit;
            prop_assert!(seals.decode::<String>(&bytes, b"place").is_err(), "byte {}", at);
            prop_assert!(seals.decode::<String>(&sealed[..at], b"place").is_err(), "cut at {}", at);
        }
        prop_assert!(seals.decode::<String>(&[sealed, vec![0]].concat(), b"place").is_err());
    }
}

const CANARY: &str = "kanari7z";

/// A queue with the canary wherever content can be: in every part of an episode, in a note, in the history, in a pause's reason.
fn filled(config: config::Queue) -> Bench {
    let bench = Bench::new(config);
    let text = || format!("{CANARY}-text");
    let said = Episode {
        group: Some(text()),
        user: Some(text()),
        agent: Some(text()),
        messages: vec![Message::new("user", text().repeat(900))],
        metadata: format!(r#"{{"{CANARY}":1}}"#),
        original: Some(crate::episode::Original {
            target: text(),
            headers: vec![(text(), serde_bytes::ByteBuf::from(text()))],
            body: text().into_bytes(),
        }),
        ..episode(&text(), 1)
    };
    let note = Note { key: note_key(), value: text().repeat(900).into_bytes(), until: START + DAY };
    let unique = Some(Unique { key: note_key(), until: START + DAY });
    let lanes = bench.lanes(&said.session, &["a", "b"]);
    bench.append_new(&New { note: Some(note), unique, ..New::of(&said, &lanes) }).unwrap();
    let claim = bench.claim("a", 1)[0];
    let line = Attempt { at: START, attempt: 1, outcome: "retry".into(), status: Some(500), error: Some(text()), duration_ms: 1 };
    bench.queue.finish(claim, Finish::Retry { delay: 0, sent: Sent::No }, Some(line));
    let claim = bench.claim("b", 1)[0];
    bench.queue.finish(claim, Finish::Dead { reason: "rejected" }, None);
    now(bench.queue.pause(SinkId(1), Some(text()))).unwrap();
    bench
}

fn note_key() -> Key {
    Key::of("test", [CANARY])
}

/// How many rows the canary is in.
fn rows_with_canary(bench: &Bench) -> usize {
    let mut found = 0;
    let holds = |bytes: &[u8]| bytes.windows(CANARY.len()).any(|w| w == CANARY.as_bytes());
    bench
        .store()
        .scan(Vec::new()..vec![u8::MAX], &mut |key, value| {
            found += usize::from(holds(key) || holds(value));
            true
        })
        .unwrap();
    found
}

fn assert_all_is_read(bench: &Bench) {
    let view = bench.queue.episode(Uuid::from_u128(1)).unwrap().unwrap();
    assert!(view.episode.messages[0].content.starts_with(CANARY) && view.episode.original.is_some());
    assert_eq!(view.sinks[0].history[0].error, Some(format!("{CANARY}-text")));
    assert_eq!(bench.queue.note(note_key()).unwrap().len(), 900 * 13);
    assert_eq!(bench.queue.stats().sinks[0].paused, Some(format!("{CANARY}-text")));
    assert_eq!(bench.queue.read(1), Ok(Some(view.episode)));
    assert_eq!(bench.queue.check(), Vec::<String>::new());
}

#[test]
fn inv10_nothing_that_was_said_is_in_a_row_of_a_sealed_queue() {
    let plain = filled(config());
    assert!(rows_with_canary(&plain) > 4, "it can be found where it is");
    assert_all_is_read(&plain);
    let mut sealed = filled(with(&[1]));
    assert_eq!(rows_with_canary(&sealed), 0);
    sealed.reopen(START);
    assert_all_is_read(&sealed);
}

#[test]
fn a_queue_gets_a_key_and_another_one_and_all_of_it_stays_readable() {
    let mut bench = filled(config());
    for keys in [&[1][..], &[2, 1], &[1, 2]] {
        bench.config = with(keys);
        bench.reopen(START);
        assert_all_is_read(&bench);
        bench.append("s", 10 + u64::from(keys[0]) + 10 * keys.len() as u64, &["b"]).unwrap();
        assert_eq!(bench.queue.check(), Vec::<String>::new());
    }
    assert_eq!(bench.queue.list(&Filter { limit: 9, ..Filter::default() }).unwrap().episodes.len(), 4);
}

/// What opening says with these keys.
fn opened(bench: &Bench, keys: &[u8]) -> Result<(), String> {
    let names = ["a", "b"].map(str::to_owned);
    let opened = prepare(&with(keys), bench.store(), &names, Clock::Fixed(START), &Metrics::new());
    opened.map(drop).map_err(|error| error.to_string())
}

/// The id of a key, as sentences have it.
fn id(n: u8) -> String {
    match seals(&[]).decode::<String>(&seals(&[n]).encode(&String::new(), b"").unwrap(), b"") {
        Err(CodecError::Key(id)) => id.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn inv8_a_queue_stays_shut_without_a_key_that_is_needed_and_opens_when_it_is_not() {
    let mut bench = filled(with(&[1]));
    for keys in [&[][..], &[2], &[2, 3]] {
        let error = opened(&bench, keys).unwrap_err();
        assert!(error.contains(&id(1)), "{error}");
    }
    assert_ne!(id(1), id(2));
    assert_eq!(id(1), "fac2ee6c", "the first bytes of the SHA-256 of the domain and the key");
    // A new key seals, and the old one is needed as long as anything is there that it has sealed.
    bench.config = with(&[2, 1]);
    bench.reopen(START);
    bench.append("s", 7, &["b"]).unwrap();
    assert!(opened(&bench, &[2]).unwrap_err().contains(&id(1)));
    assert!(opened(&bench, &[1]).unwrap_err().contains(&id(2)));
    // What stays longest is a reason, a note, a line of history; each by itself keeps the queue shut.
    assert_eq!(now(bench.queue.delete(Uuid::from_u128(1))).unwrap(), Deleted::Gone);
    assert!(opened(&bench, &[2]).is_err(), "the pause's reason");
    now(bench.queue.pause(SinkId(1), None)).unwrap();
    assert!(opened(&bench, &[2]).is_err(), "the note");
    bench.reopen(START + 2 * DAY);
    bench.tidy();
    assert!(bench.tables().contains('k'));
    assert_eq!(opened(&bench, &[2]), Ok(()));
    assert_eq!(opened(&bench, &[2]), Ok(()), "and does not look again");
    assert!(opened(&bench, &[1]).unwrap_err().contains(&id(2)));
}

#[test]
fn a_line_of_history_alone_keeps_a_queue_shut() {
    let mut bench = Bench::new(config());
    bench.append("s", 1, &["a"]).unwrap();
    bench.config = with(&[1]);
    bench.reopen(START);
    let line = Attempt { at: START, attempt: 1, outcome: "retry".into(), status: None, error: None, duration_ms: 1 };
    bench.queue.finish(bench.claim("a", 1)[0], Finish::Retry { delay: 0, sent: Sent::No }, Some(line));
    assert!(opened(&bench, &[]).unwrap_err().contains(&id(1)));
    bench.queue.finish(bench.claim("a", 1)[0], Finish::Delivered { confirmed_in: None }, None);
    bench.reopen(START + 40 * DAY);
    bench.tidy();
    assert_eq!(opened(&bench, &[]), Ok(()));
    assert_eq!(bench.tables(), "mnsz");
}

#[test]
fn a_directory_without_its_key_is_refused_in_a_sentence_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let config = |keys| config::Queue { path: dir.path().to_owned(), ..with(keys) };
    let names = ["a".to_owned()];
    let queue = Queue::open_for(&config(&[1]), &names, &Metrics::new()).unwrap();
    let lanes = [(queue.sink_id("a").unwrap(), Lane::of("s"))];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(queue.append(&[New::of(&episode("s", 1), &lanes)]).unwrap()).unwrap();
    drop(queue);
    let error = Queue::open_for(&config(&[]), &names, &Metrics::new()).err().unwrap();
    assert!(matches!(error, QueueError::Key { .. }));
    let sentence = error.to_string();
    for part in [&id(1), "queue.encryption_key_file does not have it", "put that key into the file again"] {
        assert!(sentence.contains(part), "{sentence}");
    }
    assert!(Queue::open_for(&config(&[1]), &names, &Metrics::new()).is_ok());
}

#[test]
fn inv8_an_episode_put_in_anothers_place_is_unreadable_and_harms_nobody_else() {
    let bench = Bench::new(with(&[1]));
    bench.append("s", 1, &["a"]).unwrap();
    bench.append("s", 2, &["a"]).unwrap();
    let store = bench.store();
    let txn = Txn::new(&store);
    let [one, mut two] = [1, 2].map(|seq| engine::read_record(&txn, seq).unwrap().unwrap().0);
    two.episode = one.episode;
    let pieces = codec::encode(&two).unwrap();
    let rows = (0u16..).zip(pieces.chunks(store::MAX_VALUE)).map(|(n, piece)| (keys::chunk(2, n), Some(piece.to_vec())));
    store.commit(rows.collect(), true).unwrap();
    assert!(matches!(bench.queue.read(2), Err(ReadError::Unreadable(_))));
    assert!(matches!(bench.queue.read(1), Ok(Some(_))));
    assert!(bench.queue.check()[0].contains("the seal does not fit"), "{:?}", bench.queue.check());
}
