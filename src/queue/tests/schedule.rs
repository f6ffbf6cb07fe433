//! Any schedule, on a disk that behaves badly: places out of their order, holds, unique keys, notes, every ending, operations that share a
//! batch, limits, a store that is rewritten all the time, clocks that jump; and lost power, kills, calls that fail or hang, a full disk,
//! at any point of any of these.
//!
//! `oracle` says what must be true, in the plainest way; `run` takes each step at the queue and at the oracle, and compares all that is on
//! the disk afterwards. `OFFRAMP_SCHEDULES=20000` for more of them. One that fails is made as short as it gets, and printed.

mod oracle;
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use proptest::prelude::*;

use super::*;
use crate::queue::model::Fault;

/// One of those that there are.
type Index = usize;

/// How long a unique key and a note live here.
const KEPT: u64 = 5_000;

struct Schedule {
    setup: Setup,
    steps: Vec<Step>,
}

/// A step a line: a failing one is to be read.
impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.setup)?;
        self.steps.iter().try_for_each(|step| write!(f, "\n{step:?}"))
    }
}

/// What a queue is like.
#[derive(Debug, Clone)]
struct Setup {
    interval: bool,
    few: bool,
    small: bool,
    /// Bytes that a store may waste, and those in a slice of its rewriting, if that is to happen at all.
    rewritten: Option<(u64, usize)>,
    /// How the sinks are configured at first.
    settings: SinkSettings,
    /// Only steps of these kinds are taken: a schedule of few kinds comes further with them than one of all.
    kinds: u16,
}

#[derive(Debug, Clone)]
enum Step {
    Reserve,
    Hold {
        sessions: u8,
        place: Index,
        length: u64,
    },
    /// In one batch.
    Do(Vec<Act>),
    /// Time goes by, and the writer tidies up.
    Tick(u64),
    /// The store is synced (`durability = "interval"`).
    Sync,
    Fault(Fault),
    Fill(usize),
    Mend,
    /// The process dies, and with the power so much of what was not synced; the next one sees another clock.
    Restart {
        power: Option<u8>,
        clock: i64,
    },
}

/// What the queue is asked to do.
#[derive(Debug, Clone)]
enum Act {
    Append(Vec<Arrival>),
    Note(u8, usize),
    Release(Index),
    Claim {
        sink: bool,
        max: usize,
        ahead: usize,
        batch: usize,
        in_doubt: bool,
        heard: bool,
    },
    Begin(Index),
    Accepted(Index),
    Finish(Index, Finish),
    Redrive(Index),
    Purge(Index),
    Delete(Index),
    /// In a batch of its own.
    Replay {
        sink: bool,
        session: Option<u8>,
        since: u64,
    },
    /// A slice of it.
    Go(bool, usize),
    Cancel(bool),
    /// In a batch of its own.
    Clear(bool),
    Configure {
        sink: bool,
        settings: SinkSettings,
    },
}

/// An episode that comes.
#[derive(Debug, Clone)]
struct Arrival {
    session: u8,
    both: bool,
    /// Longer than a piece of a record.
    long: bool,
    /// At one of the places that were reserved.
    place: Option<Index>,
    /// How much later than the first its event was.
    moved: u64,
    unique: Option<u8>,
    note: Option<(u8, usize)>,
    priority: u8,
}

impl Step {
    fn kind(&self) -> u32 {
        match self {
            Self::Reserve | Self::Hold { .. } => 0,
            Self::Tick(_) => 1,
            Self::Fill(_) => 2,
            Self::Fault(_) => 3,
            _ => 15,
        }
    }
}

impl Act {
    fn kind(&self) -> u32 {
        match self {
            Self::Release(_) => 0,
            Self::Note(..) => 4,
            Self::Claim { .. } => 5,
            Self::Begin(_) | Self::Accepted(_) => 6,
            Self::Redrive(_) => 7,
            Self::Purge(_) => 8,
            Self::Delete(_) => 9,
            Self::Replay { .. } | Self::Go(..) | Self::Cancel(_) | Self::Clear(_) => 14,
            Self::Configure { .. } => PARKS,
            Self::Append(_) | Self::Finish(..) => 15,
        }
    }
}

/// Of an arrival.
const UNIQUES: u32 = 10;
const NOTES: u32 = 11;
const PRIORITIES: u32 = 12;
/// Of settings.
const PARKS: u32 = 13;

impl Setup {
    fn has(&self, kind: u32) -> bool {
        kind == 15 || self.kinds & (1 << kind) != 0
    }
}

fn schedule() -> impl Strategy<Value = Schedule> {
    (setup(), prop::collection::vec(step(), 1..80)).prop_map(|(setup, steps)| Schedule { setup, steps })
}

