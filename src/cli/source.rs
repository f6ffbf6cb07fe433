//! Where a queue command gets its answers: from the running offramp, or, where none runs, from the queue itself. Both give the same
//! shapes.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Client, NoAnswer};
use super::failure::Failure;
use crate::admin::api::{
    Count, Episode, Imported, Listing, Page, ProxyStatus, ReplayReport, Replays, Selection, Status, Wanted, known_sink,
    state_name,
};
use crate::admin::export::{Export, NDJSON};
use crate::admin::import::{Intake, Sinks, Stopped};
use crate::clock;
use crate::config::Config;
use crate::drain::{PAUSED_BY_OPERATOR, SinkStatus};
use crate::queue::{AppendError, Course, Queue, QueueError, SinkId, State};
use crate::telemetry::metrics::Metrics;

/// The one interface.
pub(super) enum Source {
    /// An offramp runs and answers.
    Remote(Client),
    /// None runs: the queue is open here, and locked for others until this is dropped.
    Local(Box<Local>),
}

/// A queue that no offramp runs on.
pub(super) struct Local {
    queue: Queue,
    sinks: Vec<SinkStatus>,
    targets: Sinks,
    proxies: Vec<ProxyStatus>,
}

/// What to do with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Redrive,
    Purge,
}

/// What became of a replay that was asked for.
pub(super) enum Begun {
    /// It is under way.
    Now(ReplayReport),
    /// It will be, when an offramp runs.
    Later,
}

