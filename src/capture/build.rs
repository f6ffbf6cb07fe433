//! From an exchange that ended to the episode that it was.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::extract::{Document, Judgement, Response, Seen, Want};
use super::original::original;
use super::request::request;
use super::routes::Route;
use super::{Head, Kept, Record, time};
use crate::clock;
use crate::episode::{Digests, End, Episode, Message};
use crate::queue::{Key, Note, Unique};

/// How long an exchange can be continued by another (`extract.chain`), in milliseconds: `OpenAI` keeps a response for 30 days.
const CHAIN_KEPT: u64 = 30 * 24 * 60 * 60 * 1000;

/// How long a part of an episode waits for the other (`join`), in milliseconds.
const PART_KEPT: u64 = 24 * 60 * 60 * 1000;

/// What an exchange was.
pub(super) enum Built {
    /// An episode.
    Episode(Box<Episode>, Extras),
    /// A part of one: what the exchange that completes it needs.
    Part(Note),
    /// Nothing to record.
    Nothing,
}

/// What goes into the queue with an episode.
#[derive(Default)]
pub(super) struct Extras {
    pub unique: Option<Unique>,
    pub note: Option<Note>,
}

/// Who and what, before it is an episode; also what is remembered of a part.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Parts {
    captured_at: u64,
    session: Option<String>,
    group: Option<String>,
    user: Option<String>,
    agent: Option<String>,
    time: Option<i64>,
    input: Option<String>,
    output: Option<String>,
    metadata: Map<String, Value>,
}

/// Where an exchange was seen.
pub(super) struct Context<'a> {
    pub head: &'a Head,
    pub route: &'a Route,
    pub proxy: &'a str,
    pub record: &'a dyn Record,
}

/// Makes the episode, if there is one in this exchange. `request` is `None` where the request's body never came to an end.
pub(super) fn build(context: &Context<'_>, end: End, request: &Document<'_>, sent: Option<&Kept>, response: &Kept) -> Built {
    let Context { head, route, proxy, record } = *context;
    let config = &route.config;
    let answer = match (&response.stream, &route.plan) {
        (Some(assembled), Some(plan)) => Response::Stream { assembled, plan, whole: response.ended },
        _ => Response::Document(Document::new(&head.response_headers, Some(response), route.max_capture(), &route.redactor)),
    };
    let seen = head.seen(route, request, Some(&answer));
    let mut judged = true;
    for source in &config.success_if {
        match seen.judge(source) {
            Judgement::Holds => {}
            Judgement::Fails => return Built::Nothing,
            Judgement::Unseen => judged = false,
        }
    }
    let mut parts = Parts::of(&seen, route, head.arrived_ms);
    let mut extras = Extras::default();
    let now = record.now();
    // One that broke off is no reason to leave out the one that is whole.
    if let (Some(dedupe), End::Complete) = (&config.dedupe, end)
        && let Some(texts) = seen.texts(&dedupe.key)
    {
        let key = Key::of(&route.dedupe_scope(proxy), texts.iter().map(String::as_str));
        extras.unique = Some(Unique { key, until: now.saturating_add(clock::as_ms(dedupe.window)) });
    }
    if let Some(name) = seen.text(&config.join, Want::Key) {
        // Other routes of this proxy see the other part.
        let key = |what: &str| Key::of(&format!("{what}/{proxy}"), [name.as_str()]);
        if parts.output.is_none() {
            if parts.input.is_none() {
                return Built::Nothing;
            }
            let Ok(value) = serde_json::to_vec(&parts) else { return Built::Nothing };
            return Built::Part(Note { key: key("part"), value, until: now.saturating_add(PART_KEPT) });
        }
        if let Some(first) = record.note(key("part")).and_then(|note| serde_json::from_slice(&note).ok()) {
            parts.complete(first);
        }
        extras.unique = Some(Unique { key: key("joined"), until: now.saturating_add(PART_KEPT) });
    }
    if parts.input.is_none() && (parts.output.is_none() || !judged) {
        return Built::Nothing;
    }
    if parts.session.is_none()
        && let Some(chain) = &config.extract.chain
    {
        let key = |id: &str| Key::of(&format!("chain/{proxy}"), [id]);
        let id = seen.text(&chain.id, Want::Key);
        let redacted = |mut name: String| {
            route.redactor.key(&mut name);
            name
        };
        parts.session = match seen.text(&chain.previous, Want::Key) {
            Some(previous) => {
                let first = record.note(key(&previous)).and_then(|note| String::from_utf8(note).ok());
                let session = first.unwrap_or_else(|| redacted(previous));
                let until = now.saturating_add(CHAIN_KEPT);
                extras.note = id.map(|id| Note { key: key(&id), value: session.clone().into_bytes(), until });
                Some(session)
            }
            None => id.map(redacted),
        };
    }
    let whole = sent.is_some_and(Kept::is_whole) && request.is_whole() && answer.is_whole();
    let failed = response.stream.as_ref().is_some_and(|assembled| assembled.failed);
    let end = match end {
        End::Complete if failed => End::Error,
        End::Complete if !whole => End::Truncated,
        end => end,
    };
    let digests = Digests { request: sent.map(|kept| kept.sha256), response: Some(response.sha256) };
    let mut episode = parts.into_episode(head, route, proxy, end, digests);
    if !route.replays.is_empty() {
        episode.original = original(&route.config.keep_headers, &route.redactor, &head.uri, &head.request_headers, sent);
    }
    Built::Episode(Box::new(episode), extras)
}

