//! What people say comes back as they said it, whatever it is made of.

use std::collections::BTreeMap;

use offramp::episode::Message;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::{deliver, episode, open, runtime};
use crate::support::databases::Database;
use std::sync::Arc;

/// Pieces that have ended queries before their time.
const PIECES: [&str; 26] = [
    "'",
    "\"",
    "\\",
    "\\'",
    "''",
    "`",
    "\n",
    "\r\n",
    "\t",
    "\0",
    "\u{1}",
    "\u{7f}",
    "$id",
    "{",
    "}",
    "//",
    "/*",
    "*/",
    ";",
    "CYPHER a=1 ",
    "' RETURN 1 //",
    "\\u0027",
    "😀",
    "e\u{301}",
    "\u{202e}",
    "\u{feff}",
];

fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(&PIECES[..]).prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
        "[a-z ]{0,6}"
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// As many as so many cases of proptest, in a few calls: one question to a database for each would take minutes.
#[test]
fn inv4_hostile_texts_come_back_as_they_were() {
    let mut runner = TestRunner::default();
    let mut drawn = || texts().new_tree(&mut runner).unwrap().current();
    let mut deliveries = Vec::new();
    for n in 1..=300 {
        let mut delivery = episode("hostile", n);
        let e = Arc::make_mut(&mut delivery.episode);
        e.messages =
            vec![Message::new("user", drawn()), Message { role: "assistant".to_owned(), name: Some(drawn()), content: drawn() }];
        e.user = Some(drawn());
        e.agent = (n % 3 > 0).then(&mut drawn);
        e.metadata = json!({ drawn(): drawn(), "deep": { drawn(): [drawn(), 1, null] } }).to_string();
        deliveries.push(delivery);
    }
    for piece in PIECES {
        let mut delivery = episode("hostile", 1000 + deliveries.len() as u64);
        Arc::make_mut(&mut delivery.episode).messages = vec![Message::new("user", piece)];
        deliveries.push(delivery);
    }
    let mut long = episode("hostile", 2000);
    Arc::make_mut(&mut long.episode).messages = vec![Message::new("user", "'\\😀\"\n".repeat((1 << 20) / 8))];
    deliveries.push(long);
    // The beginning of time, and far ahead.
    for (n, at) in [(3000, 0), (3001, 253_402_300_799_999), (3002, u64::MAX)] {
        let mut delivery = episode("hostile", n);
        delivery.at = at;
        deliveries.push(delivery);
    }

    for database in Database::ALL {
        let _running = database.start();
        let (sink, _dir) = open(database, database.address(), "hostile", "");
        runtime().block_on(async {
            let (alone, together) = deliveries.split_at(20);
            for delivery in alone {
                deliver(&sink, delivery).await;
            }
            for batch in together.chunks(40) {
                sink.deliver_batch(batch).await.unwrap();
            }
        });
        let fields = "e.id, e.content, e.user, e.agent, e.metadata, e.at, e.time";
        let rows = database.ask("hostile", &[&format!("MATCH (e:Episode) RETURN {fields}")]).remove(0);
        let found: BTreeMap<String, Vec<Value>> =
            rows.into_iter().map(|row| (row[0].as_str().unwrap().to_owned(), row)).collect();
        assert_eq!(found.len(), deliveries.len(), "{database:?}");
        // The one thing that FalkorDB can't be told.
        let told = |text: &str| if database == Database::FalkorDb { text.replace('\0', "\u{FFFD}") } else { text.to_owned() };
        for delivery in &deliveries {
            let e = &delivery.episode;
            let content = e.messages.iter().map(|m| format!("{}: {}", m.role, m.content)).collect::<Vec<_>>().join("\n");
            let row = &found[&e.id.to_string()];
            let at = i64::try_from(delivery.at).unwrap_or(i64::MAX);
            let want = json!([
                e.id,
                told(&content),
                e.user.as_deref().map(told),
                e.agent.as_deref().map(told),
                told(&e.metadata),
                at,
                delivery.timestamp(),
            ]);
            assert_eq!(&json!(row), &want, "{database:?}");
        }
    }
}
