//! Sinks of `type = "http"`: any service that speaks HTTP, by templates over the episode.
//!
//! What a service takes is data ([`config::request`](crate::config::request), and the presets in `src/config/presets/sinks/`); what its
//! answers mean is said here once:
//! - one of which `delivered_if` holds: the episode is there already.
//! - one of which `repair.if` holds: the service has it, and makes nothing of it. It is asked to try again, and the episode followed.
//! - a status of `success`: it has it. Where `confirm` reads back, that is a promise ([`Receipt::Accepted`]), and delivered is what the
//!   confirm request shows. Else it is a delivery.
//! - anything else is what its status says: retried, a pause, or a dead letter, as for every sink.
//!
//! A template that an episode has no value for is the episode's fault ([`Cause::Unfit`]): it is a dead letter, and its reason names the
//! template.
//!
//! # The answer that accepted an episode
//! Some services give a name to what they took, and must be asked by it. That answer is kept in memory while the episode is followed; after
//! a restart, or an ambiguous end, it isn't known, and `answer` is empty. A confirm request that can't be made without it says
//! [`Presence::Unknown`], and the episode is sent again: only for a service that takes an episode once is that no second copy.
//!
//! # The presets: how often is an episode there, and how is that known?
//! - **lightrag**: once. Each `file_source` is taken once (409 "already contains"), and `offramp-ID` is the episode's. Proved:
//!   `/documents/track_status/TRACK` says `processed`; after a restart the newest 200 documents are looked through instead, or the 409 says
//!   it. What it failed on, or had in hand when it was killed, rests there until somebody asks to reprocess it: that is the repair.
//! - **mem0**: at least once. No idempotency; what is in doubt is looked for by its id in the metadata of the run's memories.
//! - **zep**: once, for as long as Zep remembers an `Idempotency-Key`; after that the look into the thread's newest 50 messages stands guard.
//! - **cognee**: once. A dataset takes each text once; it can't be asked, so what is in doubt is sent again.
//! - **letta**: at least once. No idempotency; what is in doubt is looked for by its id among the tags of the newest 50 passages.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use minijinja::Value;
use minijinja::value::{Serde, merge_maps};
use reqwest::Url;
use serde_json::json;
use uuid::Uuid;

use super::graphiti::{content, group_id, time};
use super::http::{Answer, Client};
use super::{Cause, Delivery, Follow, Presence, Receipt, Sink, SinkError};
use crate::clock;
use crate::config::request::{Proof, Request, Service};
use crate::config::template::Template;

/// Answers that are kept, at most; a forgotten one is one that isn't known any more.
const KEPT: usize = 1_000;

/// Bytes of an answer that is kept, at most.
const LARGEST: usize = 16 << 10;

/// The sink.
pub struct TemplatedSink {
    client: Client,
    service: Service,
    /// What accepted those that are being followed, the latest last.
    answers: Mutex<VecDeque<(Uuid, serde_json::Value)>>,
}

impl TemplatedSink {
    pub(super) fn new(client: Client, service: &Service) -> Self {
        Self { client, service: service.clone(), answers: Mutex::default() }
    }

    async fn send(&self, delivery: &Delivery) -> Result<Receipt, SinkError> {
        let over = episode(delivery);
        let answer = self.ask(&self.service.request, &over, true).await?;
        let read = read(&over, &answer);
        if let Some(condition) = &self.service.delivered_if
            && condition.holds(&read).map_err(|why| unfit("delivered_if", &why))?
        {
            return Ok(Receipt::Delivered);
        }
        let proof = self.service.confirm.as_ref().filter(|proof| proof.read_back);
        if let Some(repair) = &self.service.repair
            && repair.when.holds(&read).map_err(|why| unfit("repair.if", &why))?
        {
            let asked = self.ask(&repair.request, &over, true).await?;
            if !asked.status.is_success() {
                return Err(self.client.refused(&asked));
            }
            // Where nothing shows what became of that, the next attempt does.
            return if proof.is_some() { Ok(Receipt::Accepted) } else { Err(self.client.refused(&answer)) };
        }
        if !self.service.success.contains(answer.status.as_u16()) {
            return Err(self.client.refused(&answer));
        }
        let Some(proof) = proof else { return Ok(Receipt::Delivered) };
        if needs_answer(&proof.request) {
            self.remember(delivery.episode.id, &answer);
        }
        Ok(Receipt::Accepted)
    }

    async fn find(&self, delivery: &Delivery) -> Result<Presence, SinkError> {
        let Some(proof) = &self.service.confirm else { return Ok(Presence::Unknown) };
        let id = delivery.episode.id;
        let known = self.answers().iter().find(|(other, _)| *other == id).map(|(_, answer)| answer.clone());
        let is_known = known.is_some();
        let over = with(&episode(delivery), &json!({ "answer": known.unwrap_or_else(|| json!({})) }));
        let answer = match self.ask(&proof.request, &over, false).await {
            Err(error) if error.cause == Cause::Unfit && !is_known && needs_answer(&proof.request) => {
                return Ok(Presence::Unknown);
            }
            asked => asked?,
        };
        if !answer.status.is_success() {
            return Err(self.client.refused(&answer));
        }
        let read = read(&over, &answer);
        if proof.present.holds(&read).map_err(|why| unfit("confirm.present", &why))? {
            self.answers().retain(|(other, _)| *other != id);
            return Ok(Presence::Present);
        }
        let Some(failed) = &proof.failed else { return Ok(Presence::Absent) };
        let why = failed.render(&read).map_err(|why| unfit("confirm.failed", &why))?;
        let why = self.client.without_secrets(why.trim());
        Ok(if why.is_empty() { Presence::Absent } else { Presence::Failed(why) })
    }

