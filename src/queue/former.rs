//! What earlier offramps wrote, struct by struct as it was, and what it means today. The order of the fields is the format: nothing in here
//! is ever changed.

use serde::Deserialize;
use uuid::Uuid;

use super::codec::{self, CodecError};
use super::rows::{Deaths, Ended, Sent, SinkRow, Time, Waiting};
use super::{Lane, Ledger, Seq, State};
use crate::episode::{Digests, End, Episode, Message, Request};

/// [`SinkRow`], version 1.
#[derive(Deserialize)]
pub struct SinkRow1 {
    ledger: Ledger1,
    delivered_kept: u64,
    paused: Option<String>,
    oldest: Seq,
    longest_confirm: u64,
}

#[derive(Deserialize)]
struct Ledger1 {
    captured: u64,
    delivered: u64,
    dead: u64,
    purged: u64,
    expired: u64,
    pending: u64,
}

impl TryFrom<SinkRow1> for SinkRow {
    type Error = CodecError;

    fn try_from(old: SinkRow1) -> Result<Self, CodecError> {
        let SinkRow1 { ledger, delivered_kept, paused, oldest, longest_confirm } = old;
        let Ledger1 { captured, delivered, dead, purged, expired, pending } = ledger;
        let ledger = Ledger { captured, delivered, dead, purged, expired, pending };
        let paused = paused.map(|reason| codec::encode(&reason)).transpose()?.map(serde_bytes::ByteBuf::from);
        Ok(Self { ledger, delivered_kept, paused, oldest, longest_confirm })
    }
}

/// [`Waiting`], version 1.
#[derive(Deserialize)]
pub struct Waiting1 {
    attempts: u32,
    not_before: u64,
    at: u64,
    sent: Sent,
    entries: u32,
    sinks: u16,
}

impl From<Waiting1> for Waiting {
    fn from(old: Waiting1) -> Self {
        let Waiting1 { attempts, not_before, at, sent, entries, sinks } = old;
        // Event times were given at append, in the order of the lane; one that was never sent can still be moved.
        let touched = attempts > 0 || entries > 0 || sent != Sent::No;
        let time = if touched { Time::Sent(at.cast_signed()) } else { Time::Event(at.cast_signed()) };
        Self::from(Waiting2 { attempts, not_before, since: at, time, sent, entries, sinks })
    }
}

/// [`Waiting`], version 2.
#[derive(Deserialize)]
pub struct Waiting2 {
    attempts: u32,
    not_before: u64,
    since: u64,
    time: Time,
    sent: Sent,
    entries: u32,
    sinks: u16,
}

impl From<Waiting2> for Waiting {
    fn from(old: Waiting2) -> Self {
        let Waiting2 { attempts, not_before, since, time, sent, entries, sinks } = old;
        Self { attempts, not_before, since, time, sent, entries, sinks, priority: 0, deaths: Deaths::default() }
    }
}

/// [`Ended`], version 1.
#[derive(Deserialize)]
pub struct Ended1 {
    state: State,
    at: u64,
    expires_at: u64,
    reason: Option<String>,
    lane: Lane,
    was: Waiting1,
}

impl From<Ended1> for Ended {
    fn from(old: Ended1) -> Self {
        let Ended1 { state, at, expires_at, reason, lane, was } = old;
        let was = Waiting { deaths: died(reason.as_deref(), at), ..was.into() };
        Self { state, at, expires_at, reason, lane, was }
    }
}

/// [`Ended`], version 2.
#[derive(Deserialize)]
pub struct Ended2 {
    state: State,
    at: u64,
    expires_at: u64,
    reason: Option<String>,
    lane: Lane,
    was: Waiting2,
}

impl From<Ended2> for Ended {
    fn from(old: Ended2) -> Self {
        let Ended2 { state, at, expires_at, reason, lane, was } = old;
        let was = Waiting { deaths: died(reason.as_deref(), at), ..was.into() };
        Self { state, at, expires_at, reason, lane, was }
    }
}

/// Deaths were not counted then: what has a reason died at least once, and then.
fn died(reason: Option<&str>, at: u64) -> Deaths {
    reason.map_or(Deaths::default(), |_| Deaths::default().and(at))
}

/// [`Episode`], version 1.
#[derive(Deserialize)]
pub struct Episode1 {
    id: Uuid,
    session: String,
    group: Option<String>,
    user: Option<String>,
    agent: Option<String>,
    proxy: String,
    route: String,
    captured_at: u64,
    completed_at: u64,
    end: End1,
    messages: Vec<Message1>,
    metadata: String,
    request: Request1,
}

#[derive(Deserialize)]
enum End1 {
    Complete,
    Cancelled,
    Error,
    Truncated,
}

#[derive(Deserialize)]
struct Message1 {
    role: String,
    content: String,
}

#[derive(Deserialize)]
struct Request1 {
    method: String,
    path: String,
    status: u16,
    traceparent: Option<String>,
}

impl From<Episode1> for Episode {
    fn from(old: Episode1) -> Self {
        Self {
            id: old.id,
            session: old.session,
            group: old.group,
            user: old.user,
            agent: old.agent,
            proxy: old.proxy,
            route: old.route,
            captured_at: old.captured_at,
            completed_at: old.completed_at,
            end: match old.end {
                End1::Complete => End::Complete,
                End1::Cancelled => End::Cancelled,
                End1::Error => End::Error,
                End1::Truncated => End::Truncated,
            },
            messages: old.messages.into_iter().map(|m| Message::new(&m.role, m.content)).collect(),
            metadata: old.metadata,
            request: Request {
                method: old.request.method,
                path: old.request.path,
                status: old.request.status,
                traceparent: old.request.traceparent,
            },
            occurred_at: None,
            sha256: Digests::default(),
            original: None,
        }
    }
}
