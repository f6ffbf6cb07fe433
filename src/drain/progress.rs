//! What a sink's confirmations tell about those that are missing.
//!
//! A service that promises (202) and keeps its work in memory can be slow, can have lost one episode, or can be dead with a smile. What
//! can be seen is only which episodes appear. From that:
//! - *later ones appear* and ours has had three times the longest wait ever seen: it is lost, send it again;
//! - *nothing appears* for as long as `confirm.timeout`: the sink is stalled, pour nothing more into it;
//! - *after a restart or an ambiguous end*, when nothing was seen to appear for three times the longest wait: one episode, and only one at
//!   a time, is sent again; when it appears the first rule takes care of the others. While nobody looked nothing could be seen.
//!
//! A stalled sink that shows an episode again after it was sent a second time may have been restarted, with all that it had taken lost, or
//! only slow, and this is the first copy. So that one proves that the sink lives, and nothing about the others: the third rule decides.
//!
//! The longest wait is kept with the queue, over restarts; before there is one, the sink's `timeout` stands for it.

use std::time::Duration;

use crate::clock::as_ms;
use crate::sink::Follow;

/// Times in ms of the queue's clock.
#[derive(Debug, Clone)]
pub struct Progress {
    /// When an episode was last seen to be there.
    pub last_confirmed: u64,
    /// The latest sending among those that were seen.
    pub latest_sent: u64,
    /// The longest wait so far; 0 = none yet.
    pub longest: u64,
    /// What stands for `longest` before there is one.
    pub fallback: Duration,
}

/// What to do about an episode that was looked up and isn't there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Look again later.
    Wait,
    /// It is not coming: send it again.
    Lost,
    /// It may not be coming, but nothing else proves it: send it again if no other episode of this sink is being tried so.
    LostIfAlone,
    /// Nothing comes.
    Stalled,
}

/// One episode's case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// When it was sent, or the attempt began.
    pub sent: u64,
    /// When this claim began to look.
    pub started: u64,
    /// Whether it was sent by an earlier claim.
    pub in_doubt: bool,
    /// How long to look without anything appearing.
    pub patience: Duration,
}

impl Progress {
    /// An episode sent at `sent` was seen at `now`. `surely`: what was seen is what was sent then, and not an earlier copy of it.
    pub fn confirm(&mut self, sent: u64, now: u64, surely: bool) {
        self.last_confirmed = self.last_confirmed.max(now);
        if surely {
            self.latest_sent = self.latest_sent.max(sent);
        }
        self.longest = self.longest.max(now.saturating_sub(sent));
    }

    /// After this long, one that isn't there would be an exception.
    pub fn settle(&self, follow: Follow) -> Duration {
        let known = Duration::from_millis(self.longest.saturating_mul(3)).max(follow.poll * 10);
        if self.longest == 0 { self.fallback } else { known }.min(follow.timeout)
    }

    /// What an absence at `now` means.
    pub fn judge(&self, case: Case, follow: Follow, now: u64) -> Verdict {
        let waited = |since: u64| now.saturating_sub(since);
        let settle = as_ms(self.settle(follow));
        if self.latest_sent > case.sent && waited(case.sent) >= settle {
            Verdict::Lost
        } else if waited(case.started.max(self.last_confirmed)) >= as_ms(case.patience) {
            Verdict::Stalled
        } else if case.in_doubt && waited(case.sent.max(case.started).max(self.last_confirmed)) >= settle {
            Verdict::LostIfAlone
        } else {
            Verdict::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOLLOW: Follow = Follow { timeout: Duration::from_secs(900), poll: Duration::from_secs(1) };

    fn progress() -> Progress {
        Progress { last_confirmed: 0, latest_sent: 0, longest: 0, fallback: Duration::from_secs(120) }
    }

    fn case(sent: u64, in_doubt: bool) -> Case {
        Case { sent, started: sent, in_doubt, patience: FOLLOW.timeout }
    }

    #[test]
    fn a_slow_service_with_a_long_line_is_waited_for() {
        // One worker, 13 s each, a hundred sent at once: the last one appears after 1,300 s, later than confirm.timeout.
        let mut p = progress();
        for n in 1..100 {
            let now = n * 13_000;
            p.confirm(0, now, true);
            assert_eq!(p.judge(case(0, false), FOLLOW, now + 12_999), Verdict::Wait, "{n}");
        }
    }

    #[test]
    fn one_that_was_passed_is_lost() {
        let mut p = progress();
        p.confirm(1_000, 14_000, true); // sent after ours, seen after 13 s
        assert_eq!(p.judge(case(0, false), FOLLOW, 38_999), Verdict::Wait);
        assert_eq!(p.judge(case(0, false), FOLLOW, 39_000), Verdict::Lost);
        assert_eq!(p.judge(case(2_000, false), FOLLOW, 60_000), Verdict::Wait, "nothing later than this one was seen");
    }

    #[test]
    fn inv7_when_nothing_appears_the_sink_is_stalled() {
        let mut p = progress();
        assert_eq!(p.judge(case(5, false), FOLLOW, 900_004), Verdict::Wait);
        assert_eq!(p.judge(case(5, false), FOLLOW, 900_005), Verdict::Stalled);
        p.confirm(0, 100_000, true);
        assert_eq!(p.judge(case(5, false), FOLLOW, 900_005), Verdict::Wait);
    }

    #[test]
    fn inv4_one_in_doubt_gets_the_longest_wait_thrice_before_it_is_sent_again() {
        let mut p = progress();
        assert_eq!(p.judge(case(0, true), FOLLOW, 119_999), Verdict::Wait);
        assert_eq!(p.judge(case(0, true), FOLLOW, 120_000), Verdict::LostIfAlone);
        p.longest = 13_000;
        assert_eq!(p.judge(case(0, true), FOLLOW, 38_999), Verdict::Wait);
        assert_eq!(p.judge(case(0, true), FOLLOW, 39_000), Verdict::LostIfAlone);
        p.confirm(0, 30_000, true);
        assert_eq!(p.judge(case(0, true), FOLLOW, 119_999), Verdict::Wait, "others still appear, and took 30 s");
        let late = Case { started: 1_000_000, ..case(0, true) };
        assert_eq!(p.judge(late, FOLLOW, 1_089_999), Verdict::Wait, "nobody looked before");
        assert_eq!(p.judge(late, FOLLOW, 1_090_000), Verdict::LostIfAlone);
    }
}
