use super::*;

/// Two sessions of three messages each.
fn told() -> Vec<Conversation> {
    let conversation =
        |n| Conversation { name: format!("s-{n}"), id: Some(format!("id-{n}")), answered: vec![1, 2, 3], failed: vec![] };
    vec![conversation(1), conversation(2)]
}

fn episode(session: &str, number: u64) -> Found {
    let mark = Mark { session: session.to_owned(), number };
    let valid_at = Timestamp::from_millisecond(1_767_225_600_000 + i64::try_from(number).unwrap()).unwrap();
    Found { name: format!("{session}/{number}"), content: format!("(user): {}", mark.text()), valid_at }
}

fn there() -> BTreeMap<String, Vec<Found>> {
    (1..=2).map(|n| (format!("id-{n}"), (1..=3).map(|number| episode(&format!("s-{n}"), number)).collect())).collect()
}

fn ledger() -> Ledger {
    Ledger { captured: 6, delivered: 6, ..Ledger::default() }
}

/// The claims that fail, with what is held against them.
fn failing(claims: Vec<Claim>) -> Vec<(String, Vec<String>)> {
    claims.into_iter().filter(|claim| !claim.holds).map(|claim| (claim.claim, claim.against)).collect()
}

const ONCE: &str = "every episode is in the graph exactly once";
const ORDER: &str = "each of 2 sessions is in order";
const TIMES: &str = "the timestamps of each session strictly increase";

fn fault(claim: &str, against: &str) -> (String, Vec<String>) {
    (claim.to_owned(), vec![against.to_owned()])
}

#[test]
fn all_claims_hold_for_what_is_whole() {
    let claims = prove(&told(), &there(), ledger());
    assert_eq!((claims.len(), failing(claims)), (6, vec![]));
}

#[test]
fn inv5_a_swapped_episode_is_seen() {
    let mut there = there();
    there.get_mut("id-1").unwrap().swap(1, 2);
    let swapped = failing(prove(&told(), &there, ledger()));
    assert_eq!(swapped[0], fault(ORDER, "s-1: message 2 came after 3"));
    assert_eq!(swapped[1].0, TIMES);
    assert_eq!(swapped.len(), 2);
}

#[test]
fn inv8_a_lost_episode_is_seen() {
    let mut there = there();
    there.get_mut("id-2").unwrap().remove(0);
    assert_eq!(failing(prove(&told(), &there, ledger())), [fault(ONCE, "s-2: message 1 is lost")]);
    there.remove("id-1");
    assert_eq!(failing(prove(&told(), &there, ledger()))[0].1.len(), 4, "a whole session, too");
}

#[test]
fn inv4_a_doubled_episode_is_seen() {
    let mut doubled = there();
    let again = Found { name: "another id".to_owned(), ..doubled["id-1"][2].clone() };
    doubled.get_mut("id-1").unwrap().push(again);
    let faults = failing(prove(&told(), &doubled, ledger()));
    assert_eq!(faults[0], fault(ONCE, "s-1: message 3 is there 2 times"));

    let mut same_id = there();
    same_id.get_mut("id-1").unwrap()[2].name = "s-1/1".to_owned();
    assert_eq!(failing(prove(&told(), &same_id, ledger())), [fault(ONCE, "s-1: the id s-1/1 is there twice")]);
}

#[test]
fn an_episode_in_the_wrong_place_is_seen() {
    let mut wrong = there();
    let strayed = wrong.get_mut("id-1").unwrap().pop().unwrap();
    wrong.get_mut("id-2").unwrap().push(Found { valid_at: "2026-02-01T00:00:00Z".parse().unwrap(), ..strayed });
    wrong.insert("id-3".to_owned(), vec![episode("s-3", 1)]);
    let faults = failing(prove(&told(), &wrong, ledger()));
    let expected =
        ["s-1: message 3 is lost", "s-2: holds an episode of somebody else, s-1/3", "group id-3 belongs to no session"];
    assert_eq!(faults, [(ONCE.to_owned(), expected.map(str::to_owned).to_vec())]);
}

#[test]
fn equal_timestamps_do_not_increase() {
    let mut there = there();
    let first = there["id-1"][0].valid_at;
    there.get_mut("id-1").unwrap()[1].valid_at = first;
    assert_eq!(failing(prove(&told(), &there, ledger())).len(), 1);
}

#[test]
fn a_request_that_failed_may_be_there_or_not_but_counts_as_one_to_capture() {
    let mut told = told();
    let number = told[0].answered.pop().unwrap();
    told[0].failed.push(number);
    assert_eq!(failing(prove(&told, &there(), ledger())), []);
    let mut without = there();
    without.get_mut("id-1").unwrap().pop();
    let five = Ledger { captured: 5, delivered: 5, ..Ledger::default() };
    assert_eq!(failing(prove(&told, &without, five)), [fault("each of 6 requests was captured", "5 were captured")]);
}

#[test]
fn inv8_a_ledger_that_leaks_and_one_with_leftovers_fail() {
    let leaks = Ledger { captured: 6, delivered: 5, ..Ledger::default() };
    assert_eq!(failing(prove(&told(), &there(), leaks)), [fault("the ledger balances", "1 episodes are in no account")]);
    let left = Ledger { captured: 6, delivered: 4, dead: 1, pending: 1, ..Ledger::default() };
    let claim = "everything captured was delivered".to_owned();
    let against = vec!["1 pending".to_owned(), "1 dead".to_owned()];
    assert_eq!(failing(prove(&told(), &there(), left)), [(claim, against)]);
}

#[test]
fn thousands_are_grouped() {
    assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
}