impl Source {
    /// Whether an offramp runs.
    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Remote(_))
    }

    /// Asks the admin address; where nobody answers, opens the queue.
    pub(super) async fn open(config: &Config) -> Result<Self, Failure> {
        Self::open_at(config, |client, why| {
            let path = &config.queue.path;
            // Opening would make it: an empty queue that somebody only asked about.
            if path.exists() {
                return Ok(());
            }
            Err(Failure::Unreachable(format!(
                "offramp does not answer at {} ({why}), and there is no queue at {} to read instead; start `offramp run`, or name its \
                 configuration with --config",
                client.address(),
                path.display()
            )))
        })
        .await
    }

    /// As [`open`](Self::open), for what fills a queue.
    pub(super) async fn open_or_create(config: &Config) -> Result<Self, Failure> {
        Self::open_at(config, |_, _| Ok(())).await
    }

    async fn open_at(config: &Config, may: impl FnOnce(&Client, &NoAnswer) -> Result<(), Failure>) -> Result<Self, Failure> {
        let client = Client::new(&config.admin);
        match client.probe().await? {
            Ok(()) => Ok(Self::Remote(client)),
            Err(why) => {
                may(&client, &why)?;
                Local::open(config, &client.address(), &why).map(|local| Self::Local(Box::new(local)))
            }
        }
    }

    /// Everything, or what stands so at one of its sinks, as JSON Lines: `take` gets them in pieces of any size.
    pub(super) async fn export(
        &self,
        state: Option<State>,
        mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Self::Remote(client) => {
                let query = state.map_or_else(String::new, |state| format!("?state={}", state_name(state)));
                found(client.download(&format!("/api/v1/export{query}"), take).await?)
            }
            Self::Local(local) => {
                let mut export = Export::new(local.queue.clone(), state);
                // Reads the disk on this thread: the command has nothing else to do meanwhile.
                while let Some(lines) = export.read().map_err(|e| Failure::Failed(e.to_string()))? {
                    take(&lines)?;
                }
                Ok(())
            }
        }
    }

    /// Takes in the JSON Lines that `next` gives, in pieces of any size, up to an empty one.
    pub(super) async fn import(&self, mut next: impl AsyncFnMut() -> Result<Bytes, Failure>) -> Result<Imported, Failure> {
        match self {
            Self::Remote(client) => found(client.upload("/api/v1/import", NDJSON, next).await?),
            Self::Local(local) => {
                let mut intake = Intake::new(local.queue.clone(), local.targets.clone());
                let stopped = |e: Stopped| Failure::Failed(e.to_string());
                loop {
                    let bytes = next().await?;
                    if bytes.is_empty() {
                        return intake.finish().await.map_err(stopped);
                    }
                    intake.feed(&bytes).await.map_err(stopped)?;
                }
            }
        }
    }

    pub(super) async fn status(&self) -> Result<Status, Failure> {
        match self {
            Self::Remote(client) => found(client.get("/api/v1/status").await?),
            Self::Local(local) => Ok(local.status()),
        }
    }

    pub(super) async fn list(&self, listing: &Listing) -> Result<Page, Failure> {
        match self {
            Self::Remote(client) => found(client.get(&format!("/api/v1/episodes?{}", listing.to_query())).await?),
            // Reads the disk on this thread: the command has nothing else to do meanwhile.
            Self::Local(local) => Ok(local.queue.list(&listing.filter(&local.sink_names())?)?.into()),
        }
    }

    pub(super) async fn episode(&self, id: Uuid) -> Result<Option<Episode>, Failure> {
        match self {
            Self::Remote(client) => client.get(&format!("/api/v1/episodes/{id}")).await,
            Self::Local(local) => Ok(local.queue.episode(id)?.map(Episode::from)),
        }
    }

    pub(super) async fn settle_dead(&self, fate: Fate, selection: Selection) -> Result<u64, Failure> {
        match self {
            Self::Remote(client) => {
                let path = match fate {
                    Fate::Redrive => "/api/v1/dead/redrive",
                    Fate::Purge => "/api/v1/dead/purge",
                };
                found(client.post::<Count>(path, &selection).await?).map(|c| c.count)
            }
            Self::Local(local) => {
                let select = selection.select(&local.sink_names())?;
                let done = match fate {
                    Fate::Redrive => local.queue.redrive(select).await,
                    Fate::Purge => local.queue.purge(select).await,
                };
                done.map_err(unchanged)
            }
        }
    }

    pub(super) async fn begin_replay(&self, wanted: &Wanted) -> Result<Begun, Failure> {
        match self {
            Self::Remote(client) => found(client.post("/api/v1/replay", wanted).await?).map(Begun::Now),
            Self::Local(local) => {
                let id = local.replayed_to(&wanted.sink)?;
                let begun = local.queue.begin_replay(id, wanted.session.clone(), wanted.since()?).await;
                match begun.map_err(unchanged)? {
                    Some(replay) if replay.course == Course::Running => Ok(Begun::Later),
                    Some(replay) => Ok(Begun::Now(ReplayReport::of(&wanted.sink, &replay))),
                    None => Err(Failure::Failed(format!(
                        "a replay is under way at \"{}\"; it goes on when offramp runs",
                        wanted.sink
                    ))),
                }
            }
        }
    }

    /// The replay under way at a sink, or the latest one.
    pub(super) async fn replay(&self, sink: &str) -> Result<Option<ReplayReport>, Failure> {
        let all = match self {
            Self::Remote(client) => found(client.get::<Replays>("/api/v1/replays").await?)?.replays,
            Self::Local(_) => Vec::new(),
        };
        Ok(all.into_iter().find(|replay| replay.sink == sink))
    }

    pub(super) async fn cancel_replay(&self, sink: &str) -> Result<ReplayReport, Failure> {
        let none = || Failure::Failed(format!("no replay is under way at \"{sink}\""));
        match self {
            Self::Remote(client) => {
                let cancelled = client.post(&format!("/api/v1/replays/{}/cancel", segment(sink)), &json!({})).await?;
                cancelled.ok_or_else(none)
            }
            Self::Local(local) => {
                let cancelled = local.queue.cancel_replay(local.queue.sink_id(sink).ok_or_else(none)?).await;
                Ok(ReplayReport::of(sink, &cancelled.map_err(unchanged)?.ok_or_else(none)?))
            }
        }
    }

    /// How much was left of a sink that is no longer configured; `None` if there is no such sink.
    pub(super) async fn purge_sink(&self, sink: &str) -> Result<Option<u64>, Failure> {
        match self {
            Self::Remote(client) => {
                let count: Option<Count> = client.post(&format!("/api/v1/sinks/{}/purge", segment(sink)), &json!({})).await?;
                Ok(count.map(|c| c.count))
            }
            Self::Local(local) => {
                if local.sinks.iter().any(|s| s.name == sink) {
                    return Err(Failure::Failed(format!("\"{sink}\" is configured; take it out of the configuration first")));
                }
                let Some(id) = local.queue.sink_id(sink) else { return Ok(None) };
                local.queue.clear(id).await.map(Some).map_err(unchanged)
            }
        }
    }

    /// The state that the sink has then; `None` if there is no such sink.
    pub(super) async fn set_paused(&self, sink: &str, paused: bool) -> Result<Option<String>, Failure> {
        match self {
            Self::Remote(client) => {
                let verb = if paused { "pause" } else { "resume" };
                let answer: Option<Value> = client.post(&format!("/api/v1/sinks/{}/{verb}", segment(sink)), &json!({})).await?;
                Ok(answer.map(|a| a["state"].as_str().unwrap_or("running").to_owned()))
            }
            Self::Local(local) => {
                let Some(id) = local.queue.sink_id(sink) else { return Ok(None) };
                let reason = paused.then(|| PAUSED_BY_OPERATOR.to_owned());
                local.queue.pause(id, reason).await.map_err(unchanged)?;
                Ok(Some(if paused { "paused" } else { "running" }.to_owned()))
            }
        }
    }
}