impl Parts {
    fn of(seen: &Seen<'_>, route: &Route, captured_at: u64) -> Self {
        let extract = &route.config.extract;
        let metadata = extract.metadata.iter();
        Self {
            captured_at,
            session: seen.text(&extract.session, Want::Key),
            group: seen.text(&extract.group, Want::Key),
            user: seen.text(&extract.user, Want::Key),
            agent: seen.text(&extract.agent, Want::Key),
            time: seen.text(&extract.time, Want::Key).and_then(|text| time::parse(&text.into()).ok()),
            input: seen.text(&extract.input, Want::Input),
            output: seen.text(&extract.output, Want::Output),
            metadata: metadata.filter_map(|(key, sources)| Some((key.clone(), seen.value(sources)?))).collect(),
        }
        .redacted(route)
    }

    /// Before anything of it is written. The documents' own rules have been applied already.
    fn redacted(mut self, route: &Route) -> Self {
        let redactor = &route.redactor;
        if !redactor.is_empty() {
            for key in [&mut self.session, &mut self.group, &mut self.user, &mut self.agent].into_iter().flatten() {
                redactor.key(key);
            }
            for text in [&mut self.input, &mut self.output].into_iter().flatten() {
                redactor.text(text);
            }
            for value in self.metadata.values_mut() {
                redactor.document(value);
            }
        }
        self
    }

    /// Takes from the earlier part what this one doesn't say. It happened when that one came.
    fn complete(&mut self, first: Self) {
        self.captured_at = first.captured_at;
        for (own, first) in [
            (&mut self.session, first.session),
            (&mut self.group, first.group),
            (&mut self.user, first.user),
            (&mut self.agent, first.agent),
            (&mut self.input, first.input),
        ] {
            if own.is_none() {
                *own = first;
            }
        }
        self.time = self.time.or(first.time);
        for (key, value) in first.metadata {
            self.metadata.entry(key).or_insert(value);
        }
    }

    fn into_episode(self, head: &Head, route: &Route, proxy: &str, end: End, sha256: Digests) -> Episode {
        let messages = self.input.map(|text| Message::new("user", text)).into_iter();
        Episode {
            id: head.id,
            session: self.session.unwrap_or_else(|| head.id.to_string()),
            group: self.group,
            user: self.user,
            agent: self.agent,
            proxy: proxy.to_owned(),
            route: route.config.name.clone(),
            captured_at: self.captured_at,
            completed_at: clock::now_ms(),
            end,
            messages: messages.chain(self.output.map(|text| Message::new("assistant", text))).collect(),
            metadata: Value::Object(self.metadata).to_string(),
            request: request(&head.method, &head.uri, &head.request_headers, head.status, &route.redactor),
            occurred_at: self.time,
            sha256,
            original: None,
        }
    }
}
