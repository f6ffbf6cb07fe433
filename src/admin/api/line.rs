//! An episode as a line of an export: all that its record has, and where it stands at each sink, so that another queue can go on with it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::episode::{Attempt, Deaths, Sha256};
use crate::clock;
use crate::episode::{self, Digests, End, Message, Request};
use crate::queue::{self, Import, Lane, Sent, SinkId, State, Time, View};

/// How a line begins that stands for a record which can't be read.
pub const UNREADABLE: &str = "{\"unreadable\":";

/// Lines of history at a sink, at most: what a queue keeps.
const HISTORY: usize = 32;

/// Longest error in the history (bytes): such a line is one row of the store.
const LONGEST_ERROR: usize = 3_000;

/// Longest word that tells an outcome or a reason.
const LONGEST_WORD: usize = 32;

/// One episode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    id: Uuid,
    /// Its place; an import gives it another one.
    #[serde(default)]
    seq: u64,
    session: String,
    group: Option<String>,
    user: Option<String>,
    agent: Option<String>,
    proxy: String,
    route: String,
    captured_at: String,
    completed_at: String,
    occurred_at: Option<String>,
    end: End,
    messages: Vec<Message>,
    #[serde(default)]
    metadata: Map<String, Value>,
    request: Request,
    sha256: Sha256,
    /// The request itself, for a sink that sends it again.
    original: Option<Original>,
    sinks: BTreeMap<String, Stood>,
}

/// A request; what may be any bytes is base64.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Original {
    target: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// Where it stands at one sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stood {
    state: State,
    attempts: u32,
    next_attempt_at: Option<String>,
    delivered_at: Option<String>,
    ended_at: Option<String>,
    /// The newest error of the history; an import finds it there.
    last_error: Option<String>,
    reason: Option<String>,
    /// What its age counts from.
    since: Option<String>,
    event_time: Option<EventTime>,
    /// What is known of the latest attempt; where nothing is said it may have reached the sink.
    sent: Option<Reached>,
    #[serde(default, skip_serializing_if = "is_zero")]
    priority: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deaths: Option<Deaths>,
    #[serde(default)]
    history: Vec<Attempt>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(priority: &u8) -> bool {
    *priority == 0
}

/// [`Time`]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EventTime {
    Event(String),
    Given(String),
    Sent(String),
}

/// [`Sent`]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reached {
    No,
    Began(String),
    Accepted(String),
}

impl From<View> for Line {
    fn from(view: View) -> Self {
        let View { seq, episode, sinks } = view;
        let [request, response] = episode.sha256.to_hex();
        Self {
            id: episode.id,
            seq,
            session: episode.session,
            group: episode.group,
            user: episode.user,
            agent: episode.agent,
            proxy: episode.proxy,
            route: episode.route,
            captured_at: clock::rfc3339(episode.captured_at),
            completed_at: clock::rfc3339(episode.completed_at),
            occurred_at: episode.occurred_at.map(clock::event),
            end: episode.end,
            messages: episode.messages,
            metadata: serde_json::from_str(&episode.metadata).unwrap_or_default(),
            request: episode.request,
            sha256: Sha256 { request, response },
            original: episode.original.map(|original| Original {
                target: original.target,
                headers: original.headers.into_iter().map(|(name, value)| (name, BASE64.encode(value))).collect(),
                body: BASE64.encode(original.body),
            }),
            sinks: sinks.into_iter().map(|s| (s.sink.clone(), s.into())).collect(),
        }
    }
}

impl From<queue::Standing> for Stood {
    fn from(s: queue::Standing) -> Self {
        Self {
            state: s.state,
            attempts: s.attempts,
            next_attempt_at: s.next_attempt_at.map(clock::rfc3339),
            delivered_at: s.delivered_at.map(clock::rfc3339),
            ended_at: s.ended_at.map(clock::rfc3339),
            last_error: s.last_error,
            reason: s.reason,
            since: Some(clock::rfc3339(s.since)),
            event_time: Some(match s.time.elsewhere(s.sent) {
                Time::Event(at) => EventTime::Event(clock::event(at)),
                Time::Given(at) => EventTime::Given(clock::event(at)),
                Time::Sent(at) => EventTime::Sent(clock::event(at)),
            }),
            sent: Some(match s.sent {
                Sent::No => Reached::No,
                Sent::Began(at) => Reached::Began(clock::rfc3339(at)),
                Sent::Accepted(at) => Reached::Accepted(clock::rfc3339(at)),
            }),
            priority: s.priority,
            deaths: Deaths::of(s.deaths),
            history: s.history.into_iter().map(Attempt::from).collect(),
        }
    }
}

