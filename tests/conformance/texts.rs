//! What people say, whatever it is made of.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

/// Pieces that have ended queries, lines and templates before their time.
const PIECES: [&str; 28] = [
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
    "{{ id }}",
    "null",
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

/// So many episodes of hostile texts, one of all pieces, and one of so many bytes.
pub fn hostile(session: &str, count: usize, longest: usize) -> Vec<Delivery> {
    let mut runner = TestRunner::default();
    let mut drawn = || texts().new_tree(&mut runner).unwrap().current();
    let long = "'\\😀\"\n";
    let mut said = vec![PIECES.concat(), long.repeat(longest / long.len())];
    said.extend((0..count).map(|_| drawn()));
    let delivery = |(n, text)| {
        let mut delivery = saying(session, n, vec![Message::new("user", text), Message::new("assistant", drawn())]);
        let episode = Arc::make_mut(&mut delivery.episode);
        episode.user = Some(drawn());
        episode.metadata = json!({ drawn(): drawn(), "deep": { drawn(): [drawn(), 1, null] } }).to_string();
        delivery
    };
    (1..).zip(said).map(delivery).collect()
}
