//! The shortest schedules that once went wrong.

use super::*;

fn went_wrong(steps: &[Step]) {
    went_wrong_with(false, steps);
}

fn went_wrong_with(interval: bool, steps: &[Step]) {
    let setup = Setup { interval, few: false, small: false, rewritten: None, settings: SinkSettings::default(), kinds: u16::MAX };
    take(&setup, steps).unwrap();
}

fn arrival(session: u8, unique: Option<u8>) -> Act {
    Act::Append(vec![Arrival { session, both: false, long: false, place: None, moved: 0, unique, note: None, priority: 0 }])
}

fn append(session: u8) -> Step {
    Step::Do(vec![arrival(session, None)])
}

fn claim(max: usize) -> Act {
    Act::Claim { sink: false, max, ahead: 0, batch: 1, in_doubt: false, heard: true }
}

fn fault(after: u8, reads: bool) -> Fault {
    Fault { after, reads, effect: false, wedge: false, lasting: false, keep: 0 }
}

fn restart(power: Option<u8>, clock: i64) -> Step {
    Step::Restart { power, clock }
}

#[test]
fn inv6_a_lane_from_before_the_clock_was_set_back_does_not_wait_for_one_that_is_retried() {
    let retry = Act::Finish(0, Finish::Retry { delay: 50_000, sent: Sent::No });
    let late = restart(None, -2 * 86_400_000);
    went_wrong(&[append(0), late, append(1), Step::Do(vec![claim(9)]), Step::Do(vec![retry]), Step::Do(vec![claim(9)])]);
}

#[test]
fn inv3_a_handle_that_hangs_while_the_writer_tidies_up_is_given_up() {
    let keyed = Step::Do(vec![arrival(0, Some(0))]);
    went_wrong(&[Step::Fault(Fault { wedge: true, ..fault(2, false) }), keyed, Step::Tick(5_000)]);
}

#[test]
fn inv8_what_a_failed_commit_left_in_memory_is_never_written() {
    let noted =
        Arrival { session: 0, both: true, long: false, place: None, moved: 0, unique: None, note: Some((0, 0)), priority: 0 };
    let bad = Step::Fault(Fault { lasting: true, ..fault(5, true) });
    went_wrong(&[Step::Do(vec![Act::Append(vec![noted])]), bad, Step::Tick(5_000), Step::Mend, append(0)]);
}

#[test]
fn inv2_nothing_is_left_out_in_favour_of_an_episode_that_is_not_on_stable_storage() {
    let keyed = || Step::Do(vec![arrival(0, Some(0))]);
    let nothing = Step::Do(vec![Act::Claim { sink: true, max: 1, ahead: 0, batch: 1, in_doubt: false, heard: true }]);
    went_wrong(&[Step::Fault(fault(1, false)), keyed(), nothing, keyed(), restart(Some(0), 1)]);
}

#[test]
fn inv6_a_claim_that_can_not_be_read_to_its_end_claims_nothing() {
    went_wrong(&[append(0), append(1), Step::Fault(fault(3, true)), Step::Do(vec![claim(2)]), Step::Do(vec![claim(2)])]);
}

#[test]
fn inv9_a_lanes_clock_goes_also_if_the_row_of_an_attempt_was_lost() {
    let delivered = Finish::Delivered { confirmed_in: None };
    let finish = |finish| Step::Do(vec![Act::Finish(0, finish)]);
    let claim = || Step::Do(vec![claim(1)]);
    let lost = [Step::Fault(fault(0, false)), append(1), Step::Tick(0), finish(Finish::Hold { sent: Sent::Began(START) })];
    let steps = [append(0), append(0), claim(), finish(delivered), Step::Sync, claim()];
    went_wrong_with(true, &steps.into_iter().chain(lost).collect::<Vec<_>>());
}

#[test]
fn inv5_what_was_released_in_a_batch_that_failed_is_released() {
    let hold = Step::Hold { sessions: 1, place: 0, length: 20_000 };
    let release = Step::Do(vec![claim(1), Act::Release(0)]);
    went_wrong(&[Step::Reserve, append(0), hold, Step::Fault(fault(0, true)), release, Step::Do(vec![claim(1)])]);
}