fn setup() -> impl Strategy<Value = Setup> {
    let rewritten = prop::option::weighted(0.7, (0u64..3_000, 1usize..1_500));
    (prop::bool::weighted(0.3), prop::bool::weighted(0.2), prop::bool::weighted(0.3), rewritten, settings(), any::<u16>())
        .prop_map(|(interval, few, small, rewritten, settings, kinds)| Setup { interval, few, small, rewritten, settings, kinds })
}

fn settings() -> impl Strategy<Value = SinkSettings> {
    (prop_oneof![3 => Just(0), 1 => 0u64..20_000], any::<bool>()).prop_map(|(linger, park)| SinkSettings { linger, park })
}

fn step() -> impl Strategy<Value = Step> {
    let after = prop_oneof![0u8..3, 0u8..12];
    let fault =
        (after, prop::bool::weighted(0.3), any::<bool>(), prop::bool::weighted(0.3), prop::bool::weighted(0.3), any::<u8>())
            .prop_map(|(after, reads, effect, wedge, lasting, keep)| Fault { after, reads, effect, wedge, lasting, keep });
    prop_oneof![
        4 => Just(Step::Reserve),
        3 => (1u8..8, any::<Index>(), 1u64..20_000).prop_map(|(sessions, place, length)| Step::Hold { sessions, place, length }),
        24 => prop_oneof![2 => prop::collection::vec(act(), 1..2), 1 => prop::collection::vec(act(), 2..6)].prop_map(Step::Do),
        8 => prop_oneof![5 => Just(0), 2 => 0u64..20_000, 1 => 0u64..2 * DAY].prop_map(Step::Tick),
        1 => Just(Step::Sync),
        4 => fault.prop_map(Step::Fault),
        1 => (0usize..20_000).prop_map(Step::Fill),
        1 => Just(Step::Mend),
        3 => (any::<Option<u8>>(), prop_oneof![4 => Just(1i64), 1 => -3 * DAY.cast_signed()..2 * DAY.cast_signed()])
            .prop_map(|(power, clock)| Step::Restart { power, clock }),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let index = any::<Index>;
    let sent = || prop_oneof![Just(Sent::No), Just(Sent::Began(START)), Just(Sent::Accepted(START))];
    let finish = prop_oneof![
        5 => Just(Finish::Delivered { confirmed_in: Some(1) }),
        2 => (0u64..50_000, sent()).prop_map(|(delay, sent)| Finish::Retry { delay, sent }),
        1 => sent().prop_map(|sent| Finish::Hold { sent }),
        1 => Just(Finish::Uncount),
        2 => Just(Finish::Dead { reason: "rejected" }),
    ];
    let batch = prop_oneof![1 => Just(1), 1 => 2usize..5];
    let ahead = prop_oneof![2 => (1usize..4, Just(0)), 1 => (0usize..2, 1usize..3)];
    let claim = (any::<bool>(), ahead, batch, prop::bool::weighted(0.1), prop::bool::weighted(0.95));
    prop_oneof![
        7 => prop_oneof![4 => prop::collection::vec(arrival(), 1..2), 1 => prop::collection::vec(arrival(), 2..4)].prop_map(Act::Append),
        1 => note().prop_map(|(key, len)| Act::Note(key, len)),
        2 => index().prop_map(Act::Release),
        7 => claim.prop_map(|(sink, (max, ahead), batch, in_doubt, heard)| Act::Claim { sink, max, ahead, batch, in_doubt, heard }),
        1 => index().prop_map(Act::Begin),
        1 => index().prop_map(Act::Accepted),
        9 => (index(), finish).prop_map(|(claim, finish)| Act::Finish(claim, finish)),
        2 => index().prop_map(Act::Redrive),
        1 => index().prop_map(Act::Purge),
        1 => index().prop_map(Act::Delete),
        1 => (any::<bool>(), prop::option::weighted(0.3, 0u8..3), 0u64..3)
            .prop_map(|(sink, session, since)| Act::Replay { sink, session, since }),
        2 => (any::<bool>(), 1usize..4).prop_map(|(sink, most)| Act::Go(sink, most)),
        1 => prop::bool::ANY.prop_map(Act::Cancel),
        1 => prop::bool::ANY.prop_map(Act::Clear),
        1 => (any::<bool>(), settings()).prop_map(|(sink, settings)| Act::Configure { sink, settings }),
    ]
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let place = prop::option::weighted(0.6, any::<Index>());
    let (unique, note) = (prop::option::weighted(0.5, 0u8..2), prop::option::weighted(0.2, note()));
    (0u8..3, any::<bool>(), prop::bool::weighted(0.2), place, 0u64..4, unique, note, 0u8..3).prop_map(
        |(session, both, long, place, moved, unique, note, priority)| Arrival {
            session,
            both,
            long,
            place,
            moved,
            unique,
            note,
            priority,
        },
    )
}

fn note() -> impl Strategy<Value = (u8, usize)> {
    (0u8..2, prop_oneof![0usize..50, 4_000usize..9_000])
}