fn unchanged(error: AppendError) -> Failure {
    Failure::Failed(format!("nothing was changed: {error}"))
}

/// A name as a part of a path.
fn segment(name: &str) -> percent_encoding::PercentEncode<'_> {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC)
}

/// A path of the API itself is never a 404.
fn found<T>(answer: Option<T>) -> Result<T, Failure> {
    answer.ok_or_else(|| Failure::Failed("the running offramp does not know this command; is it of another version?".to_owned()))
}

/// A queue that is in use says that an offramp runs after all, at another address or hanging.
fn not_opened(e: &QueueError, address: &str, why: &NoAnswer) -> Failure {
    if matches!(e, QueueError::Locked { .. }) {
        Failure::Unreachable(format!(
            "offramp does not answer at {address} ({why}), but {e}; is admin.listen the one that it was started with?"
        ))
    } else {
        Failure::Failed(e.to_string())
    }
}

impl Local {
    fn open(config: &Config, address: &str, why: &NoAnswer) -> Result<Self, Failure> {
        let queue = Queue::open(&config.queue, &config.sinks, &Metrics::new()).map_err(|e| not_opened(&e, address, why))?;
        let stats = queue.stats();
        let sinks = config
            .sinks
            .iter()
            .map(|sink| {
                let paused = stats.sinks.iter().find(|s| s.name == sink.name).and_then(|s| s.paused.clone());
                SinkStatus {
                    name: sink.name.clone(),
                    kind: sink.kind.name(),
                    state: if paused.is_some() { "paused" } else { "stopped" },
                    reason: paused.or_else(|| Some("offramp is not running".to_owned())),
                    workers: sink.workers,
                    ..SinkStatus::default()
                }
            })
            .collect();
        let proxies = config
            .proxies
            .iter()
            .map(|proxy| ProxyStatus {
                name: proxy.name.clone(),
                listen: proxy.listen.to_string(),
                upstream: proxy.upstream.to_string(),
                in_flight: 0,
                waiting: 0,
            })
            .collect();
        let targets = config.sinks.iter().filter_map(|sink| Some((sink.name.clone(), queue.sink_id(&sink.name)?, sink.order_by)));
        Ok(Self { targets: targets.collect(), queue, sinks, proxies })
    }

    fn status(&self) -> Status {
        Status::assemble(&self.queue.stats(), &self.sinks, self.proxies.clone(), Duration::ZERO, clock::now_ms())
    }

    /// The sink that a replay can go to.
    fn replayed_to(&self, sink: &str) -> Result<SinkId, Failure> {
        let known: Vec<String> = self.targets.iter().map(|(name, ..)| name.clone()).collect();
        known_sink(sink, &known)?;
        self.queue.sink_id(sink).ok_or_else(|| Failure::Failed(format!("sink \"{sink}\" is not known to the queue")))
    }

    fn sink_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.sinks.iter().map(|s| s.name.clone()).collect();
        names.extend(
            self.queue.stats().sinks.into_iter().map(|s| s.name).filter(|name| !self.sinks.iter().any(|s| s.name == *name)),
        );
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_in_use_is_an_offramp_that_could_not_be_reached() {
        let locked = QueueError::Locked { path: "/q".into(), pid: "7".into() };
        let failure = not_opened(&locked, "127.0.0.1:9911", &NoAnswer::Timeout);
        assert_eq!(failure.code(), 3);
        assert!(failure.to_string().starts_with(
            "offramp does not answer at 127.0.0.1:9911 (no answer within 5 s), but the queue at /q is in use by process 7"
        ));
    }
}
