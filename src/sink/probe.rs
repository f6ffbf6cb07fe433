//! `offramp sink test`: one harmless episode, sent to one sink as the drain would send it, and told step by step.
//!
//! The steps are those that an attempt takes: the host's name, a connection, TLS, credentials, the schema (what a statement, the templates or a
//! service's own form make of an episode), the delivery, and its confirmation. The first three are made here, by themselves, because a
//! sink has one word for all of them. For the others the sink itself is used, and its errors say which one it was: there is no second way
//! of speaking to a backend that could be right where the sink is wrong.
//!
//! A sink of type `replay` has no episode to make harmless: whatever it sends is a request that somebody else has made, once more. It is asked
//! for its base URL with `HEAD` instead.

mod advice;
mod episode;
mod reach;
mod remarks;

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

pub use self::episode::Names;
use super::http::Client;
use super::{Cause, Delivery, Presence, Receipt, Sink, SinkError};
use crate::config::units::show_duration;
use crate::config::{self, SinkKind};

/// The session of a probe, its user and its agent, where nobody says otherwise.
pub const NAME: &str = "offramp-probe";

/// Time between two looks, where the sink gives none.
const POLL: Duration = Duration::from_millis(500);

/// What is looked at, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// The host's name.
    Dns,
    /// A connection to one of its addresses.
    Connect,
    /// TLS on it.
    Tls,
    /// Whether offramp is let in.
    Credentials,
    /// Whether the statement, the templates or the form of a message are what the backend takes.
    Schema,
    /// The probe itself.
    Delivery,
    /// Whether it is found again.
    Confirmation,
}

impl What {
    const ALL: [Self; 7] =
        [Self::Dns, Self::Connect, Self::Tls, Self::Credentials, Self::Schema, Self::Delivery, Self::Confirmation];

    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Credentials => "credentials",
            Self::Schema => "schema",
            Self::Delivery => "delivery",
            Self::Confirmation => "confirmation",
        }
    }
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It works.
    Ok,
    /// It doesn't.
    Failed,
    /// It wasn't made, or says nothing: see the words.
    Skipped,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which.
    pub step: What,
    /// How it went.
    pub result: Outcome,
    /// In words.
    pub says: String,
    /// What to do, where something is to be done.
    pub advice: Option<String>,
}

/// All that a test finds out.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The sink's name.
    pub sink: String,
    /// Its `type`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Where it sends to.
    pub target: String,
    /// No step failed.
    pub ok: bool,
    /// The id of the probe, if one was sent: it may be there even where a later step failed.
    pub episode: Option<Uuid>,
    /// The session that it was sent in.
    pub session: String,
    /// Every step, in order.
    pub steps: Vec<Step>,
    /// Where the probe is found, if one was sent.
    pub found: Option<String>,
    /// How it is removed.
    pub remove: Option<String>,
}

impl Report {
    /// The step that failed.
    pub fn failed(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.result == Outcome::Failed)
    }
}

/// Tests a sink, in so much time at most.
pub async fn test(config: &config::Sink, names: &Names, limit: Duration) -> Report {
    let mut test = Test { config, deadline: Instant::now() + limit, limit, steps: Vec::new() };
    let (delivery, sent) = test.run(names).await;
    test.fill_up();
    let (found, remove) = if sent { advice::whereabouts(config, &delivery) } else { (None, None) };
    Report {
        sink: config.name.clone(),
        kind: config.kind.name(),
        target: config.kind.to_string(),
        ok: test.steps.iter().all(|step| step.result != Outcome::Failed),
        episode: sent.then_some(delivery.episode.id),
        session: delivery.episode.session.clone(),
        steps: test.steps,
        found,
        remove,
    }
}

/// A test under way.
struct Test<'a> {
    config: &'a config::Sink,
    limit: Duration,
    deadline: Instant,
    steps: Vec<Step>,
}