/// Whom an episode can go to here: the sink's id and the episode's lane there; none for a name that isn't configured.
pub type Find<'a> = &'a dyn Fn(&str, &episode::Episode) -> Option<(SinkId, Lane)>;

impl Line {
    /// The line, as JSON.
    ///
    /// # Panics
    /// Never.
    pub fn to_json(&self) -> String {
        // Nothing in it can't be JSON: keys are texts, and no number is infinite.
        serde_json::to_string(self).expect("a line is JSON")
    }

    /// Reads a line, or says what is wrong with it.
    pub fn read(line: &[u8]) -> Result<Self, String> {
        if line.starts_with(UNREADABLE.as_bytes()) {
            return Err("it stands for a record that could not be read when it was exported".to_owned());
        }
        serde_json::from_slice(line).map_err(|error| {
            let error = error.to_string();
            // Which line it is knows whoever reads the file.
            let (what, column) = error.rsplit_once(" at line 1 column ").unwrap_or((&error, "1"));
            format!("it is no episode: {what}, at column {column}")
        })
    }

    /// What the queue takes, and the names of the sinks that aren't here. What nobody here would have is refused. `now` is the queue's.
    pub fn into_import(self, find: Find<'_>, now: u64) -> Result<(Import, Vec<String>), String> {
        let sinks = self.sinks;
        let episode = episode::Episode {
            id: self.id,
            session: Some(self.session).filter(|session| !session.is_empty()).ok_or("session is empty")?,
            group: self.group,
            user: self.user,
            agent: self.agent,
            proxy: self.proxy,
            route: self.route,
            captured_at: time("captured_at", &self.captured_at)?,
            completed_at: time("completed_at", &self.completed_at)?,
            end: self.end,
            messages: self.messages,
            metadata: Value::Object(self.metadata).to_string(),
            request: self.request,
            occurred_at: self.occurred_at.map(|at| event("occurred_at", &at)).transpose()?,
            sha256: Digests {
                request: digest("sha256.request", self.sha256.request)?,
                response: digest("sha256.response", self.sha256.response)?,
            },
            original: self.original.map(original).transpose()?,
        };
        let (mut here, mut unknown) = (Vec::new(), Vec::new());
        for (name, stood) in sinks {
            match find(&name, &episode) {
                Some((sink, lane)) => {
                    let standing = stood.standing(&name, &episode, now).map_err(|why| format!("sinks.{name}: {why}"))?;
                    here.push((sink, lane, standing));
                }
                None => unknown.push(name),
            }
        }
        if here.is_empty() {
            return Err(format!("none of its sinks is configured here: {}", unknown.join(", ")));
        }
        if here.iter().all(|(.., standing)| matches!(standing.state, State::Purged | State::Expired)) {
            return Err("it was purged or has expired at every sink that is here: nothing would keep it".to_owned());
        }
        here.sort_by_key(|(sink, ..)| *sink);
        Ok((Import { episode, sinks: here }, unknown))
    }
}

impl Stood {
    fn standing(self, sink: &str, episode: &episode::Episode, now: u64) -> Result<queue::Standing, String> {
        let tried = self.attempts > 0 || self.state == State::InFlight;
        let mut history = self.history.into_iter().map(attempt).collect::<Result<Vec<_>, _>>()?;
        if history.len() > HISTORY {
            history.drain(1..=history.len() - HISTORY);
        }
        let delivered_at = times("delivered_at", self.delivered_at)?;
        Ok(queue::Standing {
            sink: sink.to_owned(),
            state: if self.state == State::InFlight { State::Pending } else { self.state },
            attempts: self.attempts,
            next_attempt_at: times("next_attempt_at", self.next_attempt_at)?,
            delivered_at,
            ended_at: times("ended_at", self.ended_at)?.or(delivered_at),
            reason: self.reason.map(|reason| word("reason", reason)).transpose()?,
            last_error: self.last_error,
            since: times("since", self.since)?.unwrap_or(episode.captured_at),
            time: match self.event_time {
                None => Time::Event(episode.time()),
                Some(EventTime::Event(at)) => Time::Event(event("event_time", &at)?),
                Some(EventTime::Given(at)) => Time::Given(event("event_time", &at)?),
                Some(EventTime::Sent(at)) => Time::Sent(event("event_time", &at)?),
            },
            sent: match self.sent {
                None if tried => Sent::Began(now),
                None | Some(Reached::No) => Sent::No,
                Some(Reached::Began(at)) => Sent::Began(time("sent", &at)?),
                Some(Reached::Accepted(at)) => Sent::Accepted(time("sent", &at)?),
            },
            priority: self.priority,
            deaths: self.deaths.map_or(Ok(queue::Deaths::default()), deaths)?,
            parked_by: None, // its lane here is another one
            history,
        })
    }
}