    /// Makes a request of its templates, and sends it.
    async fn ask(&self, request: &Request, over: &Value, changes: bool) -> Result<Answer, SinkError> {
        let text = |name: &str, template: &Template| template.render(over).map_err(|why| unfit(name, &why));
        let method = text("method", &request.method)?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| unfit("method", &format!("{method:?} is none")))?;
        let url = self.url(&text("path", &request.path)?)?;
        let mut headers = HeaderMap::new();
        if changes {
            for (name, template) in &self.service.headers {
                headers.insert(name, value(name.as_str(), &text(name.as_str(), template)?)?);
            }
        }
        let body = request.body.as_ref().map(|body| text("body", body)).transpose()?.unwrap_or_default();
        let body = if body.trim().is_empty() { String::new() } else { body };
        if !body.is_empty() {
            let kind = text("content_type", &request.content_type)?;
            if kind.starts_with("application/json")
                && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&body)
            {
                return Err(unfit("body", &format!("what it makes is not JSON: {error}")));
            }
            headers.insert(CONTENT_TYPE, value("content_type", &kind)?);
        }
        self.client.ask(method, url, headers, body.into_bytes(), changes).await
    }

    fn url(&self, path: &str) -> Result<Url, SinkError> {
        // The client resolves these before it sends, and another resource would be asked than the one that was meant.
        let is_dots = |part: &str| matches!(part, "." | "..");
        if !path.starts_with('/') || path.split('?').next().unwrap_or_default().split('/').any(is_dots) {
            return Err(unfit("path", "what it makes begins with no /, or has . or .. in it"));
        }
        Url::parse(&format!("{}{path}", self.service.url)).map_err(|e| unfit("path", &format!("what it makes is no path: {e}")))
    }

    fn remember(&self, id: Uuid, answer: &Answer) {
        let Ok(json) = serde_json::from_slice(&answer.body) else { return };
        let mut answers = self.answers();
        answers.retain(|(other, _)| *other != id);
        if answer.body.len() > LARGEST {
            return;
        }
        if answers.len() == KEPT {
            answers.pop_front();
        }
        answers.push_back((id, json));
    }

    fn answers(&self) -> MutexGuard<'_, VecDeque<(Uuid, serde_json::Value)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner) // plain data, changed in single steps
    }
}

/// What templates are rendered over: the episode as JSON without what it doesn't have, the time that the graph shall have it at, and what
/// was said as one text.
fn episode(delivery: &Delivery) -> Value {
    let episode = &*delivery.episode;
    let mut over = episode.to_json();
    if let Some(over) = over.as_object_mut() {
        over.retain(|_, value| !value.is_null());
        over.insert("at".to_owned(), clock::event(time(delivery)).into());
        over.insert("group_id".to_owned(), group_id(episode.group()).into());
        over.insert("transcript".to_owned(), content(episode).into());
    }
    Value::from(Serde(&over))
}

/// The same, and an answer.
fn read(over: &Value, answer: &Answer) -> Value {
    let text = String::from_utf8_lossy(&answer.body);
    let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| json!({}));
    with(over, &json!({ "status": answer.status.as_u16(), "text": text, "answer": json }))
}

fn with(over: &Value, more: &serde_json::Value) -> Value {
    merge_maps([over.clone(), Value::from(Serde(more))]) // the last one wins
}

fn needs_answer(request: &Request) -> bool {
    [Some(&request.method), Some(&request.path), request.body.as_ref()].into_iter().flatten().any(|t| t.names("answer"))
}

fn value(name: &str, text: &str) -> Result<HeaderValue, SinkError> {
    HeaderValue::from_str(text).map_err(|_| unfit(name, "what it makes has a control character in it"))
}

/// No attempt would end otherwise.
fn unfit(template: &str, why: &str) -> SinkError {
    let message = format!("the template of `{template}` does not fit the episode: {why}");
    SinkError { cause: Cause::Unfit, message, retry_after: None, ambiguous: false }
}

impl Sink for TemplatedSink {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn deliver<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        Box::pin(self.send(delivery))
    }

    fn settle(&self) -> Duration {
        self.service.confirm.as_ref().map_or(Duration::ZERO, |proof| proof.settle)
    }

    fn look_up<'a>(&'a self, delivery: &'a Delivery) -> BoxFuture<'a, Result<Presence, SinkError>> {
        Box::pin(self.find(delivery))
    }

    fn follow(&self) -> Option<Follow> {
        let Proof { read_back, timeout, poll, .. } = self.service.confirm.as_ref()?;
        read_back.then_some(Follow { timeout: *timeout, poll: *poll })
    }
}

#[cfg(test)]
pub(super) mod tests;