impl Test<'_> {
    /// The probe, and whether the backend may have it.
    async fn run(&mut self, names: &Names) -> (Delivery, bool) {
        let delivery = episode::probe(&self.config.name, names);
        if !self.reach().await {
            return (delivery, false);
        }
        if let SinkKind::Replay { url } = &self.config.kind {
            self.knock(url).await;
            return (delivery, false);
        }
        let sink = match super::open(self.config) {
            Ok(sink) => sink,
            Err(error) => {
                self.failed(What::Tls, error.message, "offramp cannot set the sink up: `offramp check` tells more".to_owned());
                return (delivery, false);
            }
        };
        let (sent, remarks) = remarks::heard(timeout_at(self.deadline, sink.deliver(&delivery))).await;
        match sent {
            Ok(Ok(receipt)) => {
                self.taken(receipt, &remarks);
                self.confirm(&*sink, &delivery, receipt).await;
                (delivery, true)
            }
            Ok(Err(error)) => {
                self.refused(&error);
                (delivery, error.ambiguous)
            }
            Err(_) => {
                let says = format!("no end of the delivery within {}", show_duration(self.limit));
                self.failed(What::Delivery, says, advice::LATE.to_owned());
                (delivery, true)
            }
        }
    }

    /// Name, connection and TLS.
    async fn reach(&mut self) -> bool {
        let within = self.deadline.min(Instant::now() + self.config.connect_timeout);
        let Some(place) = reach::place(&self.config.kind) else {
            for step in [What::Dns, What::Connect, What::Tls] {
                self.skipped(step, "a file needs none");
            }
            return true;
        };
        let steps = reach::reach(&place, within, self.config.connect_timeout).await;
        let reached = steps.iter().all(|step| step.result != Outcome::Failed);
        self.steps.extend(steps);
        reached
    }

    /// What an attempt that was taken says of the steps before it.
    fn taken(&mut self, receipt: Receipt, remarks: &[String]) {
        self.ok(What::Credentials, advice::let_in(self.config));
        let understood = advice::understood(&self.config.kind);
        let advice = (!remarks.is_empty()).then(|| advice::REMARKED.to_owned());
        let says = remarks.iter().fold(understood.to_owned(), |says, remark| says + "; but " + remark);
        self.steps.push(Step { step: What::Schema, result: Outcome::Ok, says, advice });
        self.ok(What::Delivery, advice::delivered(&self.config.kind, receipt));
    }

    /// What an attempt that was not taken says.
    fn refused(&mut self, error: &SinkError) {
        let (step, advice) = advice::of(self.config, error);
        if step > What::Credentials && matches!(error.cause, Cause::Status(_)) {
            self.ok(What::Credentials, "nothing was said against them");
        }
        self.failed(step, error.message.clone(), advice);
    }

    async fn confirm(&mut self, sink: &dyn Sink, delivery: &Delivery, receipt: Receipt) {
        let promised = receipt == Receipt::Accepted;
        let poll = sink.follow().map_or(POLL, |follow| follow.poll);
        let mut last = None;
        while let Ok(looked) = timeout_at(self.deadline, sink.look_up(delivery)).await {
            match looked {
                Ok(Presence::Present) => return self.ok(What::Confirmation, "it was looked for, and is there"),
                Ok(Presence::Unknown) => {
                    return self.skipped(What::Confirmation, advice::unknown(&self.config.kind));
                }
                Ok(Presence::Failed(why)) => {
                    let says = format!("it was accepted, and nothing became of it: {why}");
                    return self.failed(What::Confirmation, says, advice::UNMADE.to_owned());
                }
                // Asked for only where an attempt ended in doubt: no reason to wait until it shows.
                Ok(Presence::Absent) if !promised && matches!(self.config.kind, SinkKind::Http(_)) => {
                    return self.skipped(What::Confirmation, advice::NOT_SHOWN);
                }
                Ok(Presence::Absent) => last = None,
                Err(error) if matches!(error.cause, Cause::Status(400..=499) | Cause::Unfit) => {
                    let says = format!("it was sent, and cannot be looked for: {error}");
                    return self.failed(What::Confirmation, says, advice::unaskable(&self.config.kind).to_owned());
                }
                Err(error) => last = Some(error.message),
            }
            if timeout_at(self.deadline, sleep(poll)).await.is_err() {
                break;
            }
        }
        let why = last.map_or_else(String::new, |last| format!(": {last}"));
        let says = format!("it was sent, and not seen within {}{why}", show_duration(self.limit));
        self.failed(What::Confirmation, says, advice::unseen(&self.config.kind).to_owned());
    }

    /// Instead of a request that was meant for somebody else.
    async fn knock(&mut self, url: &str) {
        match self.head(url).await {
            Ok(status @ (401 | 403)) => {
                self.failed(
                    What::Credentials,
                    format!("HEAD {url} was answered with {status}"),
                    advice::credentials(self.config),
                );
            }
            Ok(status) => self.skipped(
                What::Credentials,
                &format!("HEAD {url} was answered with {status}: HTTP is spoken there, and who is let in shows with a request"),
            ),
            Err(error) => {
                let (_, advice) = advice::of(self.config, &error);
                self.failed(What::Credentials, error.message, advice);
            }
        }
        self.skipped(What::Schema, "what it sends is the request as it came");
        self.skipped(
            What::Delivery,
            "nothing was sent: it would repeat a request that somebody has made, with all that this changes",
        );
        self.skipped(What::Confirmation, advice::unknown(&self.config.kind));
    }

    async fn head(&self, url: &str) -> Result<u16, SinkError> {
        let wrong = |message: String| SinkError { cause: Cause::Connect, message, retry_after: None, ambiguous: false };
        let client = Client::new(self.config).map_err(|error| wrong(error.to_string()))?;
        let to = reqwest::Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        let asked = client.ask(http::Method::HEAD, to, http::HeaderMap::new(), Vec::new(), false);
        let answered = timeout_at(self.deadline, asked).await;
        answered
            .map_err(|_| wrong(format!("no answer within {}", show_duration(self.limit))))?
            .map(|answer| answer.status.as_u16())
    }

    fn ok(&mut self, step: What, says: impl Into<String>) {
        self.steps.push(Step { step, result: Outcome::Ok, says: says.into(), advice: None });
    }

    fn skipped(&mut self, step: What, says: &str) {
        self.steps.push(Step { step, result: Outcome::Skipped, says: says.to_owned(), advice: None });
    }

    fn failed(&mut self, step: What, says: String, advice: String) {
        self.steps.push(Step { step, result: Outcome::Failed, says, advice: Some(advice) });
    }

    /// Steps of which nothing is known, each in its place.
    fn fill_up(&mut self) {
        for step in What::ALL {
            if self.steps.iter().all(|known| known.step != step) {
                self.skipped(step, "not known, because of what failed");
            }
        }
        self.steps.sort_by_key(|step| step.step);
    }
}

#[cfg(test)]
mod tests;