/// When something happened here.
fn time(name: &str, text: &str) -> Result<u64, String> {
    u64::try_from(event(name, text)?)
        .map_err(|_| format!("{name} is {text:?}; only occurred_at and event_time may be before 1970"))
}

/// When that happened which is told of.
fn event(name: &str, text: &str) -> Result<i64, String> {
    clock::parse_event(text).ok_or_else(|| format!("{name} is {text:?}; a time is such as \"2026-01-01T00:00:00.000Z\""))
}

fn times(name: &str, text: Option<String>) -> Result<Option<u64>, String> {
    text.map(|text| time(name, &text)).transpose()
}

fn deaths(given: Deaths) -> Result<queue::Deaths, String> {
    let Deaths { count, first_at, last_at } = given;
    Ok(queue::Deaths { count, first: time("deaths.first_at", &first_at)?, last: time("deaths.last_at", &last_at)? })
}

fn digest(name: &str, text: Option<String>) -> Result<Option<[u8; 32]>, String> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || format!("{name} is no SHA-256 in 64 hexadecimal digits");
    if text.len() != 64 || !text.is_ascii() {
        return Err(wrong());
    }
    let mut digest = [0; 32];
    for (byte, at) in digest.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(Some(digest))
}

fn original(given: Original) -> Result<episode::Original, String> {
    let bytes = |name: &str, text: &str| BASE64.decode(text).map_err(|_| format!("original.{name} is not base64"));
    let headers = given.headers.into_iter().map(|(name, value)| {
        let value = bytes("headers", &value)?;
        Ok::<_, String>((name, ByteBuf::from(value)))
    });
    Ok(episode::Original { target: given.target, headers: headers.collect::<Result<_, _>>()?, body: bytes("body", &given.body)? })
}

fn attempt(given: Attempt) -> Result<queue::Attempt, String> {
    Ok(queue::Attempt {
        at: time("history.at", &given.at)?,
        attempt: given.attempt,
        outcome: word("history.outcome", given.outcome)?,
        status: given.status,
        error: given.error.map(|mut error| {
            let fits = (0..=LONGEST_ERROR.min(error.len())).rev().find(|at| error.is_char_boundary(*at));
            error.truncate(fits.unwrap_or(0));
            error
        }),
        duration_ms: given.duration_ms,
    })
}

