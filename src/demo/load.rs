//! A closed-loop load generator: so many clients, each with one connection and one request in flight, taking turns over its own
//! sessions. No session ever has two requests in flight, so "the order of a session" is well defined: it is the running number that
//! each request carries, see [`Mark`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::{Client, Reply};

/// What to drive at an agent.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where the agent (or offramp before it) listens.
    pub target: SocketAddr,
    /// Requests in all.
    pub requests: u64,
    /// Clients; no more than `sessions` of them are of use.
    pub concurrency: usize,
    /// Sessions that the requests are spread over, in turn.
    pub sessions: usize,
    /// What the sessions' names begin with: no two loads of one demo may share it.
    pub prefix: &'static str,
    /// The clients begin one after the other over this time: users don't arrive in lock step.
    pub ramp: Duration,
    /// No request but each client's first begins later than this; those that have begun are waited for, and count.
    pub begin_within: Option<Duration>,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

/// How far a running load is; for whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    finished: AtomicU64,
    failed: AtomicU64,
}

impl Progress {
    /// Requests that have ended, well or not.
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }

    /// Of these, the ones without an answer to use.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// The running number of a request within its session, as it stands in the text that the graph will learn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The session's name.
    pub session: String,
    /// From 1.
    pub number: u64,
}

impl Mark {
    /// The request's text.
    pub fn text(&self) -> String {
        format!("This is message {} of session {}: what do you remember of the ones before?", self.number, self.session)
    }

    /// The first mark in a text, however it is wrapped.
    pub fn find(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once("This is message ")?;
        let (number, rest) = rest.split_once(" of session ")?;
        let (session, _) = rest.split_once(':')?;
        Some(Self { session: session.to_owned(), number: number.parse().ok()? })
    }
}

/// One session as its client saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation {
    /// Its name.
    pub name: String,
    /// The id that the agent gave it; none where no request was answered.
    pub id: Option<String>,
    /// The running numbers that were answered, ascending.
    pub answered: Vec<u64>,
    /// Those that failed: the agent may have taken them, or not.
    pub failed: Vec<u64>,
}

/// What came of a load.
#[derive(Debug)]
pub struct Outcome {
    /// Requests that ended.
    pub finished: u64,
    /// Those that failed, by what the client saw.
    pub errors: BTreeMap<String, u64>,
    /// From the first request's beginning to the last one's end.
    pub elapsed: Duration,
    /// Microseconds, of all that ended: who got an error has waited for it.
    pub latency: Histogram<u64>,
    /// The sessions that were used, in their order.
    pub conversations: Vec<Conversation>,
}

impl Outcome {
    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Requests that were answered.
    pub fn answered(&self) -> u64 {
        self.finished - self.failed()
    }
}

impl Load {
    /// Clients that really run.
    pub fn clients(&self) -> usize {
        self.concurrency.min(self.sessions).max(1)
    }

    /// Runs it. Every client opens its connection with one request to `/health` first, which doesn't count. Dropping the future ends
    /// all clients.
    pub async fn run(self, progress: &Arc<Progress>) -> Outcome {
        let clients = self.clients();
        let ramp = self.ramp;
        let load = Arc::new(self);
        let mut warming: JoinSet<Client> = JoinSet::new();
        for _ in 0..clients {
            let mut client = Client::new(load.target, load.timeout);
            warming.spawn(async move {
                client.warm_up().await;
                client
            });
        }
        let warm = warming.join_all().await;

        let begin = Instant::now();
        let mut running = JoinSet::new();
        for (place, client) in warm.into_iter().enumerate() {
            let (load, progress) = (Arc::clone(&load), Arc::clone(progress));
            let delay = ramp.mul_f64(as_f64(place) / as_f64(clients));
            running.spawn(async move {
                tokio::time::sleep_until(begin + delay).await;
                User { load, progress, client, place, clients, begin }.run().await
            });
        }
        let shares = running.join_all().await;
        merge(shares, begin.elapsed())
    }
}

/// One client and the sessions that are its own: those whose number leaves `place` when divided by `clients`.
struct User {
    load: Arc<Load>,
    progress: Arc<Progress>,
    client: Client,
    place: usize,
    clients: usize,
    begin: Instant,
}

/// One client's part of the outcome.
struct Share {
    errors: BTreeMap<String, u64>,
    latency: Histogram<u64>,
    conversations: Vec<(usize, Conversation)>,
}

impl User {
    async fn run(mut self) -> Share {
        let mut share = Share { errors: BTreeMap::new(), latency: histogram(), conversations: Vec::new() };
        for session in (self.place..self.load.sessions).step_by(self.clients) {
            let name = format!("{}-{}", self.load.prefix, session + 1);
            share.conversations.push((session, Conversation { name, ..Conversation::default() }));
        }
        let sessions = self.load.sessions as u64;
        for number in 1..=self.load.requests.div_ceil(sessions) {
            for (session, conversation) in &mut share.conversations {
                let index = (number - 1) * sessions + *session as u64;
                let late = !share.latency.is_empty() && self.load.begin_within.is_some_and(|limit| self.begin.elapsed() >= limit);
                if late || index >= self.load.requests {
                    continue;
                }
                let begin = Instant::now();
                let mark = Mark { session: conversation.name.clone(), number };
                let reply = self.client.ask(&mark).await;
                let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
                share.latency.saturating_record(micros.max(1));
                match reply {
                    Ok(Reply { session_id }) => {
                        conversation.id = Some(session_id);
                        conversation.answered.push(number);
                    }
                    Err(error) => {
                        *share.errors.entry(error.to_string()).or_default() += 1;
                        conversation.failed.push(number);
                        self.progress.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                self.progress.finished.fetch_add(1, Ordering::Relaxed);
            }
        }
        share
    }
}

fn merge(shares: Vec<Share>, elapsed: Duration) -> Outcome {
    let mut latency = histogram();
    let mut errors = BTreeMap::new();
    let mut conversations = BTreeMap::new();
    for share in shares {
        for (value, count) in share.latency.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())) {
            latency.saturating_record_n(value, count);
        }
        for (error, count) in share.errors {
            *errors.entry(error).or_default() += count;
        }
        conversations.extend(share.conversations);
    }
    let conversations =
        conversations.into_values().filter(|c: &Conversation| !c.answered.is_empty() || !c.failed.is_empty()).collect();
    Outcome { finished: latency.len(), errors, elapsed, latency, conversations }
}

/// 1 µs to ten minutes, three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("constant bounds that the crate allows")
}

/// Numbers of clients are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn as_f64(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests;