/// One of the few words that offramp itself uses: it is kept in clear, and shown as it is.
fn word(name: &str, word: String) -> Result<String, String> {
    let plain = word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if plain && (1..=LONGEST_WORD).contains(&word.len()) {
        Ok(word)
    } else {
        Err(format!("{name} is no word such as \"rejected\""))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::view;
    use super::*;

    fn whole() -> View {
        let mut view = view();
        view.episode.occurred_at = Some(1_767_225_599_000);
        view.episode.sha256 = Digests { request: Some([0xa1; 32]), response: None };
        view.episode.messages[0].name = Some("Ann".into());
        view.episode.original = Some(episode::Original {
            target: "/run?x=1".into(),
            headers: vec![("x-raw".into(), ByteBuf::from(vec![0xff, 0]))],
            body: vec![0, 159, 146, 150],
        });
        view
    }

    fn find(name: &str, _: &episode::Episode) -> Option<(SinkId, Lane)> {
        let at = ["graphiti", "log"].iter().position(|known| *known == name)?;
        Some((SinkId(u16::try_from(at).unwrap()), Lane::of("s1")))
    }

    #[test]
    fn inv8_a_line_has_everything_that_the_record_has() {
        let mut view = whole();
        view.episode.occurred_at = Some(-14_182_940_000);
        view.sinks[0].time = Time::Sent(-14_182_939_999);
        let text = Line::from(view.clone()).to_json();
        assert!(!text.contains('\n') && text.contains("\"1969-07-20T20:17:40.001Z\""));
        let (import, unknown) = Line::read(text.as_bytes()).unwrap().into_import(&find, 0).unwrap();
        assert_eq!(import.episode, view.episode);
        assert_eq!(unknown, Vec::<String>::new());
        assert_eq!(import.sinks.into_iter().map(|(.., standing)| standing).collect::<Vec<_>>(), view.sinks);
    }

    fn refused(change: impl FnOnce(&mut Value)) -> String {
        let mut line = serde_json::to_value(Line::from(whole())).unwrap();
        change(&mut line);
        match Line::read(line.to_string().as_bytes()).and_then(|line| line.into_import(&find, 0)) {
            Ok(taken) => panic!("{taken:?}"),
            Err(why) => why,
        }
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        assert!(refused(|line| line["captured_at"] = "yesterday".into()).contains("captured_at is \"yesterday\""));
        let early = refused(|line| line["captured_at"] = "1969-07-20T20:17:40Z".into());
        assert!(early.contains("only occurred_at and event_time may be before 1970"), "{early}");
        assert!(refused(|line| line["session"] = "".into()).contains("session is empty"));
        assert!(refused(|line| line["sesion"] = "s".into()).contains("unknown field `sesion`"));
        assert!(refused(|line| line["sha256"]["request"] = "zz".repeat(32).into()).contains("sha256.request"));
        assert!(refused(|line| line["sha256"]["request"] = "é".repeat(32).into()).contains("sha256.request"));
        assert!(refused(|line| line["original"]["body"] = "%".into()).contains("original.body"));
        assert!(refused(|line| line["sinks"]["log"]["reason"] = "what they said".into()).contains("sinks.log: reason"));
        assert!(refused(|line| line["sinks"] = serde_json::json!({})).contains("none of its sinks"));
        let purged = |line: &mut Value| {
            line["sinks"]["log"]["state"] = "purged".into();
            line["sinks"]["graphiti"]["state"] = "expired".into();
        };
        assert!(refused(purged).contains("nothing would keep it"));
        assert!(Line::read(br#"{"unreadable":17,"error":"x"}"#).unwrap_err().contains("could not be read"));
        assert!(Line::read(br#"{"id":"#).unwrap_err().contains("it is no episode: EOF"));
    }

    #[test]
    fn inv4_an_attempt_that_nothing_is_known_of_is_in_doubt() {
        let mut line = serde_json::to_value(Line::from(whole())).unwrap();
        line["sinks"]["nobody"] = line["sinks"]["log"].clone();
        let graphiti = line["sinks"]["graphiti"].as_object_mut().unwrap();
        for key in ["sent", "since", "event_time"] {
            graphiti.remove(key);
        }
        graphiti["state"] = "in_flight".into();
        let (import, unknown) = Line::read(line.to_string().as_bytes()).unwrap().into_import(&find, 77).unwrap();
        let standing = &import.sinks[0].2;
        assert_eq!((standing.state, standing.sent, standing.attempts), (State::Pending, Sent::Began(77), 1));
        assert_eq!((standing.since, standing.time), (1_767_225_600_000, Time::Event(1_767_225_599_000)));
        assert_eq!(unknown, ["nobody"]);
    }

    #[test]
    fn inv9_a_history_keeps_its_first_line_and_the_newest() {
        let mut view = whole();
        let line = view.sinks[0].history[0].clone();
        view.sinks[0].history =
            (1..=40).map(|attempt| queue::Attempt { attempt, error: Some("é".repeat(4_000)), ..line.clone() }).collect();
        let text = Line::from(view).to_json();
        let (import, _) = Line::read(text.as_bytes()).unwrap().into_import(&find, 0).unwrap();
        let history = &import.sinks[0].2.history;
        assert_eq!(history.iter().map(|a| a.attempt).collect::<Vec<_>>(), [vec![1], (10..=40).collect()].concat());
        assert_eq!(history[0].error.as_ref().unwrap().len(), LONGEST_ERROR);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Line::read(&bytes);
        }

        #[test]
        fn any_text_survives(text: String, name: Option<String>) {
            let mut view = whole();
            view.episode.messages = vec![Message { role: text.clone(), name, content: text.clone() }];
            view.episode.user = Some(text);
            let (import, _) = Line::read(Line::from(view.clone()).to_json().as_bytes()).unwrap().into_import(&find, 0).unwrap();
            prop_assert_eq!(import.episode, view.episode);
        }
    }
}
